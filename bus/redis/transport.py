"""The transport over Redis Streams: `redis://` and `rediss://`, on Redis from 7.0 and Valkey, one server at a time.

Each node has one stream as its inbox and each queue has two, for new frames and for those that went back. One blocking
read waits for all of them, so a frame costs one wake-up; a node wakes itself by an empty entry in its inbox. A lease is
the time since a claim was read or renewed, by the clock of the server: only what its owner has stopped renewing is
taken from it. `everyone` is written to the inbox of each node that was alive lately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
from redis.exceptions import ResponseError

from bus.errors import BusError, PartlySentError, TransportError
from bus.local.tasks import on_asyncio
from bus.log import text_of
from bus.names import check_name
from bus.redis.admin import RedisDeadFrames, RedisWaitingFrames, inspect_server
from bus.redis.client import Command, RedisClient, connections
from bus.redis.connection import PATIENCE, RedisLink
from bus.redis.inbox import RedisInbox, packs, parts_of
from bus.redis.layout import (
    ANSWER,
    AWAIT,
    BROADCAST,
    CLAIM,
    EXPIRE,
    GROUP,
    HEARTBEAT,
    PUT,
    SCRIPTS,
    SWEEP,
    Heartbeat,
    RedisLayout,
    entries_of,
)
from bus.redis.queues import VANISHED, RedisQueues, claim_of
from bus.transport.transport import Delivery, Lane, Outgoing, Settlement

REMEMBERED = 120.0
"""Seconds for which the ids of queued frames are remembered: longer than a connection takes to be made anew."""
IDLE_WAIT = 1.0
"""Seconds after which `receive` returns without any."""
BATCH = 64
"""Most entries one read takes from a stream: this many packs or frames are what one reply can hold."""
SLOWEST = 1_000_000.0
"""Bytes in a second that a link must carry, or it counts as broken."""
FORGOTTEN_AFTER = 60.0
"""Least seconds without a `receive` after which the inbox of a node is dropped; ten leases, if that is longer."""
TURNS = 2
"""Turns of the loop that pass before a read, so that what the frames of the last one have set off goes out with it, in
one write: to wake a server that sleeps costs more than all the rest of a job."""
CLOSE_PATIENCE = 2.0
"""Seconds `close` lets the reader, and then the server, take."""


class _BlockedRead(NamedTuple):
    """The read that waits at the server: most frames that it may bring of each queue, and the queues it looks at."""

    most: int
    queues: dict[str, int]


class RedisTransport:
    """One node's access to a Redis server.

    A claim is a stream entry that nobody else ever owns: a frame that goes back to its queue, because of a NAK or of a
    lease that ended, becomes a new entry at the front. So every settlement is fenced. Frames of queues are stored once
    per id for two minutes; frames of inboxes may double when they are sent again.

    What is accepted survives a crash of the server as far as the server writes it down: `appendonly yes`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with user, password and database as redis-py reads them.
        redis: A client of `redis.asyncio` instead, to connect as it does. It is not used otherwise.
        namespace: How all keys begin: networks of different namespaces do not see each other.
        ack_wait: Seconds a claim of this node lasts unless renewed.
        consumer_id: A name that stays the same over restarts: what its earlier life had claimed goes back to the queues
            as soon as the new one serves them, not only when its lease ends. Two living nodes must not share it.

    Raises:
        ValueError: Not exactly one of `url` and `redis`, or one that cannot be used; or an `ack_wait` not above 0.
        InvalidNameError: `namespace` or `consumer_id` is no name.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        redis: RedisClient | None = None,
        namespace: str = "actorbus",
        ack_wait: float = 30.0,
        consumer_id: str | None = None,
    ) -> None:
        if not ack_wait > 0:
            raise ValueError(f"ack_wait must be above 0 seconds, not {ack_wait!r}")
        self._layout = RedisLayout(namespace)
        self._consumer_id = consumer_id and check_name("consumer id", consumer_id)
        self._make, self._where = connections(url, redis)
        self._reader, self._writer = self._new_link(), self._new_link()
        self._ack_wait = ack_wait
        self._forgotten_after = max(FORGOTTEN_AFTER, 10 * ack_wait)
        self._node: str | None = None
        self._queues = RedisQueues(self._layout, self._forgotten_after)
        self._inbox = RedisInbox("")
        self._receiving = asyncio.Lock()
        self._blocked: _BlockedRead | None = None
        self._waking: asyncio.Task[None] | None = None
        self._more = False
        self._heartbeat_at = self._expire_at = 0.0
        self._inspected = False

    @property
    def ack_wait(self) -> float:
        """Seconds a claim lasts unless renewed."""
        return self._ack_wait

    @property
    def dead_frames(self) -> RedisDeadFrames:
        """What was given up on, of all queues of the namespace."""
        return RedisDeadFrames(self._layout, self._writer)

    def waiting(self, queue: str) -> RedisWaitingFrames:
        """What waits in a queue."""
        return RedisWaitingFrames(self._layout, self._writer, queue)

    async def open(self, node: str) -> None:
        """Connect, and create the inbox of `node`; warn, once, of a server that does not keep what it accepts.

        Raises:
            TransportError: The server cannot be reached, or refuses us.
            BusError: The server is too old, or this is not asyncio.
        """
        if not on_asyncio():
            raise BusError("RedisBus needs asyncio, as the client library of Redis does: run the program under asyncio")
        if self._reader.closed:
            self._reader, self._writer = self._new_link(), self._new_link()
        self._queues.begin(self._consumer_id or node)
        self._inbox = RedisInbox(self._layout.inbox(node))
        try:
            if not self._inspected:
                await inspect_server(self._writer)
                self._inspected = True
            (reply,) = await self._reader.checked([self._heartbeat(node)])
            heartbeat = Heartbeat.of(reply)
        except BusError:
            await self._writer.drop()
            raise
        except Exception as error:
            await self.leave()
            raise TransportError(f"{self._where} does not speak as a Redis server does: {text_of(error)}") from error
        except BaseException:
            await self._writer.drop()
            raise
        self._inbox.alive(heartbeat)
        self._node = node

    async def close(self) -> None:
        """Disconnect, drop the inbox and give back open claims, as far as the server can be reached. Never raises."""
        node, self._node = self._node, None
        if node is None:
            return
        with anyio.CancelScope(shield=True):
            await self._wake_reader(node)
            with anyio.move_on_after(CLOSE_PATIENCE) as waiting:
                async with self._receiving:
                    pass
            if waiting.cancelled_caught:
                await self._reader.drop()
            goodbye: list[Command] = [
                *self._queues.give_back_all(),
                ("DEL", self._layout.inbox(node), self._layout.lease(self._queues.owner)),
                ("ZREM", self._layout.nodes, node),
                *self._queues.leave(node),
            ]
            given_back = False
            with suppress(TransportError):
                await self._writer.exchange(goodbye, patience=CLOSE_PATIENCE)
                given_back = True
            self._queues.left(given_back=given_back)
            for link in (self._reader, self._writer):
                await link.close()
            if self._waking is not None:
                self._waking.cancel()

    async def leave(self) -> None:
        """Drop both connections, which are made anew when they are needed: nobody could say what still comes."""
        for link in (self._reader, self._writer):
            await link.drop()

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """Store `frames` in one round trip; those to one inbox together, in their order.

        Raises:
            TransportError: Not open, or not accepted: all of them, or those that a `PartlySentError` names.
        """
        self._connected()
        patience = PATIENCE + sum(len(frame.body) for frame in frames) / SLOWEST
        storing = self._storing(frames)
        link = self._outlet
        reason = ""
        missing: dict[str, None] = {}
        replies = await link.exchange([command for command, _ in storing], patience=patience)
        for reply, (_, pack) in zip(replies, storing, strict=True):
            if isinstance(reply, ResponseError):
                if not str(reply).startswith(("NOPERM", "WRONGTYPE")):
                    await link.refused(reply)
                reason = f"{self._where} refused: {reply}"
                missing.update(dict.fromkeys(frame.id for frame in pack))
        self._queues.answered([frame for frame in frames if frame.id not in missing])
        if missing:
            raise PartlySentError(reason, tuple(missing))

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        """Send frames of the lane `direct` in one round trip, to inboxes that exist; nothing is sent if it raises."""
        self._connected()
        nodes: dict[str, list[Outgoing]] = {}
        for frame in frames:
            nodes.setdefault(frame.to, []).append(frame)
        await self._outlet.send_once(
            [
                ("XADD", self._layout.inbox(to), "NOMKSTREAM", "*", *parts_of(pack))
                for to, batch in nodes.items()
                for pack in packs(batch)
            ]
        )

    async def receive(self) -> Sequence[Delivery]:
        """Wait for frames; empty after a second without any. Cancelled, it loses nothing that its lease does not save.

        Raises:
            TransportError: Not open, or the connection failed; what was read meanwhile comes with a later call.
        """
        for _ in range(TURNS):
            await asyncio.sleep(0)
        async with self._receiving:
            node = self._connected()
            end = anyio.current_time() + IDLE_WAIT
            while True:
                deliveries = await self._read(node, end)
                if self._node != node:
                    return ()  # what this call has claimed is given back by `close`
                if deliveries or anyio.current_time() >= end:
                    return deliveries

    def demand(self, queue: str, slots: int) -> None:
        """From now on claim at most `slots` further frames of `queue`; 0 stops serving it."""
        self._queues.demand(queue, slots)
        if self._blocked is not None:
            most, queues = self._blocked
            fits = slots >= most if queue in queues else slots <= 0 or queue in self._queues.watched.awaited
            if not fits and self._node is not None and (self._waking is None or self._waking.done()):
                self._waking = asyncio.get_running_loop().create_task(self._wake_reader(self._node))

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        """End claims in one round trip. False for each that had ended before.

        Raises:
            TransportError: Not open, or no answer; each claim may have ended or not.
        """
        self._connected()
        return await self._queues.settle(self._writer, settlements)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """Renew the leases of claims for another `ack_wait`. False for each that had ended.

        Raises:
            TransportError: Not open, or no answer; some leases may be renewed.
        """
        self._connected()
        return await self._queues.renew(self._writer, deliveries)

    async def keep(self, frames: Sequence[Outgoing]) -> Container[object]:
        """Send to everyone and renew every claim, over a connection of its own; see `Transport.keep`."""
        node = self._connected()
        link = self._new_link()
        try:
            reply, *_ = await link.checked([self._heartbeat(node), *(command for command, _ in self._storing(frames))])
            self._inbox.alive(Heartbeat.of(reply))
            return await self._queues.renew_all(link)
        finally:
            await link.close()

    # --- out ---

    @property
    def _outlet(self) -> RedisLink:
        """The connection that takes frames at once: that of the reader, unless a read is under way."""
        return self._writer if self._receiving.locked() or not self._reader.connected else self._reader

    def _storing(self, frames: Sequence[Outgoing]) -> list[tuple[Command, list[Outgoing]]]:
        """The commands that store frames, each with those it stores; those to one inbox together, in their order."""
        commands: list[tuple[Command, list[Outgoing]]] = []
        batches: dict[tuple[Lane, str], list[Outgoing]] = {}
        to_everyone = False
        for frame in frames:
            if batches and (frame.lane == "everyone") is not to_everyone:
                # A goodbye to everyone must not overtake the answers before it, nor what follows it the goodbye.
                commands += self._storing_batches(batches)
                batches = {}
            to_everyone = frame.lane == "everyone"
            batches.setdefault((frame.lane, frame.to), []).append(frame)
        commands += self._storing_batches(batches)
        return commands

    def _storing_batches(
        self, batches: dict[tuple[Lane, str], list[Outgoing]]
    ) -> Iterable[tuple[Command, list[Outgoing]]]:
        layout = self._layout
        for (lane, to), frames in batches.items():
            for pack in packs(frames):
                if lane == "queue":
                    parts = [part for frame in pack for part in (frame.id, frame.body)]
                    yield PUT([layout.sent(to)], GROUP, layout.prefix, to, int(1000 * REMEMBERED), *parts), pack
                elif lane == "inbox":
                    yield self._to_inbox(layout.inbox(to), pack), pack
                else:
                    yield BROADCAST([layout.nodes], layout.inboxes, *parts_of(pack)), pack

    def _to_inbox(self, inbox: str, pack: list[Outgoing]) -> Command:
        """One entry, and the end of the claims it answers. A node that is gone has no inbox, and must not get one."""
        parts = parts_of(pack)
        streams: dict[str, list[bytes]] = {}
        for frame in pack:
            if frame.settles is not None:
                claim = claim_of(frame.settles)
                streams.setdefault(claim.stream, []).append(claim.id)
        if not streams:
            return ("XADD", inbox, "NOMKSTREAM", "*", *parts)
        ends: list[bytes | int] = []
        for ids in streams.values():
            ends += (len(ids), *ids)
        return ANSWER([inbox, *streams], GROUP, self._queues.owner, len(parts), *parts, *ends)

    async def _wake_reader(self, node: str) -> None:
        wake_up = ("XADD", self._layout.inbox(node), "NOMKSTREAM", "*", "n", "")
        with suppress(TransportError):  # a blocked read ends within a second by itself
            await self._writer.exchange([wake_up], patience=CLOSE_PATIENCE)

    # --- in ---

    async def _read(self, node: str, end: float) -> list[Delivery]:
        if not self._reader.connected and (deliveries := await self._recover(node)):
            return deliveries
        await self._queues.serve(self._reader)
        now = anyio.current_time()
        chores = self._chores(now)
        beats = now >= self._heartbeat_at
        if beats:
            self._heartbeat_at = now + self._forgotten_after / 4
            sweep = SWEEP([self._layout.served, self._layout.nodes], GROUP, self._layout.prefix, BATCH)
            chores = [self._heartbeat(node), sweep, *chores]
        awaited = self._queues.watched.place()
        if awaited:
            chores.append(AWAIT([self._layout.nodes], self._layout.prefix, node, *awaited))
        slots = self._queues.to_read(awaited)
        most = min((BATCH, *slots.values()))
        wait = max(0.0, min(end, self._expire_at) - now)
        keys = [self._inbox.key, *self._layout.streams(slots)]
        if self._more or awaited or wait <= 0:
            wait = 0.0
            read = CLAIM(keys, GROUP, self._queues.owner, BATCH, *slots.values())
        else:
            block = max(1, int(1000 * wait))
            read = ("XREADGROUP", "GROUP", GROUP, self._queues.owner, "COUNT", most, "BLOCK", block, "STREAMS", *keys)
            read = (*read, *[">"] * len(keys))
            self._blocked = _BlockedRead(most, slots)
        try:
            replies = await self._reader.exchange([*chores, read], patience=wait + PATIENCE)
        finally:
            self._blocked = None
        self._inbox.deleted()
        self._queues.excess_returned()
        if beats and not isinstance(replies[0], ResponseError):
            self._inbox.alive(Heartbeat.of(replies[0]))
        for reply in replies:
            if isinstance(reply, ResponseError):
                if not str(reply).startswith(VANISHED):
                    await self._reader.refused(reply)
                # Made anew, and what was claimed before the error found, as after any broken connection.
                await self._reader.drop()
                return []
        streams = replies[-1] or []
        self._more = bool(streams) and (wait == 0 or any(len(entries) >= most for _, entries in streams))
        deliveries = self._take(streams)
        while self._inbox.notified:
            queue = self._inbox.notified.pop()
            if queue in self._queues.watched.awaited:  # not a notification from before the connection broke
                self._more = True
                self._queues.used(queue)
        return deliveries

    def _chores(self, now: float) -> list[Command]:
        """What goes along with a read: the settling of what was read before, and of what has expired."""
        chores = [*self._queues.return_excess(), *self._inbox.delete(all_of_it=now >= self._expire_at)]
        if now >= self._expire_at:
            if streams := self._queues.streams():
                chores.append(EXPIRE(streams, GROUP, int(1000 * self._ack_wait), self._layout.prefix))
            self._expire_at = now + min(IDLE_WAIT, self._ack_wait / 4)
        return chores

    async def _recover(self, node: str) -> list[Delivery]:
        """After a new connection: what the old one was sent and never brought is ours still."""
        self._queues.reset()
        read = ("XREADGROUP", "GROUP", GROUP, self._queues.owner, "STREAMS", self._inbox.key, "0")
        reply, streams = await self._reader.checked([self._heartbeat(node), read])
        unread = [entry for _, entries in streams or () for entry in entries_of(entries)]
        return self._inbox.recover(Heartbeat.of(reply), unread)

    def _take(self, streams: Iterable[tuple[bytes, Any]]) -> list[Delivery]:
        inbox = self._inbox.key.encode()
        deliveries: list[Delivery] = []
        for stream, entries in streams:
            take = self._inbox.take if stream == inbox else partial(self._queues.take, stream)
            deliveries += take(entries_of(entries))
        return deliveries

    def _heartbeat(self, node: str) -> Command:
        lease = self._layout.lease(self._queues.owner)
        keys = [self._layout.inbox(node), self._layout.nodes, lease, self._layout.born]
        return HEARTBEAT(keys, GROUP, node, int(1000 * self._forgotten_after), int(1000 * self._ack_wait))

    # --- both ---

    def _new_link(self) -> RedisLink:
        return RedisLink(self._make, self._where, [script.text for script in SCRIPTS])

    def _connected(self) -> str:
        if self._node is None:
            raise TransportError("the transport is not open")
        return self._node

    def __repr__(self) -> str:
        return f"<RedisTransport of {self._node or 'nobody'} to {self._where}, {self._queues!r}>"
