"""The transport over a NATS server with JetStream: `nats://host:port`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Sequence
from typing import Literal

import anyio
import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.errors import AccessDeniedError, BusError, DataLostError, PartlySentError, TransportError
from bus.local.tasks import on_asyncio
from bus.log import log
from bus.nats.admin import NatsDeadFrames, NatsWaitingFrames, inspect_server
from bus.nats.client import servers
from bus.nats.connection import CLOSE_TIMEOUT, Answers, NatsLink, connect, status_of
from bus.nats.inbox import PACK_BYTES, Arrivals, NatsInbox, Pack, packs, to_send_again
from bus.nats.layout import NatsLayout, refusal
from bus.nats.queues import NatsQueues, QueueStatistics
from bus.transport.server import redacted
from bus.transport.transport import Delivery, Outgoing, Settlement

__all__ = ["NatsStatistics", "NatsTransport"]


IDLE_WAIT = 1.0
"""Seconds after which `receive` returns without any."""

BATCH = 256
"""Most frames one `receive` returns."""

ECHO_PERIOD = 1.0
"""Seconds between two echoes of our own, or an eighth of a lease if that is less."""

OVERHEAD = 512
"""Bytes of a message that are not the frame: its headers."""


class NatsStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `NatsTransport`.

    Attributes:
        state: `new`, `connected`, `disconnected` or `closed`.
        connections: How often it has connected.
        errors: What the client has reported besides.
        waiting: Frames that have arrived and were not taken.
        malformed: Messages in the inbox that held no frames.
        reopened: How often the reading of the inbox had to start again behind the last message.
        queues: The queues and claims.
    """

    state: Literal["new", "connected", "disconnected", "closed"]
    connections: int
    errors: int
    waiting: int
    malformed: int
    reopened: int
    queues: QueueStatistics


class NatsTransport:
    """One node's way to a NATS server. Runs on asyncio alone, and needs JetStream of server 2.9 or newer.

    * Queues are one work-queue stream, with one consumer per worker name that all nodes share: a job is deleted when it
      is acknowledged. Inboxes are subjects of one stream, read in order by a consumer of each node. Both are files on
      the server, so what `send` returned for survives the server's death (not that of its machine: JetStream syncs its
      files every two minutes). `everyone` and `direct` are core NATS, and lost by who is not connected.
    * The server stores one frame of a queue per id for two minutes; a restart forgets the ids of what was done.
    * Claims are fenced on this side: JetStream takes acknowledgements from everybody. A lease is counted from before
      the job can have left the server, and when it is over, nothing is sent any more. What a process sent in time and
      the network delivers after the lease is taken by the server all the same: then the job is deleted although
      another node has it, and is not delivered again should that node die, too.
    * Streams that do not exist are made, with one copy. In a cluster, make them yourself, with as many as you want.

    Args:
        url: `nats://` or `tls://`, with user and password or a token; several servers of one cluster with commas.
        client: A connected client instead, for all that a URL does not say. It is not closed. After an outage it sends
            what it had buffered, an acknowledgement too that is late by then.
        namespace: Buses of different namespaces on one server do not meet.
        ack_wait: Seconds a claim lasts unless renewed. All nodes must agree.
        max_frame_bytes: Most bytes of a frame: a server that takes less is refused.

    Raises:
        ValueError: Not exactly one of `url` and `client`, or one that names no server; or an `ack_wait` not above 0.
    """

    def __init__(
        self,
        url: str = "",
        *,
        client: Client | None = None,
        namespace: str = "actorbus",
        ack_wait: float = 30.0,
        max_frame_bytes: int = 2**20 - OVERHEAD,
    ) -> None:
        if bool(url) == (client is not None):
            raise ValueError("give either a url or a client")
        if url:
            servers(url)
        if not ack_wait > 0:
            raise ValueError(f"ack_wait must be above 0 seconds, not {ack_wait!r}")
        self._url = url
        self._client = client
        self._ack_wait = ack_wait
        self._max_frame_bytes = max_frame_bytes
        self._where = redacted(",".join(servers(url))) if client is None else "the client's server"
        self._layout = NatsLayout(namespace, ack_wait)
        self._arrivals = Arrivals()
        self._queues = NatsQueues(self._layout, self._arrivals)
        self._inbox: NatsInbox | None = None
        self._node = ""
        self._link: NatsLink | None = None
        self._connections = 0
        self._errors = 0
        self._closed = False
        self._take_direct: Callable[[Delivery], None] = self._arrivals.put

    @property
    def ack_wait(self) -> float:
        """Seconds a claim lasts unless renewed."""
        return self._ack_wait

    @property
    def dead_frames(self) -> NatsDeadFrames:
        """What was given up on, of all queues of the namespace."""
        return NatsDeadFrames(self._layout, self._connected)

    def waiting(self, queue: str) -> NatsWaitingFrames:
        """What waits in a queue."""
        return NatsWaitingFrames(self._layout, self._connected, queue)

    async def open(self, node: str) -> None:
        """Connect, make what is missing on the server, and open the inbox of `node`.

        Raises:
            TransportError: There is no server, it refuses us, or JetStream does not answer. Nothing is left behind.
            BusError: It cannot work like that: another event loop than asyncio, a server without TLS or that takes
                smaller messages, a stream of another kind under our name.
        """
        if not on_asyncio():
            raise BusError("NatsBus needs asyncio, as the client library of NATS does: run the program under asyncio")
        self._node = node
        self._closed = False
        self._inbox = NatsInbox(self._layout, self._arrivals, node)
        await self._connect(self._inbox)

    async def close(self) -> None:
        """Give back the claims, drop the inbox and disconnect. Never raises."""
        self._closed = True
        link, self._link = self._link, None
        if link is None:
            return
        with anyio.CancelScope(shield=True):
            if link.connected:
                with anyio.move_on_after(CLOSE_TIMEOUT):
                    try:
                        await self._queues.give_back_all(link)
                        if self._inbox is not None:
                            await self._inbox.drop(link)
                    except Exception as error:  # noqa: BLE001 - it is over, whatever comes of it
                        await link.on_error(error)
            await link.close()
        self._errors += link.errors
        self._arrivals.wake()

    async def leave(self) -> None:
        """Give the connection up; the next `receive` makes it anew: nobody could say what still comes over it."""
        if self._link is not None:
            self._link.give_up()

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """Store `frames`, in order: those for one inbox share messages.

        Raises:
            TransportError: Not connected, or no answer in time; each frame may be stored or not.
            PartlySentError: Some were refused, or got no answer although others did.
        """
        link = self._connected()
        answers = Answers(link)
        asked: dict[str, Sequence[Outgoing]] = {}
        inboxes: dict[str, list[Outgoing]] = {}
        for frame in frames:
            if frame.lane == "inbox":
                inboxes.setdefault(frame.to, []).append(frame)
            elif frame.lane == "queue":
                token = await answers.ask(self._layout.job_subject(frame.to), frame.body, {"Nats-Msg-Id": frame.id})
                asked[token] = [frame]
            else:
                await link.publish(self._layout.everyone, frame.body)
        for to, batch in inboxes.items():
            subject = self._layout.inbox_subject(to)
            for pack in packs(batch):
                asked[await answers.ask(subject, pack.body, {"Nats-Msg-Id": pack.id})] = pack.frames
        reason = f"some frames got no answer from {link.where}"
        for message in await answers.arrived():
            if status_of(message) == "503":
                await self._layout.ensure_streams(link)
                raise TransportError(f"a stream was missing at {link.where}; it is there again")
            if b'"error"' not in message.data:
                del asked[message.subject.rpartition(".")[2]]
                continue
            reason = str(refusal("a frame", msgspec.json.decode(message.data)))
        missing = to_send_again(frames, asked.values())
        answered = [frame.settles for frame in frames if frame.settles is not None and frame.id not in missing]
        await self._queues.settle(link, [(claim, Settlement.ACK) for claim in answered])
        if missing:
            raise PartlySentError(f"{reason}{link.reason()}", tuple(missing))

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        """Publish frames of the lane `direct`, in order: those for one node share messages.

        Raises:
            TransportError: Not connected; nothing was sent.
        """
        link = self._connected()
        nodes: dict[str, list[Outgoing]] = {}
        for frame in frames:
            nodes.setdefault(frame.to, []).append(frame)
        for to, batch in nodes.items():
            subject = self._layout.direct_subject(to)
            for pack in packs(batch):
                try:
                    if not link.write(subject, pack.body):
                        await link.publish(subject, pack.body)
                except TransportError as error:  # some of them may be on their way: they must not be sent again
                    log().debug("direct frames may be lost", error=str(error))
                    return

    def hand_over(self, take: Callable[[Delivery], None]) -> None:
        """Give frames of the lane `direct` to `take` as they come, instead of to who calls `receive`."""
        self._take_direct = take

    def tell_at_once(self, frames: Sequence[Outgoing]) -> bool:
        """Write frames of the lane `direct` to the socket. False, and nothing done, if something has to go first."""
        link = self._link
        if link is None or not link.connected or sum(len(frame.body) for frame in frames) > PACK_BYTES:
            return False
        return link.write(self._layout.direct_subject(frames[0].to), Pack.of(frames).body)

    async def receive(self) -> Sequence[Delivery]:
        """Everything there is, up to 256 frames; empty after a second without any. Connects again if it must.

        Raises:
            TransportError: The connection is lost, or could not be made again.
            DataLostError: The streams are new ones.
        """
        try:
            return await self._receive()
        except DataLostError:
            self._queues.forget()  # their numbers are given to others now
            raise

    async def _receive(self) -> Sequence[Delivery]:
        if self._closed or self._inbox is None:
            raise TransportError("the transport is not open")
        link = self._link
        if link is None:
            link = await self._connect(self._inbox)
        loop = asyncio.get_running_loop()
        end = loop.time() + IDLE_WAIT
        while True:
            now = loop.time()
            try:
                if not link.connected:
                    raise TransportError(f"the connection to {link.where} is lost{link.reason()}")  # noqa: TRY301
                due = min(await link.echo(now, min(ECHO_PERIOD, self._ack_wait / 8)), end)
                await self._inbox.maintain(link, now)
                due = min(due, await self._queues.maintain(link, now))
            except TransportError:
                if not link.connected:
                    await self._leave(link)
                raise
            if batch := self._take(link):
                return batch
            now = loop.time()
            if now >= end or self._closed:
                return []
            await self._arrivals.wait(max(0.0, due - now))

    def demand(self, queue: str, slots: int) -> None:
        """From now on claim at most `slots` further frames of `queue`; 0 stops serving it.

        What was on its way when the demand fell still comes.
        """
        self._queues.demand(queue, slots)

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        """End claims, one after the other. False for each whose lease had ended.

        Returns when they were sent, not when the server has them: an `ACK` or `TERM` is repeated until it is confirmed
        or the lease ends. A dead letter is stored before its frame is deleted.

        Raises:
            TransportError: Not connected, or a dead letter was not stored. That claim and those after it are as they
                were.
        """
        return await self._queues.settle(self._connected(), settlements)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """Renew the leases of claims for another `ack_wait`. False for each that ended before it was confirmed.

        Raises:
            TransportError: Not connected, or no confirmation; the leases are as they were.
        """
        return await self._queues.renew(self._connected(), deliveries)

    async def keep(self, frames: Sequence[Outgoing]) -> Container[object]:
        """Send to everyone and renew every claim, over a connection of its own; see `Transport.keep`.

        Raises:
            TransportError: The server did not answer, or refused.
            BusError: This transport was given a client, and cannot make another.
        """
        if self._client is not None:
            raise BusError("a connected client was given, and there is no second one: give the bus a URL instead")
        link = await connect(self._url, f"{self._node} while it is blocked", lambda: None)
        try:
            for frame in frames:
                await link.publish(self._layout.everyone, frame.body)
            renewed = await self._queues.renew_all(link)
            await link.api("INFO")  # the server has all that was written before
            return renewed
        finally:
            await link.close()

    def statistics(self) -> NatsStatistics:
        """What is held now, and has been counted."""
        link, inbox = self._link, self._inbox
        connected = link is not None and link.connected
        return NatsStatistics(
            "closed" if self._closed else "connected" if connected else "disconnected" if inbox else "new",
            self._connections,
            self._errors + (link.errors if link is not None else 0),
            len(self._arrivals),
            inbox.malformed if inbox is not None else 0,
            inbox.reopened if inbox is not None else 0,
            self._queues.statistics(),
        )

    async def _connect(self, inbox: NatsInbox) -> NatsLink:
        if self._client is None:
            link = await connect(self._url, self._node, self._arrivals.wake)
        else:
            link = NatsLink(self._client, self._where, on_lost=self._arrivals.wake)
        try:
            if self._client is not None:
                if not link.connected:
                    raise TransportError(f"the client is not connected{link.reason()}")  # noqa: TRY301
                await link.start()
            inspect_server(link, self._max_frame_bytes + OVERHEAD)
            inbox.reset()
            await inbox.maintain(link, asyncio.get_running_loop().time())
            self._queues.reset(await self._layout.life(link))
            await link.listen(self._layout.everyone, self._everyone_arrived)
            await link.listen_straight(self._layout.direct_subject(self._node), self._direct_arrived)
            await link.api("INFO")  # the server has the subscriptions now: what is sent from here on arrives
            if link.forbidden:
                raise AccessDeniedError(  # noqa: TRY301
                    f"{link.where} refuses a right that is needed, see docs/nats-permissions.conf: {link.forbidden}"
                )
        except BaseException as error:
            await link.close()
            self._errors += link.errors
            if isinstance(error, Exception) and not isinstance(error, BusError):
                raise link.failed("connecting", error) from error
            raise
        self._link = link
        self._connections += 1
        return link

    async def _leave(self, link: NatsLink) -> None:
        if self._link is link:
            self._link = None
            self._errors += link.errors
        await link.close()

    def _everyone_arrived(self, message: Msg) -> None:
        self._arrivals.put(Delivery("everyone", "", message.data))

    def _direct_arrived(self, data: bytes) -> None:
        if self._inbox is not None:
            self._inbox.take(data, "direct", self._take_direct)

    def _take(self, link: NatsLink) -> list[Delivery]:
        deliveries, receipts = self._arrivals.take(BATCH)
        for receipt in receipts:
            if link.connected:
                link.spawn(link.publish, receipt)  # beside: what was taken is lost if this fails or is cancelled here
        now = asyncio.get_running_loop().time()
        return [delivery for delivery in deliveries if self._queues.valid(delivery, now)]

    def _connected(self) -> NatsLink:
        link = self._link
        if link is None or not link.connected:
            raise TransportError("the transport is not open" if self._closed else f"not connected to {self._where}")
        return link

    def __repr__(self) -> str:
        return f"<NatsTransport to {self._where}: node {self._node!r}, {self.statistics().state}>"
