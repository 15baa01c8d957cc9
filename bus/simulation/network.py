"""A simulated network: links to one broker, on which frames come late, twice, in another order, or not at all."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, TypeVar

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from bus.errors import DataLostError, TransportError
from bus.local.dead_letters import DeadFrame
from bus.memory.broker import IDLE_WAIT, MemoryBroker
from bus.memory.queues import BATCH, Node
from bus.transport.transport import Delivery, Keep, Outgoing, Settlement, WaitingFrame

__all__ = ["NetworkStatistics", "SimulatedNetwork", "TraceEvent"]


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, how often and within which bounds. Without arguments nothing does.

    Attributes:
        drop: Probability that an operation's request, or its reply (half and half), is lost: the caller gets a
            `TransportError` after `timeout`, and the operation had no effect, or had it. Claims in a lost reply last
            until their leases end; frames of the inbox come again. Also the probability that a frame of `everyone`
            is lost on its way to one node, without an error, and that all frames of one `tell` are.
        duplicate: Probability that a frame of the lanes `inbox` and `everyone` is delivered twice.
        reorder: Probability that a frame is held back while later ones pass it.
        delay: Shortest and longest time an operation takes, and a frame on its way to its node, in seconds.
        timeout: Seconds after which a link tells its caller that there was no reply.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)
    timeout: float = 2.0

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability from 0 to 1, not {getattr(self, name)!r}")
        if not 0 <= self.delay[0] <= self.delay[1]:
            raise ValueError(f"delay must be a shortest and a longest time in seconds, not {self.delay!r}")
        if self.timeout <= 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout!r}")


T = TypeVar("T")

LEAST_HOLD = 0.1
"""Seconds up to which a reordered frame is held back where the delays are shorter: enough for others to overtake."""
MOST_HOLD = 1.0
"""Seconds up to which one is held back at most: on a slow network more would look like a death."""


class SimulatedTransport:
    """One node's link to a `SimulatedNetwork`, which makes it. It gives the guarantees of `Transport`.

    Frames it carries come in order unless `Faults.reorder` says otherwise. A cancelled `receive` loses nothing.
    """

    keep: Keep | None = None
    """None: a simulated node has no thread beside its event loop."""

    def __init__(self, network: SimulatedNetwork, label: str, rng: random.Random) -> None:
        self.label = label
        self._network = network
        self._rng = rng
        self._node: Node | None = None
        self._dead = anyio.Event()
        self._carried: list[tuple[float, int, float, Delivery]] = []
        self._number = 0
        self._last_due = 0.0
        self._unheard = False
        self._connected_to = network.starts
        self._claims_lost = False
        self._late: list[Callable[[], object]] = []

    @property
    def address(self) -> str:
        """Address of its node; empty if not open."""
        return "" if self._node is None else self._node.address

    @property
    def ack_wait(self) -> float:
        """Seconds a claim lasts unless renewed."""
        return self._network.broker.ack_wait

    async def open(self, node: str) -> None:
        """Connect, and create the inbox of `node`.

        Raises:
            TransportError: Lost, partitioned or killed; the inbox may exist.
        """

        def connect() -> None:
            self._node = self._network.broker.connect(node)

        await self._operate("open", node, connect)

    async def close(self) -> None:
        """Disconnect, drop the inbox and give back open claims: at once, or never if lost, partitioned or killed."""
        node, self._node = self._node, None
        if node is None or self._dead.is_set():
            return
        self._network.closed(self)
        if self._network.is_partitioned(self.label) or self._rng.random() < self._network.faults.drop:
            self._network.count("requests_lost")
            self._network.note(self.label, "close lost", node.address)
            self._network.broker.interrupt(node)
        else:
            self._network.count("operations")
            self._network.note(self.label, "close", node.address)
            self._network.broker.leave(node)

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """Store `frames`, in order.

        Raises:
            TransportError: Lost, partitioned, killed or refused; the frames may be stored, unless killed before.
        """
        detail = " ".join(f"{frame.lane}:{frame.to}:{frame.id}" for frame in frames)

        def store() -> None:
            self._network.broker.send(frames, self._connected())

        await self._operate("send", detail, store)

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        """Send frames of the lane `direct`, in order. Lost, or partitioned for less than a timeout, it says nothing.

        Raises:
            TransportError: Killed, not open, or partitioned; nothing was sent.
        """
        self._connected()
        lost = self._rng.random() < self._network.faults.drop
        await self._pass("tell", self._rng.uniform(*self._network.faults.delay) / 2)
        if self._network.is_partitioned(self.label) and self._unheard:
            await self._fail("tell", "requests_lost")
        self._unheard = self._network.is_partitioned(self.label)
        detail = " ".join(f"{frame.to}:{frame.id}" for frame in frames)
        if lost or self._unheard:
            self._network.count("direct_lost", len(frames))
            self._network.note(self.label, "tell lost", detail)
        else:
            self._network.note(self.label, "tell", detail)
            self._network.broker.tell(frames)

    async def receive(self) -> Sequence[Delivery]:
        """What has arrived, up to 256 frames; empty after a second without any.

        Raises:
            TransportError: Lost, partitioned or killed. Frames of the inbox come with a later call.
        """
        await checkpoint()
        end = anyio.current_time() + IDLE_WAIT
        lost = self._draw_loss()
        if lost == "request":
            await self._fail("receive", "requests_lost")
        while True:
            node = await self._reachable("receive")
            now = anyio.current_time()
            batch = self._arrived(now)
            if self._claims_lost and not batch:
                self._claims_lost = False
                raise TransportError(f"claims of {self.label!r} came too late")
            if batch:
                if lost == "reply":
                    self._carry_again(batch)
                    await self._fail("receive", "replies_lost")
                for delivery in batch:
                    self._network.note(self.label, "deliver", _describe(delivery))
                return batch
            if now >= end:
                return []
            until = min(end, self._carried[0][0]) if self._carried else end
            for delivery in await self._network.broker.receive(node, until - now):
                self._carry(delivery)

    def demand(self, queue: str, slots: int) -> None:
        """From now on claim at most `slots` further frames of `queue`; 0 stops serving it. Does nothing if not open."""
        if self._node is not None and not self._dead.is_set():
            self._network.note(self.label, "demand", f"{queue} {slots}")
            self._network.broker.demand(self._node, queue, slots)

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        """End claims in one round trip. False for each whose lease had ended.

        Raises:
            TransportError: Lost, partitioned or killed; the claims may have been settled, unless killed before.
        """
        detail = ", ".join(f"{how.value} {_describe(delivery)}" for delivery, how in settlements)

        def end_all() -> list[bool]:
            node = self._connected()
            return [self._network.broker.settle(node, delivery, how) for delivery, how in settlements]

        return await self._operate("settle", detail, end_all)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """Renew the leases of claims for another `ack_wait`. False for each that had ended.

        Raises:
            TransportError: Lost, partitioned or killed; the leases may have been renewed, unless killed before.
        """
        detail = ", ".join(_describe(delivery) for delivery in deliveries)
        return await self._operate("extend", detail, lambda: self._network.broker.extend(self._connected(), deliveries))

    @property
    def dead_frames(self) -> SimulatedDeadFrames:
        """What was given up on."""
        return SimulatedDeadFrames(self)

    def waiting(self, queue: str) -> SimulatedWaitingFrames:
        """What waits in a queue."""
        return SimulatedWaitingFrames(self, queue)

    def lose_direct(self) -> None:
        """For the network: lose the frames of the lane `direct` that were sent here and have not come."""
        if self._node is not None:
            self._network.broker.lose_direct(self._node)

    def let_late_arrive(self) -> None:
        """For the network: let that take effect which was sent into a black hole and is not lost."""
        late, self._late = self._late, []
        for effect in late if not self._dead.is_set() else ():
            with suppress(TransportError):
                effect()

    def interrupt(self) -> None:
        """For the network: let a `receive` under way see that the link has changed."""
        if self._node is not None:
            self._network.broker.interrupt(self._node)

    def die(self) -> None:
        """For the network: let nothing pass from now on."""
        self._dead.set()
        self.interrupt()

    async def _operate(self, event: str, detail: str, effect: Callable[[], T]) -> T:
        faults = self._network.faults
        travel = self._rng.uniform(*faults.delay) / 2
        lost = self._draw_loss()
        await self._pass(event, travel)
        if lost == "request" or self._network.is_partitioned(self.label):
            if self._network.comes_late(self.label) and self._rng.random() < 0.5:  # noqa: PLR2004 - half of them
                self._network.note(self.label, f"{event} late", detail)
                self._late.append(effect)
            await self._fail(event, "requests_lost")
        self._network.count("operations")
        self._network.note(self.label, event, detail)
        result = effect()
        await self._pass(event, travel)
        if lost == "reply" or self._network.is_partitioned(self.label):
            await self._fail(event, "replies_lost")
        return result

    async def _reachable(self, event: str) -> Node:
        if self._dead.is_set():
            # A loop that tries again at once must not stop the virtual clock.
            await anyio.sleep(self._network.faults.timeout)
            raise self._killed(event)
        if self._network.is_partitioned(self.label):
            await self._fail(event, "requests_lost")
        if self._connected_to != self._network.starts:
            self._connect_again(event)
        return self._connected()

    def _connect_again(self, event: str) -> None:
        """The broker was started again meanwhile: what was on its way is lost, claims with it."""
        emptied = self._connected_to < self._network.emptied
        self._connected_to = self._network.starts
        self._node = self._network.broker.connect(self._connected().address)
        self._carried = [carried for carried in self._carried if carried[3].lane == "inbox" and not emptied]
        heapq.heapify(self._carried)
        if emptied:
            raise DataLostError(f"{event} of {self.label!r}: the broker has lost what it had stored")
        raise TransportError(f"{event} of {self.label!r}: the connection was lost")

    async def _pass(self, event: str, seconds: float) -> None:
        await checkpoint()
        if seconds > 0:
            with anyio.move_on_after(seconds):
                await self._dead.wait()
        if self._dead.is_set():
            raise self._killed(event)

    async def _fail(self, event: str, counter: str) -> None:
        self._network.count(counter)
        self._network.note(self.label, f"{event} {counter.replace('_', ' ')}", "")
        await self._pass(event, self._network.faults.timeout)
        raise TransportError(f"{event} of {self.label!r} had no reply within {self._network.faults.timeout} s")

    def _killed(self, event: str) -> TransportError:
        return TransportError(f"{event} of {self.label!r}: its process was killed")

    def _connected(self) -> Node:
        if self._node is None:
            raise TransportError(f"the link of {self.label!r} is not open")
        return self._node

    def _draw_loss(self) -> Literal["request", "reply"] | None:
        if self._rng.random() >= self._network.faults.drop:
            return None
        return "request" if self._rng.random() < 0.5 else "reply"  # noqa: PLR2004 - half and half

    def _carry(self, delivery: Delivery) -> None:
        faults = self._network.faults
        if delivery.lane == "everyone" and self._rng.random() < faults.drop:
            self._network.count("everyone_lost")
            self._network.note(self.label, "everyone lost", _describe(delivery))
            return
        copies = 1
        if delivery.lane != "queue" and self._rng.random() < faults.duplicate:
            self._network.count("duplicated")
            self._network.note(self.label, "duplicate", _describe(delivery))
            copies = 2
        for _ in range(copies):
            due = self._last_due = max(self._last_due, anyio.current_time() + self._rng.uniform(*faults.delay))
            if self._rng.random() < faults.reorder:
                self._network.count("reordered")
                self._network.note(self.label, "reorder", _describe(delivery))
                due += self._rng.uniform(0, max(LEAST_HOLD, min(2 * faults.delay[1], MOST_HOLD)))
            self._push(due, delivery)

    def _carry_again(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            if delivery.lane == "inbox":
                self._push(0.0, delivery)

    def _push(self, due: float, delivery: Delivery) -> None:
        self._number += 1
        heapq.heappush(self._carried, (due, self._number, anyio.current_time(), delivery))

    def _arrived(self, now: float) -> list[Delivery]:
        batch: list[Delivery] = []
        while self._carried and self._carried[0][0] <= now and len(batch) < BATCH:
            _, _, since, delivery = heapq.heappop(self._carried)
            if delivery.lane != "queue" or now < since + self.ack_wait / 2:
                batch.append(delivery)
            else:
                self._claims_lost = True  # its lease may be over
        return batch

    def __repr__(self) -> str:
        state = "dead" if self._dead.is_set() else "closed" if self._node is None else "open"
        return f"<SimulatedTransport {self.label!r}: {state}, {len(self._carried)} frames on their way>"


class SimulatedDeadFrames:
    """The dead letters of a `SimulatedNetwork`, seen by way of a link. Errors are those of the link."""

    def __init__(self, link: SimulatedTransport) -> None:
        self._link = link

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` dead letters, the oldest first; only such as follow the place `after`."""
        broker = self._link._network.broker
        return await self._link._operate("dead", after, lambda: broker.dead_frames(most, after))

    async def discard(self, place: str) -> bool:
        """Throw a dead letter away. False if it was not there."""
        broker = self._link._network.broker
        return await self._link._operate("discard", place, lambda: broker.discard(place))


class SimulatedWaitingFrames:
    """What waits in one queue of a `SimulatedNetwork`, seen by way of a link. Errors are those of the link."""

    def __init__(self, link: SimulatedTransport, queue: str) -> None:
        self._link = link
        self._queue = queue

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        """At most `most` frames that are not claimed, the oldest first; only such as follow the place `after`."""
        broker = self._link._network.broker
        return await self._link._operate("look", self._queue, lambda: broker.waiting(self._queue, most, after))

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out; claimed ones stay."""
        broker = self._link._network.broker
        detail = f"{self._queue} {' '.join(places)}"
        await self._link._operate("remove", detail, lambda: broker.remove(self._queue, places))


def _describe(delivery: Delivery) -> str:
    if delivery.lane == "queue":
        return f"queue:{delivery.queue} attempt {delivery.attempt}, {len(delivery.body)} bytes"
    return f"{delivery.lane}, {len(delivery.body)} bytes"


TraceEvent = tuple[float, str, str, str]
"""Time, label of the node, what happened, to what."""


class NetworkStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a `SimulatedNetwork` has done so far.

    Attributes:
        links: Links that are neither closed nor killed.
        partitioned: Labels that are cut off now.
        kills: Links killed.
        operations: Operations that reached the broker.
        requests_lost: Operations that never did, by chance or by a partition.
        replies_lost: Operations that did, whose replies were lost.
        duplicated: Frames delivered twice.
        reordered: Frames held back.
        everyone_lost: Frames of `everyone` lost on their way to a node.
        direct_lost: Frames of `direct` lost with a connection at either end.
    """

    links: int
    partitioned: int
    kills: int
    operations: int
    requests_lost: int
    replies_lost: int
    duplicated: int
    reordered: int
    everyone_lost: int
    direct_lost: int


class SimulatedNetwork:
    """Links of several nodes to one broker, with faults drawn from a seed.

    Under a virtual clock and a seeded scheduler the same seed gives the same run, in another process too. Each link
    draws from a generator of its own, made from `rng` when the link is, so what happens on one does not change what
    is drawn on another.

    Args:
        rng: Where all chance comes from.
        faults: What goes wrong. May be replaced at any time through the attribute of this name.
        broker: Where the frames are kept; a new `MemoryBroker` if not given.
        trace: Called with each operation and fault, in order.
    """

    def __init__(
        self,
        rng: random.Random,
        faults: Faults,
        broker: MemoryBroker | None = None,
        trace: Callable[[TraceEvent], None] | None = None,
    ) -> None:
        self.faults = faults
        self.broker = MemoryBroker() if broker is None else broker
        self._rng = rng
        self._trace = trace
        self._links: dict[str, list[SimulatedTransport]] = {}
        self._partitioned: dict[str, bool] = {}
        self._down = False
        self.starts = 0
        """How often the broker was started again."""
        self.emptied = 0
        """The last of these starts that found nothing it had stored."""
        self._counts = dict.fromkeys(NetworkStatistics.__struct_fields__, 0)

    def transport(self, label: str) -> SimulatedTransport:
        """A new link for the node called `label`; after a kill, that of its next incarnation."""
        link = SimulatedTransport(self, label, random.Random(self._rng.getrandbits(64)))
        self._links.setdefault(label, []).append(link)
        return link

    def partition(self, label: str) -> None:
        """Cut off `label`: each operation under way or begun fails with `TransportError` after the timeout."""
        self._cut(label, late=False)

    def black_hole(self, label: str) -> None:
        """Let nothing flow to or from `label`, for now: of what it sends meanwhile some arrives when that is healed."""
        self._cut(label, late=True)

    def heal(self, label: str) -> None:
        """End the partition of `label`."""
        if label in self._partitioned:
            del self._partitioned[label]
            self.note(label, "heal", "")
            for link in self._links.get(label, ()):
                link.lose_direct()
                link.let_late_arrive()

    def stop_broker(self) -> None:
        """End the broker's process: nobody reaches it."""
        self._down = True
        self.note("broker", "stop", "")
        self.broker.restart()

    def start_broker(self, *, empty: bool = False) -> None:
        """Start the broker's process again, with what it had stored or `empty`."""
        self._down = False
        self.starts += 1
        if empty:
            self.emptied = self.starts
        self.broker.restart(empty=empty)
        self.note("broker", "start empty" if empty else "start", "")

    def kill(self, label: str) -> None:
        """Let the process of `label` be dead: nothing it does or was doing reaches the broker any more.

        What is left of it runs into `TransportError`; its claims end with their leases, its inbox stays with the
        broker until `broker.forget(address)` or until the broker finds it abandoned.
        """
        for link in self._links.pop(label, []):
            self.count("kills")
            self.note(label, "kill", link.address)
            link.die()

    def is_partitioned(self, label: str) -> bool:
        """Whether `label` is cut off, or there is no broker."""
        return self._down or label in self._partitioned

    def comes_late(self, label: str) -> bool:
        """Whether what `label` sends may arrive when its partition is healed."""
        return self._partitioned.get(label, False)

    def statistics(self) -> NetworkStatistics:
        """What the network has done so far."""
        links = sum(len(links) for links in self._links.values())
        return NetworkStatistics(**{**self._counts, "links": links, "partitioned": len(self._partitioned)})

    def note(self, label: str, event: str, detail: str) -> None:
        """Tell the trace."""
        if self._trace is not None:
            self._trace((anyio.current_time(), label, event, detail))

    def count(self, what: str, number: int = 1) -> None:
        """Add to a field of the statistics."""
        self._counts[what] += number

    def closed(self, link: SimulatedTransport) -> None:
        """Forget a link that closed."""
        links = self._links.get(link.label, [])
        if link in links:
            links.remove(link)
            if not links:
                del self._links[link.label]

    def _cut(self, label: str, *, late: bool) -> None:
        self._partitioned[label] = late
        self.note(label, "black hole" if late else "partition", "")
        for link in self._links.get(label, ()):
            link.lose_direct()
            link.interrupt()

    def __repr__(self) -> str:
        return f"<SimulatedNetwork: {len(self._links)} labels, {len(self._partitioned)} partitioned>"
