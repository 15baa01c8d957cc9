"""An in-memory message broker: inboxes, queues with leased claims, fan-out, deduplication, dead letters."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from threading import get_ident

import anyio
import msgspec

from bus.errors import BusError, PartlySentError, TransportError
from bus.local.dead_letters import DeadFrame
from bus.memory.queues import BATCH, Entry, Node, Queues
from bus.transport.transport import Delivery, Outgoing, Settlement, WaitingFrame

IDLE_WAIT = 1.0
"""Seconds after which `receive` returns without any."""
INBOX_BOUND = 100_000
"""Most frames waiting in one inbox; beyond it `send` raises, or drops them if the node is gone."""
DEAD_LETTER_BOUND = 10_000
"""Most dead letters kept; beyond it the oldest is forgotten."""
GONE_AFTER = 60.0
"""Least seconds without a `receive` after which an inbox may be dropped; ten leases, if that is longer."""


class BrokerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a `MemoryBroker` holds now, and what it has counted since it was made.

    Attributes:
        nodes: Inboxes that exist.
        inbox: Frames waiting in them, those of `everyone` and `direct` too.
        queues: Queues with ready frames or servers.
        ready: Frames waiting in queues.
        claimed: Frames claimed and not settled.
        remembered: Ids in the deduplication window.
        dead_letters: Dead letters kept.
        accepted: Frames stored so far.
        duplicates: Frames refused because their id was known.
        unroutable: Frames dropped because their inbox does not exist.
        overflowed: Frames of `everyone` and `direct` dropped because an inbox was full.
        redelivered: Claims given out with an attempt above 1.
        expired: Claims that ended because their lease did.
        stale: Settlements of claims that had already ended.
        terminated: Frames sent to the dead letters.
        forgotten: Inboxes dropped because their node had died.
    """

    nodes: int
    inbox: int
    queues: int
    ready: int
    claimed: int
    remembered: int
    dead_letters: int
    accepted: int
    duplicates: int
    unroutable: int
    overflowed: int
    redelivered: int
    expired: int
    stale: int
    terminated: int
    forgotten: int


class MemoryBroker:
    """Keeps frames between nodes of one event loop, with the semantics of a real broker.

    Guarantees: inboxes and queues are first in, first out. A queued frame has one owner at a time; one that was given
    back, or whose lease ended, goes to the front of its queue and comes with the next attempt number. Leases follow
    `anyio.current_time()` and are looked at whenever anything happens, and by readers when the earliest ends: no task
    runs in the background. Everything is bounded, see the constants of this module and of `queues`. Nodes that serve
    the same queue take turns. Not for use from several threads or event loops.

    Args:
        ack_wait: Seconds a claim lasts unless renewed.
        max_dedup: How many frame ids are remembered; the oldest is forgotten first.
        fenced_ack: False to take the ack of a claim that has ended, as JetStream and a plain XACK do: the entry is
            deleted although another node may own it.
        wall_clock: Unix time, for people: when a dead letter died.
    """

    def __init__(
        self,
        *,
        ack_wait: float = 30.0,
        max_dedup: int = 100_000,
        fenced_ack: bool = True,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if not ack_wait > 0:
            raise ValueError(f"ack_wait must be above 0 seconds, not {ack_wait!r}")
        if max_dedup < 1:
            raise ValueError(f"max_dedup must be at least 1, not {max_dedup!r}")
        self.ack_wait = ack_wait
        self.max_dedup = max_dedup
        self.fenced_ack = fenced_ack
        self._wall_clock = wall_clock
        self._nodes: dict[str, Node] = {}
        self._thread = 0
        self._queues = Queues(ack_wait, fenced_ack=fenced_ack)
        self._remembered: OrderedDict[str, None] = OrderedDict()
        self._dead: OrderedDict[str, DeadFrame] = OrderedDict()
        self._accepted = 0
        self._duplicates = 0
        self._unroutable = 0
        self._overflowed = 0
        self._terminated = 0
        self._forgotten = 0

    def connect(self, address: str) -> Node:
        """Create the inbox of `address`, or find it again.

        Raises:
            BusError: The event loop of another thread uses the broker.
        """
        here = get_ident()
        if self._nodes and self._thread != here:
            raise BusError(
                "memory:// reaches no further than the event loop of one thread, and another one uses this name: let "
                "threads meet at Redis or NATS (`python -m bus.brokers redis` starts one)"
            )
        self._thread = here
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, anyio.current_time())
        return node

    def leave(self, node: Node) -> None:
        """Drop the inbox of `node` and give back its claims; a `receive` of it that waits returns empty."""
        node.closed = True
        self.interrupt(node)
        self._drop(node)
        self._queues.give_back(list(node.claims), anyio.current_time())

    def forget(self, address: str) -> None:
        """Drop the inbox of a node that died. Its claims last until their leases end.

        A node that was not dead after all has a new, empty inbox when it next reads, and still its demand.
        """
        node = self._nodes.get(address)
        if node is not None:
            self._forgotten += 1
            self._drop(node)

    def restart(self, *, empty: bool = False) -> None:
        """Do what a broker's process does that ends and starts again: all nodes are to connect anew.

        What was stored and claimed is kept, unless `empty`; the ids of frames that were taken are forgotten.
        """
        for node in tuple(self._nodes.values()):
            self.lose_direct(node)
            self.interrupt(node)
            node.arrived.clear()
            if empty:
                node.claims.clear()
            for name in tuple(node.demand):
                self._queues.demand(node, name, 0, 0.0)
        if empty:
            self._nodes.clear()
            self._dead.clear()
            self._queues = Queues(self.ack_wait, fenced_ack=self.fenced_ack)
        self._remembered = OrderedDict.fromkeys(self._queues.ids())

    def interrupt(self, node: Node) -> None:
        """Make a `receive` of `node` that waits return empty; until the next one nothing is given to `node`."""
        node.wake()
        node.reader = None

    def send(self, frames: Sequence[Outgoing], node: Node | None = None) -> None:
        """Store `frames` in order, skipping ids that are remembered. A frame to an inbox that is not there is dropped.

        What they settle are claims of `node`.

        Raises:
            PartlySentError: An inbox or queue is full. The frames for others are stored.
        """
        now = anyio.current_time()
        self._queues.expire(now)
        full: dict[tuple[str, str], TransportError] = {}
        missing: list[str] = []
        for frame in frames:
            place = (frame.lane, frame.to)
            if frame.id in self._remembered:
                self._duplicates += 1
            else:
                if place not in full:
                    try:
                        self._accept(frame, now)
                    except TransportError as error:
                        full[place] = error
                if place in full:
                    missing.append(frame.id)
                    continue
            if node is not None and frame.settles is not None:
                self.settle(node, frame.settles, Settlement.ACK)
        if full:
            raise PartlySentError("; ".join(map(str, full.values())), tuple(missing))

    def tell(self, frames: Sequence[Outgoing]) -> None:
        """Pass on frames of the lane `direct`. One to a node that is not there, or whose inbox is full, is dropped."""
        for frame in frames:
            node = self._nodes.get(frame.to)
            if node is None:
                self._unroutable += 1
            else:
                self._spread(Delivery("direct", "", frame.body), node, anyio.current_time())

    def lose_direct(self, node: Node) -> None:
        """Drop the frames of the lane `direct` that wait for a node: it is not connected."""
        kept = [delivery for delivery in node.inbox if delivery.lane != "direct"]
        node.inbox.clear()
        node.inbox.extend(kept)

    async def receive(self, node: Node, wait: float = IDLE_WAIT) -> list[Delivery]:
        """Wait up to `wait` seconds for frames for `node`, and return at most `BATCH`. One reader per node.

        Cancellation loses nothing: what was not returned comes with the next call, claims as long as they last.

        Raises:
            TransportError: `node` has left.
        """
        if node.closed:
            raise TransportError(f"node {node.address!r} has left the network")
        now = anyio.current_time()
        end = now + wait
        self._nodes.setdefault(node.address, node)
        self._queues.expire(now)
        reader = node.reader = anyio.Event()
        try:
            self._queues.look(node, now)
            while not (batch := self._take(node)) and now < end:
                lease_end = self._queues.first_lease_end()
                with anyio.move_on_after((end if lease_end is None else min(end, lease_end)) - now):
                    await reader.wait()
                if node.reader is not reader:
                    return []
                if reader.is_set():
                    reader = node.reader = anyio.Event()
                now = anyio.current_time()
                self._queues.expire(now)
            return batch
        finally:
            node.seen = now
            if node.reader is reader:
                node.reader = None

    def demand(self, node: Node, queue: str, slots: int) -> None:
        """Let `node` claim at most `slots` further frames of `queue`; 0 stops it."""
        self._queues.demand(node, queue, slots, anyio.current_time())

    def settle(self, node: Node, delivery: Delivery, how: Settlement) -> bool:
        """End the claim of `node` that `delivery` stands for. False if it had ended before."""
        settled = self._queues.settle(node, delivery, how, anyio.current_time())
        entry = delivery.token
        if settled and how is Settlement.TERM and isinstance(entry, Entry):
            self._terminated += 1
            place = str(self._terminated)
            history = (f"attempt {entry.attempt} on {node.address}: given up",)
            self._dead[place] = DeadFrame(place, entry.queue, entry.body, entry.attempt, self._wall_clock(), history)
            if len(self._dead) > DEAD_LETTER_BOUND:
                self._dead.popitem(last=False)
        return settled

    def extend(self, node: Node, deliveries: Sequence[Delivery]) -> list[bool]:
        """Renew the leases of claims of `node`; False for each that had ended."""
        return self._queues.extend(node, deliveries, anyio.current_time())

    def dead_frames(self, most: int, after: str = "") -> list[DeadFrame]:
        """At most `most` of the frames that were given up on, oldest first, or of those that follow `after`."""
        if after and not after.isdecimal():
            raise ValueError(f"{after!r} is not where a dead letter is kept")
        later = (frame for frame in self._dead.values() if int(frame.place) > int(after or 0))
        return list(islice(later, most))

    def discard(self, place: str) -> bool:
        """Throw a dead letter away. False if it was not there."""
        return self._dead.pop(place, None) is not None

    def waiting(self, queue: str, most: int, after: str = "") -> list[WaitingFrame]:
        """At most `most` frames that wait in a queue, oldest first, or of those that follow `after`, if that waits."""
        entries = iter(self._queues.waiting(queue))
        if after and not any(entry.id == after for entry in entries):  # goes on behind it
            return []
        return [WaitingFrame(entry.id, entry.body) for entry in islice(entries, most)]

    def remove(self, queue: str, places: Sequence[str]) -> None:
        """Take frames out of a queue, unless they are claimed."""
        self._queues.remove(queue, places)

    def statistics(self) -> BrokerStatistics:
        """What the broker holds now and has counted so far."""
        return BrokerStatistics(
            nodes=len(self._nodes),
            inbox=sum(len(node.inbox) for node in self._nodes.values()),
            queues=len(self._queues),
            ready=self._queues.ready,
            claimed=self._queues.claimed,
            remembered=len(self._remembered),
            dead_letters=len(self._dead),
            accepted=self._accepted,
            duplicates=self._duplicates,
            unroutable=self._unroutable,
            overflowed=self._overflowed,
            redelivered=self._queues.redelivered,
            expired=self._queues.expired,
            stale=self._queues.stale,
            terminated=self._terminated,
            forgotten=self._forgotten,
        )

    def __repr__(self) -> str:
        return f"<MemoryBroker: {len(self._nodes)} nodes, {len(self._queues)} queues, {self._queues.claimed} claimed>"

    def _accept(self, frame: Outgoing, now: float) -> None:
        if self._store(frame, now):
            self._accepted += 1
            self._remembered[frame.id] = None
            if len(self._remembered) > self.max_dedup:
                self._remembered.popitem(last=False)

    def _store(self, frame: Outgoing, now: float) -> bool:
        if frame.lane == "queue":
            self._queues.put(Entry(frame.to, frame.id, frame.body), now)
            return True
        delivery = Delivery(frame.lane, "", frame.body)
        if frame.lane == "everyone":
            for node in list(self._nodes.values()):
                self._spread(delivery, node, now)
            return True
        target = self._nodes.get(frame.to)
        if target is not None and len(target.inbox) >= INBOX_BOUND:
            if not self._gone(target, now):
                raise TransportError(
                    f"the inbox of node {frame.to!r} is full ({INBOX_BOUND} frames waiting): send slower"
                )
            self.forget(frame.to)
            target = None
        if target is None:
            self._unroutable += 1
            return False
        target.inbox.append(delivery)
        target.wake()
        return True

    def _spread(self, delivery: Delivery, node: Node, now: float) -> None:
        if self._gone(node, now):
            self.forget(node.address)
        elif len(node.inbox) >= INBOX_BOUND:
            self._overflowed += 1
        else:
            node.inbox.append(delivery)
            node.wake()

    def _gone(self, node: Node, now: float) -> bool:
        return node.reader is None and now - node.seen > max(GONE_AFTER, 10 * self.ack_wait)

    def _drop(self, node: Node) -> None:
        if self._nodes.get(node.address) is node:
            del self._nodes[node.address]
        node.inbox.clear()
        self._queues.part(node)

    def _take(self, node: Node) -> list[Delivery]:
        batch: list[Delivery] = []
        while node.arrived and len(batch) < BATCH:
            delivery = node.arrived.popleft()
            if self._queues.owns(node, delivery):
                batch.append(delivery)
        while node.inbox and len(batch) < BATCH:
            batch.append(node.inbox.popleft())
        return batch
