"""The session: all that a network bus is between its start and its stop. It sends, and it is the node of its parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Literal, get_args

import anyio
import msgspec
from msgspec.structs import replace

from bus.delivery.claims import ClaimStatistics
from bus.delivery.direct import Direct, DirectStatistics
from bus.delivery.leases import Leases
from bus.delivery.revocation import Revocation
from bus.errors import EncodeError
from bus.local.bus import WorkerBus
from bus.local.mailbox import Room
from bus.local.registry import WorkerRegistry
from bus.membership.membership import Membership, MembershipStatistics
from bus.membership.watchdog import Watchdog
from bus.messages import (
    JOB_TALK,
    BusJobCancelMessage,
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
from bus.transport.connection import CONNECTING, READING, Connection, ConnectionStatistics
from bus.transport.deduplication import DeduplicationStatistics
from bus.transport.framing import Framer
from bus.transport.guard import GuardedTransport
from bus.transport.outbox import DirectOutbox, Lease, Outbox, OutboxStatistics
from bus.transport.refusals import RefusalStatistics
from bus.transport.system_answers import cannot_leave, to_orphan
from bus.transport.transport import Delivery, Lane, Outgoing, Prompt, Transport
from bus.wire.signing import Signer

DeliveryKind = Literal["at_least_once", "at_most_once"]
"""How often a job may run."""

DELIVERIES: tuple[str, ...] = get_args(DeliveryKind)

FLUSH_TIMEOUT = 5.0
"""Seconds `close` lets the last answers go out."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a node behaves on its network; see `NetworkBus`.

    Raises:
        ValueError: One is out of its range.
    """

    heartbeat: float
    lease: float
    max_deliver: int
    prefetch: int
    max_message_bytes: int
    block_limit: float | None
    signer: Signer | None
    delivery: DeliveryKind
    rng: Random

    def __post_init__(self) -> None:
        if self.delivery not in DELIVERIES:
            raise ValueError(f"delivery must be 'at_least_once' or 'at_most_once', not {self.delivery!r}")
        for name, value in (("max_deliver", self.max_deliver), ("prefetch", self.prefetch)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value!r}")
        if self.block_limit is not None and not self.block_limit > 0:
            raise ValueError(f"block_limit must be above 0 seconds, or None for no limit, not {self.block_limit!r}")
        if not 0 < self.heartbeat < self.lease:
            raise ValueError(
                "heartbeat must be above 0 seconds and below the lease: "
                f"heartbeat={self.heartbeat!r}, lease={self.lease!r}"
            )


class NetworkStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `NetworkBus`.

    Attributes:
        peers: Runners that are alive.
        outbox: What waits to be sent.
        claims: Jobs held for others.
        direct: Jobs asked of others at most once.
        refused: Frames that were not taken in, by reason.
        freshness: Frames that are remembered, so that none is taken in twice.
        fleet: What is held of the other runners.
        connection: Whether the network is connected.
        blocked: How often the event loop was blocked for longer than about a heartbeat.
        unreadable: How often a connection was given up because what came over it could not be read.
    """

    peers: int
    outbox: OutboxStatistics
    claims: ClaimStatistics
    direct: DirectStatistics
    refused: RefusalStatistics
    freshness: DeduplicationStatistics
    fleet: MembershipStatistics
    connection: ConnectionStatistics
    blocked: int
    unreadable: int


class Session:
    """One life of a node on its network, made whole at the start of its bus and dropped after the stop.

    It makes the parts of the bus and is the `Node` that they work for.

    Args:
        bus: Who has the readers of this process. It is started.
        transport: The network.
        framer: Makes the frames of this life.
        options: How the node behaves.
        registry: Who serves which name.
        emit: Called with `on_connected` and `on_disconnected`.
    """

    def __init__(
        self,
        bus: WorkerBus,
        transport: Transport,
        framer: Framer,
        options: SessionOptions,
        *,
        registry: WorkerRegistry,
        emit: Callable[[str], Awaitable[None]],
    ) -> None:
        lease = options.lease
        self.address = bus.address
        self.registry = registry
        self.tasks = bus.tasks
        self.closing = False
        self._bus = bus
        guarded = self._transport = GuardedTransport(transport)
        self._framer = framer
        self._delivery = options.delivery
        self._connection = Connection(self.tasks, options.rng, emit, lambda: self.closing)
        self._outbox = Outbox(guarded, self.tasks, options.rng)
        self._direct_outbox = DirectOutbox(guarded, self.tasks, options.rng)
        self._membership = Membership(
            self,
            self._connection,
            self._check,
            heartbeat=options.heartbeat,
            lease=lease,
            max_message_bytes=options.max_message_bytes,
        )
        liveness = self._membership.liveness
        self._revocation = Revocation(self, guarded, self._outbox)
        self.leases = Leases(
            self,
            guarded,
            self._outbox,
            liveness,
            self._revocation,
            max_deliver=options.max_deliver,
            prefetch=options.prefetch,
            lease=lease,
        )
        self._direct = Direct(self, self.leases, liveness, self._direct_outbox, lease=lease)
        self._inbox = Inbox(
            self,
            bus,
            self.leases,
            self._direct,
            self._membership,
            signer=options.signer,
            max_message_bytes=options.max_message_bytes,
        )
        self._watchdog = Watchdog(
            self.address,
            guarded.keep,
            self._heartbeat,
            self.leases.all,
            every=min(options.heartbeat, lease / 3, guarded.ack_wait / 4),
            limit=options.block_limit,
        )
        registry.listen(self._direct.changed)

    @property
    def connected(self) -> bool:
        """Whether the network can be reached, as far as is known."""
        return self._connection.stands

    async def open(self) -> bool:
        """Connect, trying for as long as it takes, and begin. False if it was closed meanwhile."""
        if isinstance(self._transport, Prompt):
            self._transport.hand_over(self._read_direct)
        await self._connection.again(lambda: self._transport.open(self.address), CONNECTING)
        if self.closing:
            return False
        self._watchdog.start()
        for loop in (
            self._watchdog.run,
            self._direct_outbox.run,
            self._outbox.run,
            self._read,
            self._membership.run,
            self.leases.run,
        ):
            self.tasks.keep(loop)
        return True

    async def close(self) -> None:
        """Leave: send what waits, give back what was not started, and disconnect."""
        self.leases.unserve_all()
        with anyio.CancelScope(shield=True):
            await self._watchdog.stop()
            await self._direct_outbox.flush(FLUSH_TIMEOUT)
            self._membership.send_heartbeat(leaving=True)
            await self._revocation.finish(FLUSH_TIMEOUT)
            self.closing = True
            self._outbox.close()
            await self._transport.close()

    def end(self) -> NetworkStatistics:
        """Let go of the registry, which outlives the session, and return what was held last."""
        self.registry.unlisten(self._direct.changed)
        return self.statistics()

    def statistics(self) -> NetworkStatistics:
        """What is held now, and has been counted."""
        return NetworkStatistics(
            len(self._membership.liveness.peers),
            self._outbox.statistics(),
            self.leases.statistics(),
            self._direct.statistics(),
            self._inbox.refusals.statistics(),
            self._inbox.deduplication.statistics(),
            self._membership.statistics(),
            self._connection.statistics(),
            self._watchdog.blocked,
            self._transport.unreadable,
        )

    def unstored(self) -> list[tuple[str, str, str]]:
        """The jobs asked for here of which the network has stored nothing: worker, requester, id."""
        return [*self._direct.asked(), *self._outbox.jobs()]

    # --- what the bus sends ---

    def post(self, message: BusMessage, *, force: bool) -> Room | None:  # noqa: PLR0911 - one return a way
        """Hand over a message that may concern other processes; see `WorkerBus.post`."""
        name = message.target
        if message.destination or name is None:
            self._post_elsewhere(message)
            return None
        if isinstance(message, BusJobRequestMessage):
            return self._ask(message, name, force=force)
        here = self._bus.reaches(name)
        replicas = self.registry.remote_replicas(name)
        if isinstance(message, BusJobCancelMessage):
            if self._direct.cancel(message):
                return None
            self.leases.forbid(message, self.address, self._framer.new_id())  # in the queue, it may come back to us
        elif not here and not replicas:
            return self._bus.deliver(message)  # nobody has that name: it is dropped and counted
        if here and isinstance(message, JOB_TALK):
            return self._bus.deliver(message, force=force)  # of a job with both its ends here: replicas do not know it
        for replica in () if message.urgent or force else replicas:
            if room := self._outbox.full("inbox", replica.address):
                return room
        room = self._bus.deliver(message, force=force) if here else None
        for replica in replicas if room is None else ():  # all at once or none: who has no room is tried again
            self.put("inbox", replica.address, message, bounded=not message.urgent)
        return room

    def give_back(self, request: BusJobRequestMessage) -> None:
        """Return a request that was not started to where it came from; one of this process goes out to others."""
        if self.leases.give_back(request) or request.origin not in {"", self.address}:
            return
        try:
            if (request.delivery or self._delivery) == "at_most_once":
                self._direct.ask(request, force=True, not_here=True)
            else:
                self.put("queue", request.target or "", request)
        except EncodeError as error:  # within the process it needed no bytes
            self._bus.deliver(cannot_leave(request, error))

    def publish(self, message: BusTopicMessage, address: str) -> Room | None:
        """Send what was published to one runner, unless it has no follower. Returns the room to wait for, if any."""
        if address not in self.registry.followers(message.topic):
            return None
        room = self._outbox.full("inbox", address)
        if room is None:
            self.put("inbox", address, message, bounded=True)
        return room

    def _ask(self, request: BusJobRequestMessage, name: str, *, force: bool) -> Room | None:
        """Ask for a job: the worker here as long as it has room, else another runner."""
        if self.leases.free(name) > 0:
            room = self._bus.deliver(request, force=force)
            self.leases.capacity_changed(name)  # else more jobs would be claimed than can begin here
            return room
        if (request.delivery or self._delivery) == "at_most_once":
            return self._direct.ask(request, force=force)
        room = None if force else self._outbox.full("queue", name)
        if room is None:
            self.put("queue", name, request, bounded=True)
        return room

    def _post_elsewhere(self, message: BusMessage) -> None:
        """Send to one runner, or to everybody."""
        if not message.destination:
            self._bus.hand_out(message)
            if isinstance(message, (BusWorkerReadyMessage, BusWorkerLostMessage)):
                self._membership.number(message)
            if not (isinstance(message, BusLocalMessage) or getattr(message, "session", "") is None):
                self.put("everyone", "", message)
        elif hasattr(message, "sequence") or isinstance(message, BusJobRunningMessage):
            self.leases.send(message)
        else:
            self.send_to(message.destination, message)

    # --- what the parts use: see `Node` ---

    def reaches(self, name: str) -> bool:
        """Whether a name is served in this process."""
        return self._bus.reaches(name)

    def deliver(self, message: BusMessage, *, force: bool = True) -> Room | None:
        """Hand a message to its target in this process; see `Node`."""
        if isinstance(message, BusJobRunningMessage) and message.origin and not self.reaches(message.target or ""):
            self.send_to(message.origin, to_orphan(message))
        return self._bus.deliver(message, force=force)

    def put(
        self,
        lane: Lane,
        to: str,
        message: BusMessage,
        *,
        bounded: bool = False,
        accepted: Callable[[], None] | None = None,
        settles: Lease | None = None,
    ) -> str:
        """Send a message by a lane, and return the id of its frame; see `Node`."""
        if type(message) is BusJobStreamDataMessage and lane == "inbox":
            return self._outbox.put_chunk(message, to, self._framer, self.address)
        frame = self._framer.frame(message, lane, to, self.address)
        if lane == "direct":
            self._direct_outbox.put(frame, bounded=bounded)
        else:
            if settles is not None:
                frame = replace(frame, settles=settles.delivery)
            self._outbox.put(frame, accepted, bounded=bounded, lease=settles)
        return frame.id

    def send_to(self, address: str, message: BusMessage) -> None:
        """Send a message to one life of a runner, which may be this one."""
        if address != self.address:
            self.put("inbox", address, message)
            return
        message.origin = address
        self.deliver(message)

    def tell_runners(self, message: BusMessage) -> None:
        """Hand a message to the runner of this process."""
        self._bus.tell_runners(message)

    # --- what the parts and the transport call back ---

    def _check(self) -> None:
        """Look after jobs that were cancelled and those whose requesters or performers are gone; at every heartbeat."""
        self._revocation.check()
        self.leases.stop_orphans()
        self._direct.check(self.tasks.now())

    def _heartbeat(self) -> Outgoing:
        """The frame of a heartbeat. It may be called from any thread."""
        return self._framer.frame(self._membership.heartbeat_message(), "everyone", "", self.address)

    def _read_direct(self, delivery: Delivery) -> None:
        """Take in a frame that the transport hands over as it comes."""
        self._direct_outbox.received()
        self._inbox.read(delivery)

    async def _read(self) -> None:
        while not self.closing:
            for delivery in await self._connection.again(self.leases.receive, READING) or ():
                self._inbox.read(delivery)
