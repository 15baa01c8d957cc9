"""A bus over a network: the same messages, carried by a transport."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from random import Random
from typing import Any, ClassVar, Literal, TypedDict, get_args

import anyio

from bus.delivery.claims import Claim
from bus.delivery.direct import Direct
from bus.delivery.leases import Leases
from bus.errors import BusError, DataLostError
from bus.local.bus import WorkerBus
from bus.local.dead_letters import DeadLetters
from bus.local.mailbox import Room
from bus.local.registry import WorkerReadyData, WorkerRegistry
from bus.log import log
from bus.membership.membership import Membership
from bus.membership.watchdog import BLOCK_LIMIT, Watchdog
from bus.messages import (
    JOB_TALK,
    TERMINAL_MESSAGES,
    BusDataLostMessage,
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobRequestMessage,
    BusJobRunningMessage,
    BusJobStreamDataMessage,
    BusLocalMessage,
    BusMessage,
    BusTopicMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
)
from bus.network.inbox import Inbox
from bus.network.session import NetworkStatistics, publish_elsewhere, statistics_of
from bus.transport.connection import CONNECTING, READING, Connection
from bus.transport.framing import Framer
from bus.transport.outbox import DirectOutbox, Outbox
from bus.transport.server import UNPROTECTED
from bus.transport.system_answers import later, to_orphan
from bus.transport.transport import Lane, Prompt, Transport
from bus.wire.codec import MAX_MESSAGE_BYTES
from bus.wire.signing import signer_for

DeliveryKind = Literal["at_least_once", "at_most_once"]
"""How often a job may run."""

DELIVERIES: tuple[str, ...] = get_args(DeliveryKind)


class NetworkOptions(TypedDict, total=False):
    """The options of every bus over a network; see `NetworkBus`."""

    heartbeat: float
    lease: float | None
    max_deliver: int
    prefetch: int
    max_message_bytes: int
    block_limit: float | None
    signing_key: bytes | tuple[bytes, ...] | None
    delivery: DeliveryKind
    rng: Random | None


def checked(
    heartbeat: float,
    lease: float | None,
    *,
    max_deliver: int,
    prefetch: int,
    delivery: DeliveryKind,
    block_limit: float | None,
) -> float:
    """Refuse what makes no sense, and say how long a lease is.

    Raises:
        ValueError: An option is out of its range.
    """
    if delivery not in DELIVERIES:
        raise ValueError(f"delivery must be 'at_least_once' or 'at_most_once', not {delivery!r}")
    for name, value in (("max_deliver", max_deliver), ("prefetch", prefetch)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value!r}")
    if block_limit is not None and not block_limit > 0:
        raise ValueError(f"block_limit must be above 0 seconds, or None for no limit, not {block_limit!r}")
    lease = 3 * heartbeat if lease is None else lease
    if not 0 < heartbeat < lease:
        raise ValueError(
            f"heartbeat must be above 0 seconds and below the lease: heartbeat={heartbeat!r}, lease={lease!r}"
        )
    return lease


FLUSH_TIMEOUT = 5.0
"""Seconds `stop()` lets the last answers go out."""


class NetworkBus(WorkerBus):
    """A bus that reaches other processes.

    A job request goes into the queue of its worker's name and is claimed by one runner that has a free slot; it is
    delivered again if that runner dies, until `max_deliver`. Everything else goes to the inbox of the one runner it is
    meant for. What has both ends in this process does not travel, unless a replica elsewhere has room and this one has
    none. Connections are tried again for as long as the bus runs.

    With `delivery="at_most_once"` a job goes straight to one runner that serves its name, and the broker stores nothing
    of it. It runs once at most: a second runner is asked only if the first says that it has not begun it, and never
    will. If its performer dies, or the request or an answer is lost with a connection, its requester is told FAILED
    with an error of type `JobLost` a lease and some heartbeats later: it may or may not have run. While nobody takes
    jobs of that name it waits in the process of its requester, and is lost with that.

    Args:
        transport: The network.
        heartbeat: Seconds between two signs of life.
        lease: Seconds without one after which a runner is dead; None is three times `heartbeat`.
        max_deliver: Deliveries of one job before it is given up as FAILED.
        prefetch: Most jobs of one worker that are claimed in one go, however many it could start.
        max_message_bytes: Most bytes of a message.
        block_limit: Seconds for which a blocked event loop (a handler that calls `time.sleep`, say) is not a death: a
            thread keeps its leases and logs the stack that blocks. After them the leases are given up; None is never.
            Over Redis and NATS only.
        signing_key: Signs each frame, and no other is taken in: at least 32 random bytes, the same in all processes.
            Of several keys the first one signs, and all are accepted: to change the key of a fleet that runs, give each
            process in turn `(old, new)`, then `(new, old)`, then `new`. None takes the environment variable
            `ACTORBUS_SIGNING_KEY`: hexadecimal, 64 digits or more, with commas between keys.
        delivery: How jobs travel that do not say it themselves: `at_least_once` or `at_most_once`.
        rng: Where ids and jitter come from.

    Raises:
        ValueError: An option is out of its range, or a signing key is unfit; it is not shown.
    """

    event_names: ClassVar[tuple[str, ...]] = ("on_connected", "on_disconnected")
    """`on_connected(bus)` and `on_disconnected(bus)` happen in turn, one after the other, as often as what
    `network_statistics().connection.connected` says changes; not when the bus is stopped."""

    networked = True

    def __init__(
        self,
        transport: Transport,
        *,
        heartbeat: float = 2.0,
        lease: float | None = None,
        max_deliver: int = 5,
        prefetch: int = 64,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        block_limit: float | None = BLOCK_LIMIT,
        signing_key: bytes | tuple[bytes, ...] | None = None,
        delivery: DeliveryKind = "at_least_once",
        rng: Random | None = None,
    ) -> None:
        super().__init__()
        lease = checked(
            heartbeat, lease, max_deliver=max_deliver, prefetch=prefetch, delivery=delivery, block_limit=block_limit
        )
        self._transport = transport
        self._heartbeat = heartbeat
        self._lease = lease
        self._max_deliver = max_deliver
        self._delivery = delivery
        self._prefetch = prefetch
        self._max_bytes = max_message_bytes
        self._block_limit = block_limit
        self._signer = signer_for(signing_key)
        self._rng = rng or Random(secrets.randbits(64))
        self._incarnation = f"{self._rng.getrandbits(32):08x}"
        self._framer = Framer(self._incarnation, self._signer, max_message_bytes)
        self._closing = False
        self.registry = WorkerRegistry(f"bus-{self._incarnation}")
        self.connection: Connection
        self._outbox: Outbox
        self._leases: Leases
        self._direct: Direct
        self._membership: Membership
        self._inbox: Inbox
        self._watchdog: Watchdog

    @property
    def address(self) -> str:
        """Name of the runner and this life of it."""
        return f"{self.registry.runner_name}#{self._incarnation}"

    @property
    def dead_letters(self) -> DeadLetters:
        """The jobs that were given up on, of the whole network."""
        return DeadLetters(self._transport, max_message_bytes=self._max_bytes, verifier=self._signer)

    async def attach(self, registry: WorkerRegistry) -> None:
        """Belong to a runner.

        Raises:
            BusError: Another runner has this bus, or it was started without one.
        """
        if self._registries or self.started:
            raise BusError(f"{self!r} has a runner, or was started without: give each runner a new bus, not started")
        await super().attach(registry)
        self.registry = registry

    async def start(self) -> None:
        """Connect, trying for as long as it takes, and start delivering."""
        if self.started:
            return
        await super().start()
        self.connection = Connection(self.tasks, self._rng, self._emit, lambda: self._closing)
        outbox = self._outbox = Outbox(self._transport, self.tasks, self._rng)
        self._membership = Membership(
            self, heartbeat=self._heartbeat, lease=self._lease, max_message_bytes=self._max_bytes
        )
        self._leases = Leases(
            self, self._transport, outbox, max_deliver=self._max_deliver, prefetch=self._prefetch, lease=self._lease
        )
        direct = DirectOutbox(self._transport, self.tasks, self._rng)
        self._direct = Direct(self, self._leases, self._membership.liveness, direct, lease=self._lease)
        every = min(self._heartbeat, self._lease / 3, self._transport.ack_wait / 4)
        self._watchdog = Watchdog(self, self._transport, self._leases, every=every, limit=self._block_limit)
        self.registry.listen(self._direct.changed)
        self._inbox = Inbox(
            self, self._leases, self._direct, self._membership, self._signer, max_message_bytes=self._max_bytes
        )
        if isinstance(self._transport, Prompt):
            self._transport.hand_over(self._inbox.read_direct)
        if (where := self._exposed()) and self._signer is None:
            log().warning(UNPROTECTED, server=where)
        try:
            await self.connection.again(lambda: self._transport.open(self.address), CONNECTING)
        except BaseException:
            await super().stop()
            raise
        if self._closing:
            await super().stop()
            return
        self._watchdog.start()
        for loop in (
            self._watchdog.run,
            direct.run,
            self._outbox.run,
            self._read,
            self._membership.run,
            self._leases.run,
        ):
            self.tasks.keep(loop)

    async def stop(self) -> None:
        """Say goodbye, send what waits, give back what was not started, and disconnect."""
        if not self.started:
            return
        for callback in tuple(self._stop_callbacks):
            callback()
        self._leases.unserve_all()
        with anyio.CancelScope(shield=True):
            await self._watchdog.stop()
            await self._direct.outbox.flush(FLUSH_TIMEOUT)
            self._membership.beat(leaving=True)
            await self._leases.revocation.leave(FLUSH_TIMEOUT)
            self._closing = True
            self._outbox.close()
            await self._transport.close()
        self.registry.unlisten(self._direct.changed)
        await super().stop()

    def post(self, message: BusMessage, *, force: bool = False) -> Room | None:  # noqa: PLR0911 - one return a way
        """Hand a message over, here or to the network; see `WorkerBus.post`."""
        self._sent += 1
        if message.destination:
            return self._post_to(message)
        if message.target is None:
            return self._broadcast(message)
        route = self._routes.get(message.target)
        replicas = self.registry.remote_replicas(message.target)
        if isinstance(message, BusJobRequestMessage):
            if route is not None and not replicas:
                return route(message, force=force)
            return self._ask(message, message.target, force=force)
        if isinstance(message, BusJobCancelMessage):
            if self._direct.cancel(message):
                return None
            self._leases.forbid(message, self.address, self._framer.new_id())  # in the queue, it may come back to us
        elif route is None and not replicas:
            self._drop(message)
            return None
        if route is not None and isinstance(message, JOB_TALK):
            return route(message, force=force)  # of a job with both its ends here: replicas know nothing of it
        for replica in () if message.urgent or force else replicas:
            if room := self._outbox.full("inbox", replica.address):
                return room
        room = route(message, force=force) if route is not None else None
        for replica in replicas if room is None else ():  # all at once or none: who has no room is tried again
            self.put("inbox", replica.address, message, bounded=not message.urgent)
        return room

    def serve(self, name: str, free_slots: Callable[[], int]) -> None:
        """Claim jobs for a worker, as many as it has slots for."""
        self._leases.serve(name, free_slots)

    def give_up(self) -> None:
        """Do not wait any longer for the network; see `WorkerBus.give_up`."""
        self._closing = True

    def capacity_changed(self, name: str) -> None:
        """A worker has more or fewer slots free than before."""
        self._leases.capacity_changed(name)

    def unroute(self, name: str) -> None:
        """Forget a name."""
        self._leases.unserve(name)
        super().unroute(name)

    def give_back(self, request: BusJobRequestMessage) -> None:
        """Return a request that was not started to where it came from; one of this process goes out to others."""
        if self._leases.give_back(request) or request.origin not in {"", self.address} or not self.started:
            return
        if (request.delivery or self._delivery) == "at_most_once":
            self._direct.ask(request, force=True, not_here=True)
        else:
            self.put("queue", request.target or "", request)

    def known_workers(self) -> list[WorkerReadyData]:
        """None: other runners announce theirs."""
        return []

    def network_statistics(self) -> NetworkStatistics:
        """What the network side holds now."""
        return statistics_of(self)

    def _exposed(self) -> str:
        """The server that frames travel to without encryption, beyond this machine; empty if they do not."""
        return ""

    # --- out ---

    def put(
        self, lane: Lane, to: str, message: BusMessage, claim: Claim | None = None, *, bounded: bool = False
    ) -> str:
        """Send a message by a lane, and say in which frame; a `claim` that it answers ends once the network has it."""
        if type(message) is BusJobStreamDataMessage and lane == "inbox":
            return self._outbox.put_chunk(message, to, self._framer, self.address)
        frame = self._framer.frame(message, lane, to, self.address)
        if lane == "direct":
            self._direct.outbox.put(frame, bounded=bounded)
        elif claim is None:
            self._outbox.put(frame, bounded=bounded)
        else:
            self._leases.send_answer(claim, message, frame)
        return frame.id

    def deliver(self, message: BusMessage, *, force: bool = True) -> Room | None:
        """Hand a message to its target in this process; what the network has accepted must fit, and is forced."""
        if isinstance(message, BusJobRunningMessage) and message.origin and not self.reaches(message.target or ""):
            self.send_to(message.origin, to_orphan(message))
        return super().deliver(message, force=force)

    def is_gone(self, address: str) -> bool:
        """Whether that life of a runner is over, as far as we can tell: not while we are cut off ourselves."""
        return self._membership.liveness.connected(self.tasks.now()) and not self._membership.liveness.hears(address)

    def look_round(self) -> None:
        """At every heartbeat: stop the jobs whose requesters are gone, give up those whose performers are."""
        self._leases.stop_orphans()
        self._direct.look(self.tasks.now())

    def answer_again(self, request: BusJobRequestMessage | BusJobInquiryMessage, answer: BusMessage) -> None:
        """Send a remembered answer once more."""
        if request.origin != self.address:
            self.put("inbox", request.origin, answer)

    def tell_of_loss(self, error: DataLostError) -> None:
        """What the network had accepted is gone: who waits for it is told."""
        log().error("accepted messages are lost: jobs that were under way end as failed", error=str(error))
        self.tell_runners(BusDataLostMessage(source=self.registry.runner_name))

    def send_to(self, address: str, message: BusMessage, claim: Claim | None = None) -> None:
        """Send a message to one life of a runner; a `claim` that it answers ends once it is safe."""
        if address != self.address:
            self.put("inbox", address, message, claim)
            return
        message.origin = address
        self.deliver(message)
        if claim is not None:
            self._leases.answered(claim, message)

    def _ask(self, request: BusJobRequestMessage, name: str, *, force: bool) -> Room | None:
        """Ask a worker for a job: the one here as long as it has room, else another runner."""
        if self._leases.free(name) > 0:
            room = self.deliver(request, force=force)
            self._leases.capacity_changed(name)  # else more jobs would be claimed than can begin here
            return room
        if (request.delivery or self._delivery) == "at_most_once":
            return self._direct.ask(request, force=force)
        room = None if force else self._outbox.full("queue", name)
        if room is None:
            self.put("queue", name, request, bounded=True)
        return room

    def _post_to(self, message: Any) -> Room | None:
        """Send to one runner. What belongs to a job goes out only while we hold its claim."""
        answered = None
        if hasattr(message, "sequence") or isinstance(message, BusJobRunningMessage):
            claim = self._leases.of_answer(message)
            if claim is None:  # its lease was lost: somebody else answers
                return None
            if claim.delivery is None:
                self.put("direct", message.destination, message)
                self._leases.told(claim, message)
                return None
            if isinstance(message, TERMINAL_MESSAGES):
                self._leases.claims.end(claim, message)
                answered = claim
                if claim.delivery.attempt > message.attempt:  # it came again meanwhile: another may have had it before
                    self.send_to(message.destination, message)
                    message = later(message, claim.delivery.attempt)
        self.send_to(message.destination, message, answered)
        return None

    def _broadcast(self, message: BusMessage) -> Room | None:
        self.hand_out(message)
        if isinstance(message, (BusWorkerReadyMessage, BusWorkerLostMessage)):
            self._membership.number(message)
        if not (isinstance(message, BusLocalMessage) or getattr(message, "session", "") is None):
            self.put("everyone", "", message)
        return None

    async def _publish_away(self, message: BusTopicMessage) -> None:
        await publish_elsewhere(self, message)

    # --- in ---

    async def _read(self) -> None:
        while not self._closing:
            for delivery in await self.connection.again(self._leases.receive, READING) or ():
                self._inbox.read(delivery)


class ServerBus(NetworkBus):
    """A bus whose processes meet at a server.

    Attributes:
        server_url: How the server is reached, password included: not to be shown. None if the bus was given a client.
        namespace: How all that it keeps there begins; what else is kept there for the same program begins alike.
    """

    server_url: str | None
    namespace: str
