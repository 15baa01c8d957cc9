"""The queues of an in-memory broker: who serves them, who has claimed what, until when. No clock, no tasks.

How work finds its node without a search:

* A node lists in `demand` how many more frames of which queue it takes.
* A queue lists in `servers`, in turn, the nodes that have demand for it and may be reading.
* A frame goes to the first server that waits in `receive`. A server that turns out not to be reading leaves the
  list and finds the queue in its own `look` when it reads again. So a dead node is passed over once, and neither
  the number of queues nor that of nodes enters the cost of a message.
* Between two calls one of them holds for each queue: no ready entry, or no server.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from enum import Enum

import anyio

from bus.errors import TransportError
from bus.transport.transport import Delivery, Settlement


class EntryState(Enum):
    """Where a queued frame stands."""

    READY = "ready"
    """Waits for a node with a free slot."""
    CLAIMED = "claimed"
    """One node works on it, until it settles or its lease ends."""
    DELETED = "deleted"
    """Done; gone from the broker."""
    DEAD = "dead"
    """Given up on; listed with the dead letters."""


TRANSITIONS: dict[EntryState, tuple[EntryState, ...]] = {
    # READY -> DELETED happens only where the broker takes the late ack of a claim that had already ended.
    EntryState.READY: (EntryState.CLAIMED, EntryState.DELETED),
    EntryState.CLAIMED: (EntryState.READY, EntryState.DELETED, EntryState.DEAD),
    EntryState.DELETED: (),
    EntryState.DEAD: (),
}


class Entry:
    """A queued frame, its state and how often it was claimed.

    Attributes:
        queue: Name of its queue.
        id: The frame's id.
        body: The bytes.
        state: Where it stands.
        attempt: How often it was claimed: with the entry itself, the identity of a claim.
        lease_end: When the present claim ends unless renewed, on the clock of `anyio.current_time()`.
    """

    __slots__ = ("attempt", "body", "id", "lease_end", "queue", "state")

    def __init__(self, queue: str, frame_id: str, body: bytes) -> None:
        self.queue = queue
        self.id = frame_id
        self.body = body
        self.state = EntryState.READY
        self.attempt = 0
        self.lease_end = 0.0

    def move(self, state: EntryState) -> None:
        """Change state.

        Raises:
            RuntimeError: That state may not follow the present one; the entry is unchanged.
        """
        if state not in TRANSITIONS[self.state]:
            msg = f"{self!r} cannot become {state.value}"
            raise RuntimeError(msg)
        self.state = state

    def __repr__(self) -> str:
        return f"<Entry {self.id!r} of queue {self.queue!r}: {self.state.value}, attempt {self.attempt}>"


BATCH = 256
"""Most frames one `receive` returns, so also the most claims that are handed to a node between two calls."""
QUEUE_BOUND = 1_000_000
"""Most frames ready in one queue; beyond it `send` raises."""


class Node:
    """The broker's side of one connected node. Only the broker changes it.

    Attributes:
        address: Its address.
        inbox: Frames of the lanes `inbox` and `everyone` that wait for it.
        arrived: Claims that no `receive` has returned yet.
        claims: Entries it owns.
        demand: How many more frames it takes, by queue; only numbers above 0.
        look: Queues in demand that do not list it as a server: to be looked at when it reads again.
        reader: Wakes its `receive`; None while it is not in one.
        seen: When it last read, on the clock of `anyio.current_time()`.
        closed: Whether it has left.
    """

    __slots__ = ("address", "arrived", "claims", "closed", "demand", "inbox", "look", "reader", "seen")

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.inbox: deque[Delivery] = deque()
        self.arrived: deque[Delivery] = deque()
        self.claims: dict[Entry, None] = {}
        self.demand: dict[str, int] = {}
        self.look: dict[str, None] = {}
        self.reader: anyio.Event | None = None
        self.seen = now
        self.closed = False

    def wake(self) -> None:
        """Let a waiting `receive` look again."""
        if self.reader is not None:
            self.reader.set()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "reading" if self.reader is not None else "away"
        return f"<Node {self.address!r}: {state}, {len(self.inbox)} waiting, {len(self.claims)} claimed>"


class Queue:
    """Ready entries in order, and the nodes that take them in turn."""

    __slots__ = ("name", "ready", "servers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[Entry] = deque()
        self.servers: OrderedDict[str, Node] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}: {len(self.ready)} ready, {len(self.servers)} servers>"


class Queues:
    """All queues of a broker and all claims on their entries. `now` is seconds on a clock that never goes back.

    Args:
        ack_wait: Seconds a claim lasts unless renewed.
        fenced_ack: False to take the ack of a claim that has ended.
    """

    def __init__(self, ack_wait: float, *, fenced_ack: bool) -> None:
        self.redelivered = 0
        self.expired = 0
        self.stale = 0
        self._ack_wait = ack_wait
        self._fenced_ack = fenced_ack
        self._by_name: dict[str, Queue] = {}
        # Leases have one length, so the order of renewal is the order of their ends: no heap is needed.
        self._claims: OrderedDict[Entry, Node] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def ready(self) -> int:
        """Entries that wait."""
        return sum(len(queue.ready) for queue in self._by_name.values())

    @property
    def claimed(self) -> int:
        """Entries that are claimed."""
        return len(self._claims)

    def ids(self) -> list[str]:
        """Ids of the frames that wait or are claimed."""
        waiting = [entry.id for queue in self._by_name.values() for entry in queue.ready]
        return [*waiting, *(entry.id for entry in self._claims)]

    def waiting(self, name: str) -> Sequence[Entry]:
        """The entries of a queue that are not claimed, in order."""
        queue = self._by_name.get(name)
        return queue.ready if queue is not None else ()

    def remove(self, name: str, ids: Sequence[str]) -> None:
        """Delete the entries of these frames from a queue; claimed ones stay."""
        queue = self._by_name.get(name)
        if queue is not None:
            left = [entry for entry in queue.ready if entry.id not in ids]
            queue.ready.clear()
            queue.ready.extend(left)
            self._drop_if_unused(queue)

    def put(self, entry: Entry, now: float) -> None:
        """Add a new entry at the end of its queue.

        Raises:
            TransportError: The queue is full; the entry is not added.
        """
        queue = self._queue(entry.queue)
        if len(queue.ready) >= QUEUE_BOUND:
            raise TransportError(
                f"queue {queue.name!r} is full ({QUEUE_BOUND} frames ready): add nodes that serve it, or send slower"
            )
        queue.ready.append(entry)
        self._serve(queue, now)

    def look(self, node: Node, now: float) -> None:
        """Make `node`, which reads now, a server of the queues it left while it did not."""
        names, node.look = node.look, {}
        for name in names:
            queue = self._queue(name)
            queue.servers[node.address] = node
            self._serve(queue, now)

    def demand(self, node: Node, name: str, slots: int, now: float) -> None:
        """Let `node` claim at most `slots` further frames of the queue `name`; 0 stops it."""
        if slots <= 0:
            self._stop_serving(node, name)
            node.look.pop(name, None)
            node.demand.pop(name, None)
            return
        listed = name in node.demand
        node.demand[name] = slots
        if not listed:
            node.look[name] = None
            if node.reader is not None:
                self.look(node, now)

    def part(self, node: Node) -> None:
        """Pass `node` over until it reads again. Its demand and its claims stay."""
        for name in node.demand:
            self._stop_serving(node, name)
            node.look[name] = None

    def owns(self, node: Node, delivery: Delivery) -> bool:
        """Whether the claim that `delivery` stands for still is one, of `node`."""
        entry = _entry(delivery)
        return self._claims.get(entry) is node and entry.attempt == delivery.attempt

    def settle(self, node: Node, delivery: Delivery, how: Settlement, now: float) -> bool:
        """End a claim of `node`. False, and nothing done, if it had ended before."""
        self.expire(now)
        entry = _entry(delivery)
        if not self.owns(node, delivery):
            self.stale += 1
            return how is Settlement.ACK and not self._fenced_ack and self._delete_although_lost(entry)
        if how is Settlement.NAK:
            self.give_back([entry], now)
        else:
            self._release(entry)
            entry.move(EntryState.DELETED if how is Settlement.ACK else EntryState.DEAD)
        return True

    def extend(self, node: Node, deliveries: Sequence[Delivery], now: float) -> list[bool]:
        """Renew the leases of claims of `node`; False for each that had ended."""
        self.expire(now)
        renewed = [self.owns(node, delivery) for delivery in deliveries]
        for delivery, owned in zip(deliveries, renewed, strict=True):
            if owned:
                entry = _entry(delivery)
                entry.lease_end = now + self._ack_wait
                self._claims.move_to_end(entry)
        return renewed

    def expire(self, now: float) -> None:
        """End the claims whose leases have ended."""
        ended: list[Entry] = []
        for entry in self._claims:
            if entry.lease_end > now:
                break
            ended.append(entry)
        if ended:
            self.expired += len(ended)
            self.give_back(ended, now)

    def first_lease_end(self) -> float | None:
        """When the next lease ends; None without claims."""
        return next(iter(self._claims)).lease_end if self._claims else None

    def give_back(self, entries: Sequence[Entry], now: float) -> None:
        """End claims without a result: the entries go to the front of their queues, in the order given."""
        queues: dict[str, Queue] = {}
        for entry in reversed(entries):
            self._release(entry)
            entry.move(EntryState.READY)
            queue = queues[entry.queue] = self._queue(entry.queue)
            queue.ready.appendleft(entry)
        for queue in queues.values():
            self._serve(queue, now)

    def _queue(self, name: str) -> Queue:
        queue = self._by_name.get(name)
        if queue is None:
            queue = self._by_name[name] = Queue(name)
        return queue

    def _stop_serving(self, node: Node, name: str) -> None:
        queue = self._by_name.get(name)
        if queue is not None and queue.servers.pop(node.address, None) is not None:
            self._drop_if_unused(queue)

    def _drop_if_unused(self, queue: Queue) -> None:
        if not queue.ready and not queue.servers:
            self._by_name.pop(queue.name, None)

    def _serve(self, queue: Queue, now: float) -> None:
        while queue.ready and queue.servers:
            _, node = queue.servers.popitem(last=False)
            if node.reader is None or len(node.arrived) >= BATCH:
                node.look[queue.name] = None
                continue
            slots = node.demand.pop(queue.name) - 1
            if slots:
                node.demand[queue.name] = slots
                queue.servers[node.address] = node
            self._claim(queue.ready.popleft(), node, now)
        self._drop_if_unused(queue)

    def _claim(self, entry: Entry, node: Node, now: float) -> None:
        entry.move(EntryState.CLAIMED)
        entry.attempt += 1
        entry.lease_end = now + self._ack_wait
        self.redelivered += entry.attempt > 1
        self._claims[entry] = node
        node.claims[entry] = None
        node.arrived.append(Delivery("queue", entry.queue, entry.body, entry.attempt, entry))
        node.wake()

    def _release(self, entry: Entry) -> None:
        node = self._claims.pop(entry)
        del node.claims[entry]

    def _delete_although_lost(self, entry: Entry) -> bool:
        queue = self._by_name.get(entry.queue)
        if entry in self._claims:
            self._release(entry)
        elif queue is not None and entry in queue.ready:
            queue.ready.remove(entry)
            self._drop_if_unused(queue)
        else:
            return False
        entry.move(EntryState.DELETED)
        return True


def _entry(delivery: Delivery) -> Entry:
    if not isinstance(delivery.token, Entry):
        raise TypeError(f"a delivery of the lane {delivery.lane!r} is not a claim: nothing to settle or extend")
    return delivery.token
