"""The bus of one process: finds the reader of a message and hands it over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Self

import anyio
import msgspec
from msgspec.structs import replace

from bus.errors import BusError, BusNotStartedError, DuplicateNameError, EncodeError, MailboxFullError
from bus.local.dead_letters import DeadLetters
from bus.local.events import EventSource
from bus.local.home import GroupHome
from bus.local.mailbox import DEFAULT_MAILBOX_SIZE, Room
from bus.local.observers import Observers
from bus.local.registry import WorkerReadyData, WorkerRegistry
from bus.local.subscriber import BusSubscriber, Route, plain_route
from bus.local.tasks import Tasks
from bus.local.topics import Topics
from bus.log import log
from bus.messages import (
    RUNNER_MESSAGES,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusLocalMessage,
    BusMessage,
    BusTopicMessage,
    ErrorInfo,
)
from bus.names import check_name
from bus.wire.values import travel

SEND_TIMEOUT = 30.0
"""Seconds a message without a deadline of its own waits for room: as long as a job waits for somebody to serve it."""

_HEADER_FIELDS = frozenset(BusMessage.__struct_fields__)


class BusStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a bus.

    Attributes:
        subscribers: Names that can be reached in this process.
        parked: Job requests that wait for somebody to serve their name (at most 10,000 per name).
        sent: Messages handed over since the start.
        undeliverable: Messages whose target nobody had; they were dropped and logged.
    """

    subscribers: int
    parked: int
    sent: int
    undeliverable: int


class WorkerBus(EventSource):
    """Carries messages between workers, clients and runners.

    A message to a reader in this process costs a dictionary look-up and a method call, whatever else is on the bus.
    Messages of one sender to one reader arrive in the order sent, system messages ahead of data messages. A job request
    for a name that nobody serves waits here until somebody does or it is cancelled; any other message to an unknown
    name is counted in `statistics().undeliverable` and logged.
    """

    networked: ClassVar[bool] = False
    """Whether it reaches other processes."""

    session: str | None = None
    """The session of the runners on it that name none; None lets each have one of its own."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._listeners: dict[str, Route] = {}
        self._runners: dict[str, Route] = {}
        self.topics = Topics()
        self._parked: dict[str, dict[tuple[str, str], tuple[BusJobRequestMessage, float]]] = {}
        self._registries: dict[str, WorkerRegistry] = {}
        self._subscribers: dict[str, BusSubscriber] = {}
        self._start_callbacks: list[Callable[[Tasks], None]] = []
        self._stop_callbacks: list[Callable[[], None]] = []
        self._home: GroupHome | None = None
        self._started = False
        self._lent = False
        self._tasks: Tasks | None = None
        self._observers: Observers | None = None
        self._sent = 0
        self._undeliverable = 0
        self._ran = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'started' if self.started else 'stopped'} subscribers={len(self._routes)}>"

    @property
    def address(self) -> str:
        """Where other processes reach this one; empty if they cannot."""
        return ""

    @property
    def started(self) -> bool:
        """Whether messages can be sent now."""
        return self._started and self._home is not None and not self._home.gone

    @property
    def tasks(self) -> Tasks:
        """The tasks of a started bus.

        Raises:
            BusNotStartedError: It is not started.
        """
        if self._tasks is None:
            raise BusNotStartedError("use its tasks")
        return self._tasks

    async def start(self) -> None:
        """Start delivering. Does nothing if it is started; any task of the event loop may stop it.

        Raises:
            BusError: It runs in another event loop.
        """
        if self._home is None or self._home.gone:
            self._home = GroupHome(f"bus of {self.address or 'this process'}", self._tell_of_stop)
            self._started = False
        self._require_here("start")
        home = self._home
        with anyio.CancelScope(shield=True):  # it takes no longer than a task to begin
            group = await home.open()
        if self._started or self._home is not home:  # by another task, which began to at the same time
            return
        self._tasks, self._started = Tasks(group), True
        for subscriber in self._subscribers.values():
            self._lead(subscriber, self._tasks)
        while self._start_callbacks:
            self._start_callbacks.pop()(self._tasks)

    async def stop(self) -> None:
        """Stop delivering. Who still uses the bus is told first; parked requests are dropped with their requesters.

        Raises:
            BusError: It runs in another event loop.
        """
        if self._home is None:
            return
        gone = self._home.gone
        if not gone:
            self._require_here("stop")
        self._tell_of_stop()
        home, self._home, tasks = self._home, None, self._tasks
        self._ran, self._started = True, False
        self._parked.clear()
        for name in self._subscribers:
            self.unroute(name)
        try:
            if not gone:
                if tasks is not None:
                    tasks.release()
                await home.close()
        finally:  # not before: a loop that wakes while it is cancelled looks at the clock
            if self._tasks is tasks:
                self._tasks = None

    async def lend(self) -> None:
        """Start it for a runner that was attached, if nobody has: it is then stopped with the last such runner.

        Raises:
            BusError: It runs in another event loop.
        """
        if self._home is None or self._home.gone:
            self._lent = True
        await self.start()

    async def take_back(self, registry: WorkerRegistry) -> None:
        """Forget a runner's registry, and stop if it was started for runners and this is the last one."""
        try:
            if self._lent and self._registries.keys() <= {registry.runner_name}:
                self._lent = False
                await self.stop()
        finally:
            self._registries.pop(registry.runner_name, None)

    def _require_here(self, verb: str) -> None:
        assert self._home is not None
        if not self._home.here:
            raise BusError(
                f"cannot {verb} {self!r}: it runs in another event loop. Make a bus in each loop, or let them share a "
                "network: open_bus(url)"
            )

    def _tell_of_stop(self) -> None:
        for callback in tuple(self._stop_callbacks):
            callback()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver messages for `subscriber.name`, and those for everybody, to its `on_bus_message`.

        One that `observes` gets a copy of every message that passes this process instead.

        Raises:
            DuplicateNameError: The name is taken by another subscriber. The same subscriber twice is no error.
        """
        name = check_name("subscriber name", subscriber.name)
        if self._subscribers.get(name) is subscriber:
            return
        self.require_free(name)
        if self._started:
            self._lead(subscriber, self.tasks)
        self._subscribers[name] = subscriber

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        """Stop delivering to `subscriber`; what waits for it is still handed over. Does nothing if it is unknown."""
        if self._subscribers.get(subscriber.name) is subscriber:
            del self._subscribers[subscriber.name]
            self.unroute(subscriber.name)

    @property
    def dead_letters(self) -> DeadLetters:
        """The jobs that were given up on; within one process there are none, as nothing is delivered twice."""
        return DeadLetters()

    async def send(self, message: BusMessage) -> None:
        """Send a message of any type.

        In process it is in its reader's mailbox when this returns. If that is full, this waits for room. What a worker
        says in it of a job that it does takes its place among what it has said of that job before. After the bus was
        stopped the message is dropped, counted as undeliverable and logged.

        Raises:
            BusNotStartedError: The bus was never started.
            EncodeError: A field cannot travel; nothing was sent.
            MailboxFullError: There was no room within 30 seconds, or the reader refuses to let senders wait.
        """
        if not self._started:
            if not self._ran:
                raise BusNotStartedError(f"send {type(message).__name__}")
            self._undeliverable += 1
            log().warning("message dropped: the bus was stopped", message=type(message).__name__, source=message.source)
            return
        if not isinstance(message, BusLocalMessage):
            isolate(message)
        sender = self._routes.get(message.source)
        if sender is not None and sender.says is not None and await sender.says(message):
            return
        room = self.post(message)
        if room is not None:
            await self._send_later(room, partial(self.post, message))

    def post(self, message: BusMessage, *, force: bool = False) -> Room | None:
        """Hand a message over at once, without checks; the machinery's own way to send.

        Returns:
            None if it was delivered (or dropped and counted), else the room to wait for before the next try.
        """
        self._sent += 1
        if message.destination and message.destination != self.address:
            return self._post_away(message)
        if message.target is None:
            return self.hand_out(message)
        route = self._routes.get(message.target)
        if route is None:
            return self._unrouted(message)
        kind = type(message)
        if kind is BusJobRequestMessage:
            return route.request(message, force=force)
        if kind is BusJobResponseMessage and route.answers is not None:
            asked = route.answers.get(message.job_id)  # type: ignore[attr-defined]
            if asked is not None and asked.answered(message):  # type: ignore[arg-type]
                return None
        return route.deliver(message, force=force)

    def deliver(self, message: BusMessage, *, force: bool = True) -> Room | None:
        """Hand a message to its target in this process; without one it is dropped and counted. See `post`."""
        route = self._routes.get(message.target or "")
        if route is None:
            self._drop(message)
            return None
        return route.deliver(message, force=force)

    def hand_out(self, message: BusMessage) -> Room | None:
        """Hand a message for everybody to those of this process."""
        routes = self._runners if isinstance(message, RUNNER_MESSAGES) else self._listeners
        for name, route in tuple(routes.items()):
            if name != message.source and route.deliver(message) is not None:
                self._drop(message)  # one reader's full mailbox must not hold up the others
        return None

    def tell_runners(self, message: BusMessage) -> None:
        """Hand a message to the runners of this process."""
        for route in tuple(self._runners.values()):
            route.deliver(message)

    def reaches(self, name: str) -> bool:
        """Whether a name is served in this process."""
        return name in self._routes

    def route(self, name: str, route: Route, *, listens: bool = False, runner: bool = False) -> None:
        """Lead messages for `name` to `route`, beginning with the requests that are parked for it.

        Raises:
            DuplicateNameError: The name is taken.
        """
        if name in self._routes:
            self._refuse_duplicate(name)
        self._routes[name] = route
        if listens:
            self._listeners[name] = route
        if runner:
            self._runners[name] = route
        for request, since in self._parked.pop(name, {}).values():
            if request.timeout is not None:
                request.timeout = max(request.timeout - (self.tasks.now() - since), 0.0)
            route.request(request, force=True)

    def require_free(self, name: str) -> None:
        """Refuse a name that is taken.

        Raises:
            DuplicateNameError: It is.
        """
        if name in self._routes or name in self._subscribers:
            self._refuse_duplicate(name)

    def listen(self, name: str) -> None:
        """Hand messages for everybody to a reader that did not want them before."""
        if name in self._routes:
            self._listeners[name] = self._routes[name]

    def unroute(self, name: str) -> None:
        """Forget a name and its topics."""
        self._routes.pop(name, None)
        self._listeners.pop(name, None)
        self._runners.pop(name, None)
        self.topics.forget(name)
        if self._observers is not None:
            self._observers.remove(name)

    def follow(self, topic: str, name: str) -> None:
        """Lead what is published on `topic` to the reader `name` as well."""
        self.topics.follow(topic, name)

    async def publish(self, message: BusTopicMessage) -> int:
        """Send to every follower of a topic, each with a copy of its own, in the order sent.

        To each other runner with a follower that is known here goes one message. The network stores it, and delivers
        it in order and once, as long as that runner lives.

        Returns:
            How many followers in this process got it.

        Raises:
            EncodeError: It is too big for the network.
            MailboxFullError: A follower, or what is to be sent to its runner, had no room within 30 seconds; those
                before it got the message.
        """
        if not self._started:
            raise BusNotStartedError(f"publish on topic {message.topic!r}")
        await self._publish_away(message)
        count = 0
        for copy in self.topics.copies(message):
            room = self.deliver(copy, force=False)
            if room is not None:
                await self._send_later(room, partial(self.post, copy))
            count += 1
        return count

    async def attach(self, registry: WorkerRegistry) -> None:
        """Make a runner's registry known to the bus, before the bus is started for it.

        Raises:
            DuplicateNameError: Another runner of that name is on this bus.
        """
        name = registry.runner_name
        if name in self._registries:
            raise DuplicateNameError("runner name", name, "another runner of this bus")
        self._registries[name] = registry

    def known_workers(self) -> list[WorkerReadyData]:
        """Workers of other runners on this bus, for a runner that joins it."""
        return [data for registry in self._registries.values() for data in registry.local()]

    def serve(self, name: str, free_slots: Callable[[], int]) -> None:
        """A worker takes jobs from now on: as many as `free_slots()` says. In process they are simply handed over."""

    def capacity_changed(self, name: str) -> None:
        """What `free_slots()` of a worker says has changed."""

    def give_up(self) -> None:
        """Do not wait any longer for a network that `start()` tries to reach: it returns soon, not started."""

    def on_start(self, callback: Callable[[Tasks], None]) -> None:
        """Call `callback` with its tasks when it starts, before it waits for a network."""
        self._start_callbacks.append(callback)

    def on_stop(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` before the bus stops. Returns the function that takes this back."""
        self._stop_callbacks.append(callback)
        return lambda: self._stop_callbacks.remove(callback)

    def statistics(self) -> BusStatistics:
        """What is on the bus now, and what went over it."""
        return BusStatistics(
            subscribers=len(self._routes),
            parked=sum(len(requests) for requests in self._parked.values()),
            sent=self._sent,
            undeliverable=self._undeliverable,
        )

    def park(self, request: BusJobRequestMessage) -> Room | None:
        """Keep a request until somebody serves its name."""
        assert request.target is not None
        parked = self._parked.setdefault(request.target, {})
        if len(parked) >= DEFAULT_MAILBOX_SIZE:
            raise MailboxFullError(request.target, DEFAULT_MAILBOX_SIZE)
        parked[request.source, request.job_id] = (request, self.tasks.now())
        return None

    def unpark(self, cancel: BusJobCancelMessage) -> bool:
        """Drop the parked request that is cancelled. False if there is none."""
        parked = self._parked.get(cancel.target or "", {})
        if parked.pop((cancel.source, cancel.job_id), None) is None:
            return False
        if not parked:
            del self._parked[cancel.target or ""]
        return True

    def give_back(self, request: BusJobRequestMessage) -> None:
        """Take back a request that its worker has not started, for the next one that serves the name."""
        since = self._tasks.now() if self._tasks is not None else 0.0
        self._parked.setdefault(request.target or "", {})[request.source, request.job_id] = (request, since)

    def _unrouted(self, message: BusMessage) -> Room | None:
        if isinstance(message, BusJobRequestMessage):
            return self.park(message)
        if isinstance(message, BusJobCancelMessage) and self.unpark(message):
            return None
        self._drop(message)
        return None

    def undelivered(self, name: str, count: int, why: str = "worker stopped before it handled all messages") -> None:
        """Count messages that do not reach who they were for."""
        if count:
            self._undeliverable += count
            log().debug(why, target=name, messages=count)

    def _lead(self, subscriber: BusSubscriber, tasks: Tasks) -> None:
        if getattr(subscriber, "observes", False):
            if self._observers is None:
                self._observers = Observers(self, _copy)
            self.route(subscriber.name, self._observers.add(subscriber, tasks))
        else:
            self.route(subscriber.name, plain_route(subscriber, tasks), listens=True)

    def _drop(self, message: BusMessage) -> None:
        self._undeliverable += 1
        log().debug(
            "nobody to deliver to", message=type(message).__name__, target=message.target, source=message.source
        )

    def _post_away(self, message: BusMessage) -> Room | None:
        self._drop(message)
        return None

    def _refuse_duplicate(self, name: str) -> None:
        raise DuplicateNameError(
            "name", name, "another subscriber of this bus", "choose another, or give each replica's runner its own bus"
        )

    async def _publish_away(self, message: BusTopicMessage) -> None:
        """Send what is published to other processes: there are none."""

    async def _send_later(self, room: Room | None, again: Callable[[], Room | None]) -> None:
        with anyio.move_on_after(SEND_TIMEOUT):
            while room is not None and not room.refuses:
                await room.wait()
                waited, room = room, again()
                waited.pass_on()
        if room is not None:
            raise room.refusal()


def isolate(message: BusMessage) -> None:
    """Replace every field of a message by a copy that can travel.

    Raises:
        EncodeError: A field cannot; it names the path.
    """
    for field in message.__struct_fields__:
        if field not in _HEADER_FIELDS:
            value = getattr(message, field)
            if value is not None and not isinstance(value, (str, int, float, ErrorInfo)):
                setattr(message, field, travel(value, field))


def _copy(message: BusMessage) -> BusMessage:
    """A message that its reader may keep and change; what never leaves the process as it is."""
    if isinstance(message, BusLocalMessage):
        return message
    copy = replace(message, cause=None) if isinstance(message, BusJobResponseMessage) else replace(message)
    try:
        isolate(copy)
    except EncodeError:  # one of the machinery's own
        return message
    return copy


class AsyncQueueBus(WorkerBus):
    """A bus that never leaves the process.

    Nothing is lost while the process lives and nothing survives it; nothing is delivered twice. Several runners may
    share one such bus: their workers reach each other by name. For replicas, which share a name, give each runner a bus
    of its own on a common network: `open_bus("memory://fleet")`.
    """
