"""A bus over a network: the same messages, carried by a transport."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, ClassVar

import anyio
import msgspec

from bus.bus import WorkerBus
from bus.claims import Claim, Claims, ClaimStatistics
from bus.codec import MAX_MESSAGE_BYTES, decode, decode_header, encode
from bus.errors import BusError, DecodeError, EncodeError, TransportError
from bus.events import log
from bus.mailbox import Mailbox, Room
from bus.messages import (
    RUNNER_MESSAGES,
    TERMINAL_MESSAGES,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobRunningMessage,
    BusMessage,
    BusRegistryRequestMessage,
    BusRunnerBeatMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    ErrorInfo,
    JobStatus,
)
from bus.outbox import BACKOFF, Outbox, OutboxStatistics
from bus.presence import PeerRunner, Presence
from bus.registry import WorkerReadyData, WorkerRegistry
from bus.transport import Delivery, Lane, Outgoing, Settlement, Transport

SEEN = 10_000
"""Ids of frames remembered to drop doubles: more than a flush that is retried can hold."""

FLUSH_TIMEOUT = 5.0
"""Seconds `stop()` lets the last answers go out."""


class NetworkStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `NetworkBus`: runners alive, what waits to be sent, what is held, frames that could not be read."""

    peers: int
    outbox: OutboxStatistics
    claims: ClaimStatistics
    malformed: int


class NetworkBus(WorkerBus):
    """A bus that reaches other processes.

    A job request goes into the queue of its worker's name and is claimed by one runner that has a free slot; it is
    delivered again if that runner dies, until `max_deliver`. Everything else goes to the inbox of the one runner it is
    meant for. What has both ends in this process does not travel, unless a replica elsewhere has room and this one has
    none. Connections are tried again for as long as the bus runs.

    Args:
        transport: The network.
        heartbeat: Seconds between two signs of life.
        lease: Seconds without one after which a runner is dead.
        max_deliver: Deliveries of one job before it is given up as FAILED.
        prefetch: Jobs of one worker that may be claimed beyond what it can start at once.
        max_message_bytes: Most bytes of a message.
        rng: Where ids and jitter come from.
    """

    event_names: ClassVar[tuple[str, ...]] = ("on_connected", "on_disconnected")

    networked = True

    def __init__(
        self,
        transport: Transport,
        *,
        heartbeat: float = 2.0,
        lease: float = 6.0,
        max_deliver: int = 5,
        prefetch: int = 16,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        rng: Random | None = None,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._heartbeat = heartbeat
        self._lease = lease
        self._max_deliver = max_deliver
        self._prefetch = prefetch
        self._max_bytes = max_message_bytes
        self._rng = rng or Random(secrets.randbits(64))  # noqa: S311 - ids and jitter, no secrets
        self._incarnation = f"{self._rng.getrandbits(32):08x}"
        self._registry = WorkerRegistry(f"bus-{self._incarnation}")
        self._address = f"{self._registry.runner_name}#{self._incarnation}"
        self._presence = Presence(self._address, lease=lease, patience=5 * lease)
        self._claims = Claims()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._served: dict[str, Callable[[], int]] = {}
        self._frames = 0
        self._version = 0
        self._malformed = 0
        self._closing = False
        self._outbox: Outbox | None = None
        self._news: Mailbox | None = None

    @property
    def address(self) -> str:
        """Name of the runner and this life of it."""
        return self._address

    async def attach(self, registry: WorkerRegistry) -> None:
        """Belong to a runner.

        Raises:
            BusError: Another runner has this bus: give each its own.
        """
        if self._registries:
            raise BusError(f"{self!r} belongs to a runner already: give each runner a bus of its own on the same network")
        await super().attach(registry)
        self._registry = registry
        self._address = f"{registry.runner_name}#{self._incarnation}"
        self._presence = Presence(self._address, lease=self._lease, patience=5 * self._lease)

    async def start(self) -> None:
        """Connect, trying for as long as it takes, and start delivering."""
        if self.started:
            return
        await super().start()
        self._outbox = Outbox(self._transport, self.tasks, self._rng)
        self._news = Mailbox(self._address, self._handle_news, self.tasks)
        try:
            await self._again(lambda: self._transport.open(self._address), "connecting to the network")
        except BaseException:
            await super().stop()
            raise
        self.tasks.spawn(self._outbox.run)
        self.tasks.spawn(self._read)
        self.tasks.spawn(self._beat)
        self.tasks.spawn(self._renew)

    async def stop(self) -> None:
        """Say goodbye, send what waits, give back what was not started, and disconnect."""
        if not self.started:
            return
        for callback in tuple(self._stop_callbacks):
            callback()
        for name in tuple(self._served):
            self.unserve(name)
        assert self._outbox is not None
        with anyio.CancelScope(shield=True):
            self._post_everyone(self._beat_message(leaving=True))
            await self._outbox.flush(FLUSH_TIMEOUT)
            self._closing = True
            await self._transport.close()
        await super().stop()

    def post(self, message: BusMessage, *, force: bool = False) -> Room | None:
        """Hand a message over, here or to the network; see `WorkerBus.post`."""
        self._sent += 1
        if message.destination:
            return self._post_to(message, force=force)
        if message.target is None:
            return self._broadcast(message)
        route = self._routes.get(message.target)
        replicas = self._registry.remote_replicas(message.target)
        if isinstance(message, BusJobRequestMessage):
            free = self._served.get(message.target)
            if route is not None and (not replicas or (free is not None and free() > 0)):
                return route(message, force=force)
            return self._put("queue", message.target, message, bounded=not force)
        if route is None and not replicas and message.target not in self._registry:
            if not isinstance(message, BusJobCancelMessage):
                self._drop(message)
            return None
        room = route(message, force=force) if route is not None else None
        for replica in replicas:
            room = self._put("inbox", replica.address, message) or room
        return room

    def serve(self, name: str, free_slots: Callable[[], int]) -> None:
        """Claim jobs for a worker, as many as it has slots for."""
        self._served[name] = free_slots
        self.capacity_changed(name)

    def unserve(self, name: str) -> None:
        """Claim no more jobs for a worker."""
        if self._served.pop(name, None) is not None:
            self._transport.demand(name, 0)

    def capacity_changed(self, name: str) -> None:
        """A worker has more or fewer slots free than before."""
        free_slots = self._served.get(name)
        if free_slots is not None:
            self._transport.demand(name, min(free_slots(), self._prefetch))

    def unroute(self, name: str) -> None:
        """Forget a name."""
        self.unserve(name)
        super().unroute(name)

    def give_back(self, request: BusJobRequestMessage) -> None:
        """Return a request that was not started to its queue."""
        claim = self._claims.held(request)
        if claim is not None:
            self._claims.release(claim)
            self._settle(claim.delivery, Settlement.NAK, claim.renewed)
        elif request.origin in {"", self._address} and self.started:
            self._put("queue", request.target or "", request)

    def known_workers(self) -> list[WorkerReadyData]:
        """None: other runners announce theirs."""
        return []

    def network_statistics(self) -> NetworkStatistics:
        """What the network side holds now."""
        assert self._outbox is not None
        return NetworkStatistics(
            len(self._presence.peers), self._outbox.statistics(), self._claims.statistics(), self._malformed
        )

    # --- out ---

    def _put(
        self,
        lane: Lane,
        to: str,
        message: BusMessage,
        accepted: Callable[[], None] | None = None,
        *,
        bounded: bool = False,
    ) -> Room | None:
        assert self._outbox is not None
        self._frames += 1
        frame_id = f"{self._incarnation}-{self._frames}"
        try:
            body = encode(message, id=frame_id, origin=self._address, max_message_bytes=self._max_bytes)
        except EncodeError as error:
            if not isinstance(message, TERMINAL_MESSAGES):
                raise
            info = ErrorInfo(type=EncodeError.__name__, message=str(error))
            answer = BusJobResponseMessage(
                source=message.source,
                target=message.target,
                destination=message.destination,
                job_id=message.job_id,
                sequence=message.sequence,
                attempt=message.attempt,
                status=JobStatus.ERROR,
                error=info,
            )
            body = encode(answer, id=frame_id, origin=self._address)
        return self._outbox.put(Outgoing(lane, to, frame_id, body), accepted, bounded=bounded)

    def _post_to(self, message: Any, *, force: bool = True, how: Settlement = Settlement.ACK) -> Room | None:
        """Send to one runner. What belongs to a job goes out only while we hold its claim."""
        from_performer = hasattr(message, "sequence") or isinstance(message, BusJobRunningMessage)
        claim = self._claims.of_answer(message) if from_performer else None
        if from_performer and claim is None:
            self._claims.refused += 1  # its lease was lost: somebody else answers
            return None
        accepted = None
        if claim is not None and isinstance(message, TERMINAL_MESSAGES):
            self._claims.release(claim, message)
            accepted = self._settled(claim, how)
        if message.destination == self._address:
            route = self._routes.get(message.target)
            room = route(message, force=force) if route is not None else None
            if accepted is not None:
                accepted()
            return room
        return self._put("inbox", message.destination, message, accepted)

    def _settled(self, claim: Claim, how: Settlement) -> Callable[[], None]:
        """What to do once the answer is safe: end the claim, not earlier."""

        def accepted() -> None:
            self._settle(claim.delivery, how, claim.renewed)
            self.capacity_changed(claim.delivery.queue)

        return accepted

    def _settle(self, delivery: Delivery, how: Settlement, renewed: float) -> None:
        assert self._outbox is not None
        self._outbox.settle(delivery, how, renewed + self._transport.ack_wait)

    def _broadcast(self, message: BusMessage) -> Room | None:
        super()._broadcast(message)
        if isinstance(message, (BusWorkerReadyMessage, BusWorkerLostMessage)):
            self._version += 1
            message.version = self._version
        if not isinstance(message, RUNNER_MESSAGES) or getattr(message, "session", "") is not None:
            self._post_everyone(message)
        return None

    def _post_everyone(self, message: BusMessage) -> None:
        self._put("everyone", "", message)

    # --- in ---

    async def _read(self) -> None:
        while not self._closing:
            for delivery in await self._again(self._transport.receive, "reading from the network") or ():
                try:
                    self._arrived(delivery)
                except DecodeError as error:
                    self._refused(delivery, error)
                except Exception as error:  # noqa: BLE001 - one bad message must not stop the reader
                    log().error("message could not be delivered", error=repr(error), exc_info=True)
                    self._refused(delivery, DecodeError(repr(error)))

    def _refused(self, delivery: Delivery, error: DecodeError) -> None:
        self._malformed += 1
        log().warning("frame refused", lane=delivery.lane, error=str(error))
        if delivery.lane == "queue":
            self._settle(delivery, Settlement.TERM, self.tasks.now())

    def _arrived(self, delivery: Delivery) -> None:
        header, body = decode_header(delivery.body, max_message_bytes=self._max_bytes)
        now = self.tasks.now()
        if delivery.lane == "queue":
            message = decode(header, body)
            if not isinstance(message, BusJobRequestMessage):
                raise DecodeError(f"a queue holds job requests, not {type(message).__name__}")
            message.origin = header.origin
            self._claimed(message, delivery, now)
            return
        if header.id in self._seen:
            return
        self._seen[header.id] = None
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        if header.origin == self._address:
            self._presence.heard_self(now)
            return
        message = decode(header, body)
        message.origin = header.origin
        message.destination = ""
        if isinstance(message, RUNNER_MESSAGES):
            self._heard(message, now)
        elif message.target is None:
            super()._broadcast(message)
        else:
            if isinstance(message, BusJobCancelMessage):
                self._claims.forbid((message.target, message.origin, message.job_id), message.reason or "cancelled")
            route = self._routes.get(message.target)
            if route is None:
                self._drop(message)
            else:
                route(message, force=True)

    def _claimed(self, request: BusJobRequestMessage, delivery: Delivery, now: float) -> None:
        request.attempt = delivery.attempt
        known = self._claims.held(request)
        if known is not None:
            self._claims.repeated += 1
            if delivery.attempt > known.delivery.attempt:  # our lease had ended without our noticing: go on under the new one
                known.delivery, known.renewed = delivery, now
            else:
                self._settle(delivery, Settlement.ACK, now)
            return
        answer = self._claims.remembered(request)
        if answer is not None:
            self._claims.repeated += 1
            answer.attempt = max(answer.attempt, delivery.attempt)
            if request.origin != self._address:
                self._put("inbox", request.origin, answer)
            self._settle(delivery, Settlement.ACK, now)
            return
        route = self._routes.get(request.target or "")
        if route is None:
            self._settle(delivery, Settlement.NAK, now)
            return
        self._claims.hold(request, delivery, now)
        reason = self._claims.forbidden(request)
        if reason is not None:
            self._answer_for(request, JobStatus.CANCELLED, ErrorInfo(type="JobCancelled", message=reason))
        elif delivery.attempt > self._max_deliver:
            message = f"given up after {self._max_deliver} deliveries: each of its performers died or lost its lease"
            self._answer_for(request, JobStatus.FAILED, ErrorInfo(type="DeadLettered", message=message), Settlement.TERM)
        elif route(request) is not None:
            self.give_back(request)
        self.capacity_changed(request.target or "")

    def _answer_for(
        self, request: BusJobRequestMessage, status: JobStatus, error: ErrorInfo, how: Settlement = Settlement.ACK
    ) -> None:
        """Answer a job that its worker never sees."""
        self._post_to(
            BusJobResponseMessage(
                source=request.target or "",
                target=request.source,
                destination=request.origin,
                job_id=request.job_id,
                attempt=request.attempt,
                status=status,
                error=error,
            ),
            how=how,
        )

    # --- claims ---

    async def _renew(self) -> None:
        period = pause = self._transport.ack_wait / 3
        while True:
            await anyio.sleep(pause)
            pause = period
            claims = self._claims.all()
            if not claims:
                continue
            now = self.tasks.now()
            try:
                kept = await self._transport.extend([claim.delivery for claim in claims])
            except TransportError:
                pause = period / 8
                kept = [now - claim.renewed < self._transport.ack_wait for claim in claims]
            else:
                for claim, ours in zip(claims, kept, strict=True):
                    if ours:
                        claim.renewed = now
            for claim, ours in zip(claims, kept, strict=True):
                if ours:
                    self._notify(claim)
                else:
                    self._lost(claim)

    def _notify(self, claim: Claim) -> None:
        request = claim.request
        if self._claims.held(request) is claim and request.origin != self._address:
            self.post(
                BusJobRunningMessage(
                    source=request.target or "",
                    target=request.source,
                    destination=request.origin,
                    job_id=request.job_id,
                    attempt=request.attempt,
                )
            )

    def _lost(self, claim: Claim) -> None:
        """Somebody else has the job now, or will have: stop it, and say nothing of it any more."""
        request = claim.request
        if self._claims.held(request) is claim:
            self._claims.release(claim)
            self._cancel_here(request, "its lease was lost: another worker has it")

    def _cancel_here(self, request: BusJobRequestMessage, reason: str) -> None:
        route = self._routes.get(request.target or "")
        if route is not None:
            cancel = BusJobCancelMessage(
                source=request.source, target=request.target, origin=request.origin, job_id=request.job_id, reason=reason
            )
            route(cancel)

    # --- presence ---

    def _beat_message(self, *, leaving: bool = False) -> BusRunnerBeatMessage:
        name = self._registry.runner_name
        return BusRunnerBeatMessage(source=name, runner=name, version=self._version, leaving=leaving)

    async def _beat(self) -> None:
        while True:
            self._post_everyone(self._beat_message())
            await anyio.sleep(self._heartbeat)
            now = self.tasks.now()
            for peer in self._presence.expired(now):
                self._gone(peer)
            for claim in self._claims.all():
                alone = now - claim.since > self._lease and self._presence.connected(now)
                if alone and not self._presence.hears(claim.request.origin):
                    self._cancel_here(claim.request, "the runner of its requester is gone")

    def _heard(self, message: Any, now: float) -> None:
        runner = getattr(message, "runner", message.source)
        if isinstance(message, BusRunnerBeatMessage) and message.leaving:
            peer = self._presence.left(runner, message.origin)
            if peer is not None:
                self._gone(peer)
            return
        version = message.version if isinstance(message, BusRunnerBeatMessage) else None
        heard = self._presence.heard(runner, message.origin, now, version)
        if heard.ignore:
            return
        if heard.gone is not None:
            self._gone(heard.gone)
        if heard.ask:
            self._put("inbox", message.origin, BusRegistryRequestMessage(source=self._registry.runner_name))
        if isinstance(message, BusRegistryRequestMessage):
            self._put("inbox", message.origin, self._list())
        elif isinstance(message, (BusWorkerReadyMessage, BusWorkerLostMessage)):
            if self._presence.changed(runner, message.version):
                self._tell_runner(message)
        elif isinstance(message, BusWorkerRegistryMessage):
            if self._presence.listed(runner, message.version):
                self._tell_runner(message)
        elif not isinstance(message, BusRunnerBeatMessage):
            self._tell_runner(message)

    def _list(self) -> BusWorkerRegistryMessage:
        name = self._registry.runner_name
        return BusWorkerRegistryMessage(
            source=name, runner=name, workers=self._registry.entries(), version=self._version
        )

    def _gone(self, peer: PeerRunner) -> None:
        """Forget a runner's workers."""
        self._tell_runner(
            BusWorkerRegistryMessage(source=peer.runner, origin=peer.address, runner=peer.runner, workers=[])
        )

    def _tell_runner(self, message: BusMessage) -> None:
        assert self._news is not None
        self._news.put(message)

    async def _handle_news(self, message: BusMessage) -> None:
        for route in tuple(self._runners.values()):
            route(message)

    # --- retrying ---

    async def _again(self, operation: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Do something until the network lets us."""
        failures = 0
        while True:
            try:
                result = await operation()
            except TransportError as error:
                if self._closing:
                    return None
                failures += 1
                if failures == 1:
                    log().warning(f"{what} failed; trying again", error=str(error))
                    await self._emit("on_disconnected")
                await anyio.sleep(BACKOFF.delay(failures, self._rng))
            else:
                if failures:
                    log().warning(f"{what} works again", failures=failures)
                    await self._emit("on_connected")
                return result
