"""A simulated network: the in-memory broker behind links that delay, lose, double and reorder, as a seed decides."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
import msgspec

from bus.faults import Faults
from bus.simulated_link import SimulatedTransport
from bus.transports.broker import MemoryBroker

__all__ = ["Faults", "NetworkStatistics", "SimulatedNetwork", "SimulatedTransport", "TraceEvent"]

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
        replies_lost: Operations that did, without their caller being told.
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
