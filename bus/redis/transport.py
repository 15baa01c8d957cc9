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
from typing import Any

import anyio
import anyio.lowlevel
from redis.exceptions import ResponseError

from bus.errors import BusError, PartlySentError, TransportError
from bus.local.tasks import on_asyncio
from bus.names import check_name
from bus.redis.admin import RedisDeadFrames, RedisWaitingFrames, inspect_server
from bus.redis.client import Command, RedisClient, connections
from bus.redis.connection import PATIENCE, RedisLink
from bus.redis.inbox import FIELDS, RedisInbox, direct, packs
from bus.redis.layout import ALIVE, ANSWER, CLAIM, EXPIRE, GROUP, HANG, PUT, SCRIPTS, SPREAD, SWEEP, call
from bus.redis.queues import VANISHED, Claim, RedisClaims, RedisWatch, claim_of
from bus.transport.transport import Delivery, Lane, Outgoing, Settlement

REMEMBERED = 120.0
"""Seconds for which the ids of queued frames are remembered: longer than a connection takes to be made anew."""


def storing(frames: Sequence[Outgoing], prefix: str, claims: RedisClaims) -> list[tuple[Command, list[Outgoing]]]:
    """The commands that store `frames`, each with those it stores; those to one inbox together, in their order.

    Args:
        frames: The frames.
        prefix: How all keys begin.
        claims: Knows the streams of queues.
    """
    commands: list[tuple[Command, list[Outgoing]]] = []
    batches: dict[tuple[Lane, str], list[Outgoing]] = {}
    spreads = False
    for frame in frames:
        if batches and (frame.lane == "everyone") is not spreads:
            # A goodbye to everyone must not overtake the answers before it, nor what follows it the goodbye.
            commands += _commands(batches, prefix, claims)
            batches = {}
        spreads = frame.lane == "everyone"
        batches.setdefault((frame.lane, frame.to), []).append(frame)
    commands += _commands(batches, prefix, claims)
    return commands


def _commands(
    batches: dict[tuple[Lane, str], list[Outgoing]], prefix: str, claims: RedisClaims
) -> Iterable[tuple[Command, list[Outgoing]]]:
    for (lane, to), frames in batches.items():
        for pack in packs(frames):
            if lane == "queue":
                fields = [part for frame in pack for part in (frame.id, frame.body)]
                yield call(PUT, [claims.new(to)], GROUP, prefix, to, int(1000 * REMEMBERED), *fields), pack
                continue
            fields = [part for frame in pack for part in (FIELDS[lane], frame.body)]
            if lane == "inbox":
                yield _to_inbox(f"{prefix}inbox:{to}", fields, pack, claims.owner), pack
            else:
                yield call(SPREAD, [f"{prefix}nodes"], prefix + "inbox:", *fields), pack


def _to_inbox(inbox: str, fields: list[str | bytes], pack: list[Outgoing], owner: str) -> Command:
    """One entry, and the end of the claims that it answers. A node that is gone has no inbox, and must not get one."""
    streams: dict[str, list[bytes]] = {}
    for frame in pack:
        if frame.settles is not None:
            claim = claim_of(frame.settles)
            streams.setdefault(claim.stream, []).append(claim.id)
    if not streams:
        return ("XADD", inbox, "NOMKSTREAM", "*", *fields)
    ends: list[bytes | int] = []
    for ids in streams.values():
        ends += (len(ids), *ids)
    return call(ANSWER, [inbox, *streams], GROUP, owner, len(fields), *fields, *ends)


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
        self._prefix = check_name("namespace", namespace) + ":"
        self._consumer_id = consumer_id and check_name("consumer id", consumer_id)
        self._make, self._label = connections(url, redis)
        self._reader, self._writer = (RedisLink(self._make, SCRIPTS, self._label) for _ in range(2))
        self._ack_wait = ack_wait
        self._keep = max(FORGOTTEN_AFTER, 10 * ack_wait)
        self._node: str | None = None
        self._claims = RedisClaims("", self._prefix, self._keep)
        self._slots: dict[str, int] = {}
        self._watch = RedisWatch()
        self._blocked: tuple[int, dict[str, int]] | None = None
        self._more = False
        self._inbox = RedisInbox("")
        self._alive_until = self._expire_at = 0.0
        self._receiving = asyncio.Lock()
        self._nudging: asyncio.Task[None] | None = None
        self._inspected = False

    @property
    def ack_wait(self) -> float:
        """Seconds a claim lasts unless renewed."""
        return self._ack_wait

    @property
    def dead_frames(self) -> RedisDeadFrames:
        """What was given up on, of all queues of the namespace."""
        return RedisDeadFrames(self._writer, self._prefix)

    def waiting(self, queue: str) -> RedisWaitingFrames:
        """What waits in a queue."""
        return RedisWaitingFrames(self._writer, self._claims, queue)

    async def open(self, node: str) -> None:
        """Connect, and create the inbox of `node`; warn, once, of a server that does not keep what it accepts.

        Raises:
            TransportError: The server cannot be reached, or refuses us.
            BusError: The server is too old, or this is not asyncio.
        """
        if not on_asyncio():
            raise BusError("RedisBus needs asyncio, as the client library of Redis does: run the program under asyncio")
        if self._reader.is_shut:
            self._reader, self._writer = (RedisLink(self._make, SCRIPTS, self._label) for _ in range(2))
        self._claims = RedisClaims(self._consumer_id or node, self._prefix, self._keep)
        self._inbox = RedisInbox(self._inbox_of(node))
        self._watch_anew()
        try:
            if not self._inspected:
                await inspect_server(self._writer, self._label)
                self._inspected = True
            self._inbox.born(*await self._reader.checked([self._alive(node)]))
        except BaseException:
            await self._writer.drop()
            raise
        self._node = node

    async def close(self) -> None:
        """Disconnect, drop the inbox and give back open claims, as far as the server can be reached. Never raises."""
        node, self._node = self._node, None
        if node is None:
            return
        with anyio.CancelScope(shield=True):
            await self._send_nudge(node)
            with anyio.move_on_after(CLOSE_PATIENCE) as waiting:
                async with self._receiving:
                    pass
            if waiting.cancelled_caught:
                await self._reader.drop()
            goodbye: list[Command] = [
                *self._claims.give_back_all(),
                ("DEL", self._inbox_of(node), self._lease),
                ("ZREM", self._nodes, node),
                self._claims.leave(),
                *(("SREM", f"{self._prefix}bells:{queue}", node) for queue in self._watch.bells),
            ]
            try:
                await self._writer.exchange(goodbye, patience=CLOSE_PATIENCE)
            except TransportError:
                self._claims.lost_touch()
            self._slots.clear()
            for link in (self._reader, self._writer):
                await link.shut()
            if self._nudging is not None:
                self._nudging.cancel()

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """Store `frames` in one round trip; those to one inbox together, in their order.

        Raises:
            TransportError: Not open, or not accepted: all of them, or those that a `PartlySentError` names.
        """
        self._connected()
        patience = PATIENCE + sum(len(frame.body) for frame in frames) / SLOWEST
        commands = storing(frames, self._prefix, self._claims)
        try:
            await self._outlet.store([(command, [frame.id for frame in pack]) for command, pack in commands], patience)
        except PartlySentError as error:
            self._claims.answered([frame for frame in frames if frame.id not in error.missing])
            raise
        self._claims.answered(frames)

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        """Send frames of the lane `direct` in one round trip, by way of the inboxes; nothing is sent if it raises."""
        self._connected()
        await self._outlet.tell([*direct(frames, self._inbox_of)])

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
        if slots > 0:
            self._slots[queue] = slots
            self._watch.demanded(queue)
        else:
            self._slots.pop(queue, None)
            self._watch.unwanted(queue)
        if self._blocked is not None:
            count, queues = self._blocked
            fits = slots >= count if queue in queues else slots <= 0 or queue in self._watch.bells
            if not fits and self._node is not None and (self._nudging is None or self._nudging.done()):
                self._nudging = asyncio.get_running_loop().create_task(self._send_nudge(self._node))

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        """End claims in one round trip. False for each that had ended before.

        Raises:
            TransportError: Not open, or no answer; each claim may have ended or not.
        """
        self._connected()
        claims = [(claim_of(delivery), how) for delivery, how in settlements]
        ended: dict[Claim, None] = {}
        runs = self._claims.settlements(claims)
        for (_, run), reply in zip(runs, await self._writer.checked([command for command, _ in runs]), strict=True):
            ended.update(dict.fromkeys(claim for claim, settled in zip(run, reply, strict=True) if settled))
        for claim, _ in claims:
            self._claims.forget(claim)
        return [claim in ended for claim, _ in claims]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """Renew the leases of claims for another `ack_wait`. False for each that had ended.

        Raises:
            TransportError: Not open, or no answer; some leases may be renewed.
        """
        self._connected()
        claims = [claim_of(delivery) for delivery in deliveries]
        kept = await self._claims.renew(claims, self._writer)
        for claim in claims:
            if claim not in kept:
                self._claims.forget(claim)
        return [claim in kept for claim in claims]

    async def keep(self, frames: Sequence[Outgoing]) -> Container[object]:
        """Send to everyone and renew every claim, over a connection of its own; see `Transport.keep`."""
        spread = [command for command, _ in storing(frames, self._prefix, self._claims)]
        link = RedisLink(self._make, SCRIPTS, self._label)
        return await self._claims.keep([self._alive(self._connected()), *spread], self._inbox, link)

    # --- out ---

    @property
    def _outlet(self) -> RedisLink:
        """The connection that takes frames at once: that of the reader, unless a read is under way."""
        return self._writer if self._receiving.locked() or not self._reader.connected else self._reader

    async def _send_nudge(self, node: str) -> None:
        nudge = ("XADD", self._inbox_of(node), "NOMKSTREAM", "*", "n", "")
        with suppress(TransportError):  # a blocked read ends within a second by itself
            await self._writer.exchange([nudge], patience=CLOSE_PATIENCE)

    # --- in ---

    async def _read(self, node: str, end: float) -> list[Delivery]:
        if not self._reader.connected and (deliveries := await self._recover(node)):
            return deliveries
        while serve := [queue for queue in self._watch.fresh if queue not in self._claims.served]:
            await self._claims.serve(serve, self._reader)
        now = anyio.current_time()
        chores = self._chores(node, now)
        bells = self._watch.place()
        if bells:
            chores.append(call(HANG, [self._nodes], self._prefix, node, *bells))
        slots = {queue: self._slots[queue] for queue in (*self._watch.hot, *bells) if queue in self._slots}
        count = min((BATCH, *slots.values()))
        wait = max(0.0, min(end, self._expire_at) - now)
        keys = [self._inbox_of(node), *self._claims.streams(slots)]
        if self._more or bells or wait <= 0:
            wait = 0.0
            read: Command = call(CLAIM, keys, GROUP, self._claims.owner, BATCH, *slots.values())
        else:
            block = max(1, int(1000 * wait))
            read = ("XREADGROUP", "GROUP", GROUP, self._claims.owner, "COUNT", count, "BLOCK", block, "STREAMS", *keys)
            read = (*read, *[">"] * len(keys))
            self._blocked = (count, slots)
        try:
            replies = await self._reader.exchange([*chores, read], patience=wait + PATIENCE)
        finally:
            self._blocked = None
        self._inbox.deleted(replies)
        self._claims.excess_returned()
        for reply in replies:
            if isinstance(reply, ResponseError):
                if not str(reply).startswith(VANISHED):
                    await self._reader.refused(reply)
                # Made anew, and what was claimed before the error found, as after any broken connection.
                await self._reader.drop()
                return []
        streams = replies[-1] or []
        self._more = bool(streams) and (wait == 0 or any(len(entries) >= count for _, entries in streams))
        deliveries = self._take(streams)
        while self._inbox.rung:
            queue = self._inbox.rung.pop()
            if queue in self._watch.bells:  # not one that rang before the connection broke
                self._more = True
                self._used(queue)
        return deliveries

    def _watch_anew(self) -> None:
        self._watch.forget()
        for queue in self._slots:
            self._watch.demanded(queue)

    def _used(self, queue: str) -> None:
        unread = self._watch.used(queue)
        if unread in self._slots:
            self._watch.demanded(unread)

    def _chores(self, node: str, now: float) -> list[Command]:
        """What goes along with a read: settling what was read before, and what is due."""
        chores = [*self._claims.return_excess(), *self._inbox.delete(all_of_it=now >= self._expire_at)]
        if now >= self._alive_until:
            queues = [self._prefix + "served", self._nodes]
            chores += [self._alive(node), call(SWEEP, queues, GROUP, self._prefix, BATCH)]
            self._alive_until = now + self._keep / 4
        if now >= self._expire_at:
            if self._slots:
                streams = self._claims.streams(self._slots)
                chores.append(call(EXPIRE, streams, GROUP, int(1000 * self._ack_wait), self._prefix))
            self._expire_at = now + min(IDLE_WAIT, self._ack_wait / 4)
        return chores

    async def _recover(self, node: str) -> list[Delivery]:
        """After a new connection: what the old one was sent and never brought is ours still."""
        self._claims.served.clear()
        self._watch_anew()
        read = ("XREADGROUP", "GROUP", GROUP, self._claims.owner, "STREAMS", self._inbox_of(node), "0")
        birth, streams = await self._reader.checked([self._alive(node), read])
        return self._inbox.recover(birth, [entry for _, entries in streams or () for entry in entries])

    def _take(self, streams: Iterable[Any]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for key, entries in streams:
            queue = self._claims.queue_of(key)
            if queue is None:
                deliveries += self._inbox.take(entries)
                continue
            self._used(queue)
            for entry, fields in entries:
                slots = self._slots.get(queue, 0)
                if not slots:
                    self._claims.exceeding(key, entry)
                    continue
                self.demand(queue, slots - 1)
                deliveries.append(self._claims.claimed(queue, key, entry, fields))
        return deliveries

    @property
    def _nodes(self) -> str:
        return self._prefix + "nodes"

    @property
    def _lease(self) -> str:
        return f"{self._prefix}lease:{self._claims.owner}"

    def _inbox_of(self, node: str) -> str:
        return f"{self._prefix}inbox:{node}"

    def _alive(self, node: str) -> Command:
        keys = [self._inbox_of(node), self._nodes, self._lease, self._prefix + "born"]
        return call(ALIVE, keys, GROUP, node, int(1000 * self._keep), int(1000 * self._ack_wait))

    def _connected(self) -> str:
        if self._node is None:
            raise TransportError("the transport is not open")
        return self._node

    def __repr__(self) -> str:
        return f"<RedisTransport of {self._node or 'nobody'} to {self._label}, {self._claims!r}>"
