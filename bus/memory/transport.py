"""The transport inside one process: `memory://name`."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from anyio.lowlevel import checkpoint

from bus.errors import InvalidNameError, TransportError
from bus.local.dead_letters import DeadFrame
from bus.memory.broker import MemoryBroker
from bus.memory.queues import Node
from bus.transport.transport import Delivery, Keep, Outgoing, Settlement, WaitingFrame

__all__ = ["MemoryTransport", "broker"]


_brokers: WeakValueDictionary[str, MemoryBroker] = WeakValueDictionary()


def broker(name: str) -> MemoryBroker:
    """The broker that `memory://name` stands for in this process; made on first use, gone with its last user.

    Raises:
        InvalidNameError: `name` is empty. Nothing was made.
    """
    if not name:
        raise InvalidNameError("memory broker", name)
    found = _brokers.get(name)
    if found is None:
        found = _brokers[name] = MemoryBroker()
    return found


class MemoryDeadFrames:
    """The dead letters of a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` dead letters, the oldest first; only such as follow the place `after`."""
        await checkpoint()
        return self._broker.dead_frames(most, after)

    async def discard(self, place: str) -> bool:
        """Throw a dead letter away. False if it was not there."""
        await checkpoint()
        return self._broker.discard(place)


class MemoryWaitingFrames:
    """What waits in one queue of a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, queue: str) -> None:
        self._broker = broker
        self._queue = queue

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        """At most `most` frames that are not claimed, the oldest first; only such as follow the place `after`."""
        await checkpoint()
        return self._broker.waiting(self._queue, most, after)

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out; claimed ones stay."""
        await checkpoint()
        self._broker.remove(self._queue, places)


class MemoryTransport:
    """One node's way to a `MemoryBroker`. It gives every guarantee of `Transport`; settlements are fenced.

    Beyond those guarantees: a cancelled call never loses a frame.

    Args:
        broker: Where the frames are kept. Nodes meet if they share it.
    """

    keep: Keep | None = None
    """None: the broker is reached from one event loop alone."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._node: Node | None = None

    @property
    def ack_wait(self) -> float:
        """Seconds a claim lasts unless renewed."""
        return self._broker.ack_wait

    @property
    def dead_frames(self) -> MemoryDeadFrames:
        """What was given up on."""
        return MemoryDeadFrames(self._broker)

    def waiting(self, queue: str) -> MemoryWaitingFrames:
        """What waits in a queue."""
        return MemoryWaitingFrames(self._broker, queue)

    async def open(self, node: str) -> None:
        """Connect, and create the inbox of `node`."""
        await checkpoint()
        self._node = self._broker.connect(node)

    async def close(self) -> None:
        """Disconnect, drop the inbox and give back open claims, also when cancelled. Never raises."""
        node, self._node = self._node, None
        if node is not None:
            self._broker.leave(node)

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """Store `frames`, in order.

        Raises:
            TransportError: Not open, or an inbox or queue is full; the frames for others are stored.
        """
        await checkpoint()
        self._broker.send(frames, self._connected())

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        """Send frames of the lane `direct`, in order; those for a node that is not there, or is full, are lost.

        Raises:
            TransportError: Not open; nothing was sent.
        """
        await checkpoint()
        self._connected()
        self._broker.tell(frames)

    async def receive(self) -> Sequence[Delivery]:
        """Everything there is, up to 256 frames; empty after a second without any.

        Raises:
            TransportError: Not open.
        """
        await checkpoint()
        return await self._broker.receive(self._connected())

    def demand(self, queue: str, slots: int) -> None:
        """From now on claim at most `slots` further frames of `queue`; 0 stops serving it. Does nothing if not open."""
        if self._node is not None:
            self._broker.demand(self._node, queue, slots)

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        """End claims. False for each whose lease had ended.

        Raises:
            TransportError: Not open.
        """
        await checkpoint()
        node = self._connected()
        return [self._broker.settle(node, delivery, how) for delivery, how in settlements]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """Renew the leases of claims for another `ack_wait`. False for each that had ended.

        Raises:
            TransportError: Not open.
        """
        await checkpoint()
        return self._broker.extend(self._connected(), deliveries)

    def _connected(self) -> Node:
        if self._node is None:
            raise TransportError("the transport is not open")
        return self._node

    def __repr__(self) -> str:
        return f"<MemoryTransport: {self._node!r}>" if self._node is not None else "<MemoryTransport: not open>"
