"""The core of a worker: all of its state, in one object that nothing of a user's class reaches.

The machinery holds cores and never workers. Of the user's object it calls the methods that are handlers or hooks, reads
the public options, and nothing else; so a user's class may use any other name, be equal to others, or not hashable.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actors.host import AskingHost, DoingHost
from actors.jobs.errors import RunnerStateError
from actors.jobs.lifecycle import ALIVE, ENDING, WORKER_STEPS, AdmissionState, WorkerState, moved
from actors.jobs.nesting import current_event, current_hook, waits_for_hook
from actors.performer.admission import Admission
from actors.performer.handler import Handler
from actors.requester.flow import Member
from actors.requester.group import Group
from actors.worker.events import WorkerEvents
from actors.worker.handlers import Definition, definition_of
from actors.worker.hooks import Hooks
from bus import BusJobRequestMessage, WorkerBus, WorkerLostData, WorkerReadyData, WorkerRegistry
from bus.local.mailbox import Mailbox, Room
from bus.local.subscriber import Route
from bus.local.tasks import Signal, Tasks, Waiter, wake
from bus.log import log

if TYPE_CHECKING:
    from actors.jobs.policies import RestartPolicy
    from actors.worker.background import BackgroundTask


MOST_HOOKS = 1024
"""Hooks that may wait before whoever asks for more, or of whom more is asked, has to wait."""


class Names:
    """Names for workers that are given none: of their class, of this life of the process, and a number."""

    def __init__(self, rng: Random | None = None) -> None:
        self._life = f"{(rng or Random(secrets.randbits(64))).getrandbits(32):08x}"
        self._numbers = count(1)

    def new(self, kind: str) -> str:
        """A name that nobody else has."""
        return f"{kind[:40]}-{self._life}-{next(self._numbers)}"


_names = [Names()]


def name_workers_from(rng: Random | None = None) -> None:
    """Draw the names of workers that are given none anew, from `rng` or from chance."""
    _names[:] = [Names(rng)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=name_workers_from)


class WorkerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a worker: everything it holds.

    Attributes:
        running: Jobs that hold a slot (at most `max_concurrency`, plus jobs asked for inside them); a plain handler
            holds it until its thread is back.
        pending: Jobs that wait for a slot, or for the worker to become active (at most `mailbox_size`).
        quarantined: Handlers that go on although their job was answered CANCELLED after the grace period.
        messages: Messages of others that wait to be handled (at most `mailbox_size`).
        hooks: Hooks that wait in line (256 for the events of each job, at most `mailbox_size` for messages, and for the
            rest 1,024 and what was under way).
        handling: Event handlers that run (at most 1,024).
        senders: Requesters and senders that wait for room (bounded by their deadlines, or 30 seconds), also for that of
            its hooks.
        groups: Groups it asked for that have not ended.
        threads: Plain handlers that run in threads (at most 40, plus those that wait for jobs they asked for).
        abandoned: Those of them whose job has been answered without them, after a timeout or a cancellation.
    """

    running: int = 0
    pending: int = 0
    quarantined: int = 0
    messages: int = 0
    hooks: int = 0
    handling: int = 0
    senders: int = 0
    groups: int = 0
    threads: int = 0
    abandoned: int = 0


class Runner(Protocol):
    """A `WorkerRunner`, as its workers have it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def bus(self) -> WorkerBus:
        """How its messages travel."""

    @property
    def registry(self) -> WorkerRegistry:
        """The workers it knows."""

    async def add_workers(self, *workers: Any) -> None:
        """Add root workers; see `WorkerRunner.add_workers`."""

    async def remove_worker(self, name: str) -> bool:
        """End one worker; see `WorkerRunner.remove_worker`."""

    async def end(self, reason: str | None = None) -> None:
        """Begin to end gracefully, and return."""

    async def cancel(self, reason: str | None = None) -> None:
        """Begin to stop at once, and return."""


class WorkerHost(AskingHost, DoingHost, Protocol):
    """The runner of a worker, as its core needs it."""

    session: str | None
    drained: Signal
    """Wakes those that wait for workers to have nothing left to do."""

    ends: bool
    """Whether it is ending, or has ended."""

    @property
    def face(self) -> Runner:
        """The runner that its users hold."""

    def when_running(self, core: WorkerCore, action: str, verb: Callable[[], Awaitable[None]]) -> None:
        """Do something for a worker once all workers that were added before it runs have started."""

    def report(self, core: WorkerCore, what: str, error: BaseException) -> None:
        """Log what a worker's own code raised, and tell those who listen for errors."""

    def crashed(self, core: WorkerCore, error: BaseException) -> None:
        """A worker's own code has failed, beside its `run()`: it fails as if that had raised."""

    def late_answer(self, core: WorkerCore, message: Any, *, known: bool) -> None:
        """Count an answer that nobody waits for; who still works for a job that is not `known` is told to stop."""

    def end(self, core: WorkerCore, reason: str, *, drain: bool = True) -> None:
        """Begin to end a worker and its children."""

    async def stop(self, core: WorkerCore) -> None:
        """Stop a worker for its own `stop()`."""

    async def ready(self, core: WorkerCore) -> None:
        """A worker has started: enter it, tell its watchers, give it what waits for it."""

    async def announce(self, core: WorkerCore, *, ready: bool = True) -> None:
        """Enter a worker, or its change, in the registry, and tell the other runners."""

    async def guarded(self, core: WorkerCore, what: str, function: Callable[..., Any], *arguments: object) -> None:
        """Call one of a worker's hooks: what it raises is reported and goes no further."""

    async def add_children(self, core: WorkerCore, workers: tuple[Any, ...], *, watch: bool) -> None:
        """Add children of a worker."""

    async def supervise_children(
        self, core: WorkerCore, factories: tuple[Callable[[], Any], ...], restart: RestartPolicy | None
    ) -> None:
        """Add supervised children of a worker."""


class WorkerCore:
    """What the machinery knows of one worker. It is a `Doer` to its jobs and an `Asker` to its groups."""

    __slots__ = (
        "_events",
        "_hook_room",
        "_waiters",
        "activation_args",
        "active",
        "admission",
        "asking",
        "background",
        "children",
        "definition",
        "groups",
        "guarded",
        "held",
        "host",
        "instance",
        "leaving",
        "mailbox",
        "name",
        "named",
        "parent",
        "room",
        "route",
        "started_at",
        "state",
        "wanted",
        "wants_messages",
        "watched",
    )

    def __init__(self, instance: Any, name: str | None, *, active: bool) -> None:
        self.instance = instance
        self.definition: Definition = definition_of(type(instance))
        self.named = name is not None
        """Whether it was given its name, which then others may have on other runners."""
        self.name = name if name is not None else _names[0].new(type(instance).__name__)
        self.active = active
        self.state = WorkerState.NEW
        self.leaving = False
        """Whether somebody waits for its last jobs."""
        self.host: WorkerHost | None = None
        self.asking: WorkerHost | None = None
        """The same, until it has stopped."""
        self.parent: WorkerCore | None = None
        self.children: dict[WorkerCore, None] | None = None
        self.started_at: float | None = None
        self.activation_args: dict[str, Any] | None = None
        self.groups: dict[str, Group] = {}
        self.admission: Admission | None = None
        self.mailbox: Mailbox | None = None
        self.room: Room | None = None
        self.route: Route | None = None
        self.held: list[tuple[Any, ...]] | None = None
        self.background: dict[BackgroundTask[Any], None] | None = None
        self.watched: dict[str, None] | None = None
        self.wanted = self.definition.hooks | (vars(instance).keys() & Hooks.event_names)
        self.wants_messages = "on_bus_message" in self.wanted
        self.guarded = self.definition.guarded or "accepts_bus_message" in vars(instance)
        """Whether it is asked which messages it takes."""
        self._events: WorkerEvents | None = None
        self._hook_room: Room | None = None
        self._waiters: list[Waiter] | None = None

    def __repr__(self) -> str:
        return f"<{type(self.instance).__name__} {self.name} {self.state.name.lower()}>"

    # --- life ---

    def again(self, name: str | None, *, active: bool) -> None:
        """Its worker is initialised once more, by another base of its class: the name counts if it is given."""
        if name is not None and self.state is WorkerState.NEW:
            self.name, self.named = name, True
        self.active = active

    def move(self, state: WorkerState) -> None:
        """Go to another state; see `lifecycle`."""
        self.state = moved(WORKER_STEPS, self.state, state)
        self.leaving = state in ENDING

    @property
    def hosted(self) -> WorkerHost:
        """The runner it was added to.

        Raises:
            RunnerStateError: There is none yet.
        """
        if self.host is None:
            raise RunnerStateError(f"worker {self.name!r} has no runner yet: add it with runner.add_workers(worker)")
        return self.host

    def host_for(self, action: str) -> WorkerHost:
        """The running runner that hosts it.

        Raises:
            RunnerStateError: There is none; the text names the action.
        """
        host = self.host
        if host is None or not host.running or self.state is WorkerState.STOPPED:
            raise RunnerStateError(
                f"worker {self.name!r} cannot {action}: it is "
                f"{self.state.name.lower()}; add it to a runner and run that (`await runner.run()` or `async with "
                "runner:`)"
            )
        return host

    def living_host(self, action: str) -> WorkerHost:
        """The runner that hosts it, which runs, or has yet to.

        Raises:
            RunnerStateError: There is none, or it has ended, or the worker has; the text names the action.
        """
        host = self.host
        return self.host_for(action) if host is None or host.ends or self.state is WorkerState.STOPPED else host

    async def act(self, action: str, verb: Callable[[WorkerHost], Awaitable[None]]) -> None:
        """Do what nobody waits for an answer to: now, or when its runner runs.

        After the worker or its runner has ended it is dropped and logged.

        Raises:
            RunnerStateError: It was not added to a runner.
        """
        host = self.host or self.host_for(action)
        if host.running and self.state is not WorkerState.STOPPED:
            await verb(host)
        elif host.ends or self.state is WorkerState.STOPPED:
            log().warning("dropped: the worker has stopped", worker=self.name, action=action)
        else:
            host.when_running(self, action, partial(verb, host))

    async def wait(self) -> None:
        """Wait until it has stopped."""
        while self.state is not WorkerState.STOPPED:
            waiter = self.host_for("wait").tasks.waiter()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)

    def stopped(self) -> None:
        """It has stopped: it asks for nothing any more, and those who wait for that go on."""
        self.asking = None
        for waiter in tuple(self._waiters or ()):
            wake(waiter)

    def statistics(self) -> WorkerStatistics:
        """What it holds now."""
        jobs = self.admission.statistics() if self.admission is not None else None
        room = self.room.statistics() if self.room is not None else None
        ends = self._hook_room.statistics() if self._hook_room is not None else None
        lanes = self.mailbox.statistics() if self.mailbox is not None else None
        return WorkerStatistics(
            running=jobs.running if jobs else 0,
            pending=jobs.pending if jobs else 0,
            quarantined=jobs.quarantined if jobs else 0,
            messages=room.taken if room else 0,
            hooks=lanes.data + lanes.system + lanes.apart if lanes else 0,
            handling=self._events.running if self._events is not None else 0,
            senders=(jobs.senders if jobs else 0) + (room.waiting if room else 0) + (ends.waiting if ends else 0),
            groups=len(self.groups),
            threads=jobs.threads if jobs else 0,
            abandoned=jobs.abandoned if jobs else 0,
        )

    @property
    def busy(self) -> bool:
        """Whether one of its jobs has not ended."""
        return self.admission is not None and self.admission.busy

    # --- doing ---

    @property
    def max_concurrency(self) -> int:
        """Jobs that may run at once."""
        return self.instance.max_concurrency  # type: ignore[no-any-return]

    @property
    def was_ready(self) -> bool:
        """Whether it has ever taken jobs."""
        return self.started_at is not None

    @property
    def free_slots(self) -> int:
        """How many more jobs could start now."""
        if self.admission is not None:
            return self.admission.free_slots
        limit = min(self.max_concurrency, self.hosted.concurrency)
        return limit if self.active and self.state is WorkerState.READY else 0

    def job_left(self) -> None:
        """A job has ended or was handed back: who waits for that may look again."""
        self.hosted.drained.wake()

    def admit(self) -> Admission:
        """What takes its requests; made when it is first needed."""
        admission = self.admission
        if admission is None:
            if self.state in {WorkerState.STOPPING, WorkerState.STOPPED}:
                state = AdmissionState.CLOSED
            elif self.state is WorkerState.DRAINING:
                state = AdmissionState.DRAINING if self.active and self.was_ready else AdmissionState.CLOSED
            else:
                serves = self.active and self.state is WorkerState.READY
                state = AdmissionState.SERVING if serves else AdmissionState.PAUSED
            admission = self.admission = Admission(self, self.hosted, self.new_room(), state)
            self.look_at_doors()
        return admission

    def request(self, message: BusJobRequestMessage, *, force: bool = False) -> Room | None:
        """Take a request for a job; see `Admission.accept`."""
        return self.admit().accept(message, force=force)

    def look_at_doors(self) -> None:
        """Lead requests and answers the short way, unless somebody wants to be told of each."""
        route = self.route
        if route is not None:
            listens = self.wants_messages or self.guarded
            accept = self.admission.accept if self.admission is not None else self.request
            told = listens or self.listens("on_job_request") or "on_job_cancelled" in self.wanted
            route.request = route.deliver if told else accept
            route.answers = None if listens else self.groups

    def new_room(self) -> Room:
        """Room for what waits for it.

        One is made for jobs and one for messages: a hook that waits for a job must not keep it out by the messages that
        wait for the hook.
        """
        worker = self.instance
        return Room(self.name, worker.mailbox_size, self.hosted.tasks, refuses=worker.when_full == "refuse")

    # --- hooks ---

    @property
    def events(self) -> WorkerEvents:
        """The handlers of its events; made when it is first needed."""
        if self._events is None:
            self._events = WorkerEvents(self, type(self.instance).event_names)
        return self._events

    @property
    def tasks(self) -> Tasks:
        """The tasks of its runner."""
        return self.hosted.tasks

    def reported(self, what: str, error: BaseException) -> None:
        """Log what its own code raised, and tell those who listen for errors."""
        self.hosted.report(self, what, error)

    def listens(self, event: str) -> bool:
        """Whether an event has a handler."""
        return self._events is not None and self._events.listens(event)

    async def emit(self, event: str, *details: object) -> None:
        """Call the handlers of an event, each in a task of its own; returns when they have begun."""
        if self._events is not None and self._events.listens(event):
            await self._events.emit(event, *details)

    @property
    def by_events(self) -> Handler | None:
        """What does jobs by the handlers of `on_job_request`, if there are any."""
        return self.events.serving if self.listens("on_job_request") else None

    def served_by_events(self, job_name: str | None) -> bool:
        """Whether a job of that name is done by them, as no handler of the class does it."""
        return self.definition.default is None and job_name not in self.definition.jobs

    def guard(self) -> None:
        """It is asked which messages it takes from now on."""
        self.guarded = True
        self.look_at_doors()

    def want(self, hook: str) -> None:
        """Somebody wants a hook from now on."""
        if hook not in Hooks.event_names:
            return
        self.wanted |= {hook}
        self.look_at_doors()
        if hook == "on_job_request" and self.state is WorkerState.READY:
            self.hosted.bus.serve(self.name, lambda: self.free_slots)
        if hook == "on_bus_message" and not self.wants_messages:
            self.wants_messages = True
            self.look_at_doors()
            if self.host is not None and self.host.running:
                self.host.bus.listen(self.name)

    def open_mailbox(self) -> Mailbox:
        """Where hooks wait; made when it is first needed."""
        if self.mailbox is None:
            self.mailbox = Mailbox(self.name, self._handle, self.hosted.tasks)
        return self.mailbox

    def queue_hook(
        self,
        hook: str,
        argument: Any,
        group: Group | None = None,
        member: Member | None = None,
        *,
        last: bool = True,
    ) -> bool:
        """Put a hook in line, if anybody wants it. Whether it was."""
        if hook not in self.wanted:
            return False
        job_id = getattr(argument, "job_id", None)
        if self._hook_room is None:
            self._hook_room = Room(self.name, MOST_HOOKS, self.hosted.tasks)
        self._hook_room.taken += 1
        item = (_leave_line, self._hook_room, (self.call_hook, hook, argument, group, member, last))
        if getattr(argument, "urgent", False):
            self.open_mailbox().put_urgent(item, job_id)
        else:
            self.open_mailbox().put(item, job_id)
        return True

    def queue_event(self, hook: str, message: Any, group: Any, member: Member) -> bool:
        """Put the hooks of a job's event in line; the last of them tells the group. Whether there is any."""
        if not self.wants_messages:
            return self.queue_hook(hook, message, group, member)
        self.queue_hook(hook, message, group, member, last=False)
        return self.queue_hook("on_bus_message", message, group, member)

    async def call_hook(
        self,
        hook: str,
        argument: Any,
        group: Group | None = None,
        member: Member | None = None,
        last: bool = True,  # noqa: FBT002 - it comes from a tuple in the mailbox
    ) -> None:
        """Call a hook, and the handlers of its event; the `last` one of a job's event tells its group."""
        arguments = () if hook == "on_deactivated" else (argument,)
        token = current_event.set(None if group is None or member is None else (group, member))
        try:
            await self.hosted.guarded(self, hook, getattr(self.instance, hook), *arguments)
            await self.emit(hook, *arguments)
        finally:
            current_event.reset(token)
            if group is not None and member is not None and last:
                group.flow.hook_done(member)

    def crowded(self) -> Room | None:
        """The room to wait for before anything is begun whose end a hook is told of; None if there is room."""
        room = self._hook_room
        return room if room is not None and not room.closed and room.taken >= room.capacity else None

    def close_hooks(self, idle: Callable[[], None]) -> None:
        """Cancel hooks and event handlers that run, drop those that wait; calls `idle` whenever one has stopped."""
        if self.mailbox is not None:
            self.mailbox.close(idle)
        if self._events is not None:
            self._events.close()
        if self._hook_room is not None:
            self._hook_room.close()

    @property
    def hooks_busy(self) -> bool:
        """Whether a hook or an event handler runs."""
        in_line = self.mailbox is not None and self.mailbox.busy
        return in_line or (self._events is not None and self._events.running > 0)

    def shield_hooks(self) -> None:
        """Stop telling those that run to stop: they swallow that."""
        if self.mailbox is not None:
            self.mailbox.shield()
        if self._events is not None:
            self._events.shield()

    def waits_inside_hook(self) -> bool:
        """Whether a hook of its own would have to wait for whatever the current task waits for."""
        return bool(self.wanted) and waits_for_hook(self.name)

    async def _handle(self, item: tuple[Any, ...]) -> None:
        token = current_hook.set(self.name)
        try:
            await item[0](*item[1:])
        finally:
            current_hook.reset(token)

    # --- who it watches, and what runs beside its jobs ---

    def watches(self, worker_name: str) -> bool:
        """Whether it asked itself to be told of a worker, as opposed to being told of its children."""
        return worker_name in self.definition.ready or worker_name in (self.watched or ())

    def on_ready(self, data: WorkerReadyData) -> None:
        """A worker that it watches came up."""
        method = self.definition.ready.get(data.worker_name)
        if method is not None:
            guarded = self.hosted.guarded
            self.open_mailbox().put((guarded, self, method, getattr(self.instance, method), data))
        self.queue_hook("on_worker_ready", data)

    def on_lost(self, data: WorkerLostData) -> None:
        """A worker that it watches is gone."""
        self.queue_hook("on_worker_lost", data)

    def background_ended(self, task: BackgroundTask[Any], error: BaseException | None) -> None:
        """A background task has ended."""
        if self.background is not None:
            self.background.pop(task, None)
        host = self.host
        if host is not None and self.leaving:
            host.drained.wake()
        if host is None or error is None:
            return
        if task.vital and self.state in ALIVE:
            host.crashed(self, error)
        else:
            host.report(self, f"background task {task.get_name()!r} failed", error)


async def _leave_line(room: Room, item: tuple[Any, ...]) -> None:
    room.give()
    await item[0](*item[1:])
