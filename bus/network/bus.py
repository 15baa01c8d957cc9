"""A bus over a network: the same messages, carried by a transport."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from random import Random
from typing import ClassVar, TypedDict

from bus.errors import BusError, BusNotStartedError, MailboxFullError
from bus.local.bus import WorkerBus
from bus.local.dead_letters import DeadLetters
from bus.local.mailbox import Room
from bus.local.registry import WorkerReadyData, WorkerRegistry
from bus.log import log
from bus.membership.watchdog import BLOCK_LIMIT
from bus.messages import BusJobCancelMessage, BusJobRequestMessage, BusMessage, BusTopicMessage
from bus.network.session import DeliveryKind, NetworkStatistics, Session, SessionOptions
from bus.transport.framing import Framer
from bus.transport.server import UNPROTECTED
from bus.transport.transport import Transport
from bus.wire.codec import MAX_MESSAGE_BYTES
from bus.wire.signing import signer_for


class NetworkSettings(TypedDict, total=False):
    """How every bus over a network behaves; see `NetworkBus`."""

    heartbeat: float
    lease: float | None
    max_deliver: int
    prefetch: int
    max_message_bytes: int
    block_limit: float | None
    signing_key: bytes | tuple[bytes, ...] | None
    delivery: DeliveryKind


class NetworkOptions(NetworkSettings, total=False):
    """The options of every bus over a network."""

    rng: Random | None


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
        self._transport = transport
        self._options = SessionOptions(
            heartbeat=heartbeat,
            lease=3 * heartbeat if lease is None else lease,
            max_deliver=max_deliver,
            prefetch=prefetch,
            max_message_bytes=max_message_bytes,
            block_limit=block_limit,
            signer=signer_for(signing_key),
            delivery=delivery,
            rng=rng or Random(secrets.randbits(64)),
        )
        self._incarnation = self._new_incarnation()
        self.registry = WorkerRegistry(f"bus-{self._incarnation}")
        self._session: Session | None = None
        self._last: NetworkStatistics | None = None

    @property
    def address(self) -> str:
        """Name of the runner and this life of it."""
        return f"{self.registry.runner_name}#{self._incarnation}"

    @property
    def dead_letters(self) -> DeadLetters:
        """The jobs that were given up on, of the whole network."""
        options = self._options
        return DeadLetters(self._transport, max_message_bytes=options.max_message_bytes, verifier=options.signer)

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
        before = self._session
        await super().start()
        if self._session is not before:  # another task has started it meanwhile
            return
        if self._last is not None:  # others must not take it for the life that has ended
            self._incarnation = self._new_incarnation()
        framer = Framer(self._incarnation, self._options.signer, self._options.max_message_bytes)
        session = self._session = Session(
            self, self._transport, framer, self._options, registry=self.registry, emit=self._emit
        )
        if (where := self._exposed()) and self._options.signer is None:
            log().warning(UNPROTECTED, server=where)
        opened = False
        try:
            opened = await session.open()
        finally:
            if not opened:
                await self._stopped()

    async def stop(self) -> None:
        """Say goodbye, send what waits, give back what was not started, and disconnect."""
        if self._session is None:
            return
        if self._home is not None and not self._home.gone:
            self._require_here("stop")
            self._tell_of_stop()
            await self._session.close()
        await self._stopped()

    def _new_incarnation(self) -> str:
        return f"{self._options.rng.getrandbits(32):08x}"

    async def _stopped(self) -> None:
        try:
            await super().stop()
        finally:
            if self._session is not None:
                self._last, self._session = self._session.end(), None

    def post(self, message: BusMessage, *, force: bool = False) -> Room | None:
        """Hand a message over, here or to the network; see `WorkerBus.post`."""
        session, name = self._session, message.target
        at_home = name is not None and name in self._routes and not self.registry.remote_replicas(name)
        # A cancellation may be that of a job which was asked of others.
        if session is None or (at_home and not message.destination and not isinstance(message, BusJobCancelMessage)):
            return super().post(message, force=force)
        self._sent += 1
        return session.post(message, force=force)

    def serve(self, name: str, free_slots: Callable[[], int]) -> None:
        """Claim jobs for a worker, as many as it has slots for."""
        if self._session is not None:
            self._session.leases.serve(name, free_slots)

    def give_up(self) -> None:
        """Do not wait any longer for the network; see `WorkerBus.give_up`."""
        if self._session is not None:
            self._session.closing = True

    def capacity_changed(self, name: str) -> None:
        """A worker has more or fewer slots free than before."""
        if self._session is not None:
            self._session.leases.capacity_changed(name)

    def unroute(self, name: str) -> None:
        """Forget a name."""
        if self._session is not None:
            self._session.leases.unserve(name)
        super().unroute(name)

    def give_back(self, request: BusJobRequestMessage) -> None:
        """Return a request that was not started to where it came from; one of this process goes out to others."""
        if self._session is not None:
            self._session.give_back(request)

    def known_workers(self) -> list[WorkerReadyData]:
        """None: other runners announce theirs."""
        return []

    def unstored_jobs(self) -> list[tuple[str, str, str]]:
        """The jobs asked for here of which the network has stored nothing: worker, requester, id."""
        return self._session.unstored() if self._session is not None else []

    def network_statistics(self) -> NetworkStatistics:
        """What the network side holds now; of a bus that was stopped, what it held last.

        Raises:
            BusNotStartedError: It was never started.
        """
        if self._session is not None:
            return self._session.statistics()
        if self._last is None:
            raise BusNotStartedError("look at its network")
        return self._last

    def _exposed(self) -> str:
        """The server that frames travel to without encryption, beyond this machine; empty if they do not."""
        return ""

    async def _publish_away(self, message: BusTopicMessage) -> None:
        """Send what was published once to each other runner that has a follower.

        Raises:
            EncodeError: It is too big for a message.
            MailboxFullError: More waits to be sent to one of them than may, for 30 seconds; those before it get it.
        """
        assert self._session is not None
        for address in self.registry.followers(message.topic):
            send = partial(self._session.publish, message, address)
            room = send()
            if room is not None:
                try:
                    await self._send_later(room, send)
                except MailboxFullError:
                    if address in self.registry.followers(message.topic):
                        raise


class ServerBus(NetworkBus):
    """A bus whose processes meet at a server.

    Attributes:
        server_url: How the server is reached, password included: not to be shown. None if the bus was given a client.
        namespace: How all that it keeps there begins; what else is kept there for the same program begins alike.
    """

    server_url: str | None
    namespace: str
