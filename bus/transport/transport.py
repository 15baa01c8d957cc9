"""What a network must offer to carry a bus: the whole interface of a transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from enum import Enum
from typing import Literal, Protocol, runtime_checkable

import msgspec

from bus.local.dead_letters import KeepsDeadLetters

Lane = Literal["inbox", "queue", "everyone", "direct"]
"""A way for frames; see `Outgoing`."""


class Outgoing(msgspec.Struct, frozen=True):
    """One frame for the network.

    Attributes:
        lane: `inbox` reaches one node, `queue` one of the nodes that serve the queue, `everyone` all nodes; `direct`
            reaches one node that is connected, and is not stored.
        to: Address of the node, or name of the queue; empty for `everyone`.
        id: The frame's id. The network stores one frame per id within its deduplication window.
        body: The bytes.
        settles: A claim of the sender's, if this frame, to an inbox, is the answer to it: the claim is acknowledged
            when the frame is stored, not before.
    """

    lane: Lane
    to: str
    id: str
    body: bytes
    settles: Delivery | None = None


class Delivery(msgspec.Struct, frozen=True):
    """One frame handed over. A delivery from a queue is a claim that must be settled before its lease ends.

    Attributes:
        lane: Where it came from.
        queue: Name of the queue, empty for the other lanes.
        body: The bytes.
        attempt: 1 for the first delivery of a queued frame, one more for each redelivery: the fencing number.
        token: The transport's own handle of this claim.
        count: How often the frame was delivered, if `attempt` does not tell.
        since: When the lease began, on the clock of this process; 0 if not before `receive` was called.
    """

    lane: Lane
    queue: str
    body: bytes
    attempt: int = 1
    token: object = None
    count: int = 0
    since: float = 0.0


class Settlement(Enum):
    """How a claim ends."""

    ACK = "ack"
    """Done: the frame is deleted and never delivered again."""
    NAK = "nak"
    """Not done: the frame is delivered again at once, to whoever has a free slot."""
    TERM = "term"
    """Given up on: the frame goes to the dead letters and is never delivered again."""


class WaitingFrame(msgspec.Struct, frozen=True):
    """A frame in a queue: its place there, and the bytes."""

    place: str
    body: bytes


class WaitingFrames(Protocol):
    """What waits in one queue. Both methods may raise `TransportError`."""

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        """At most `most` frames, the oldest first; only such as follow the place `after`. Claimed ones may be left out.

        Raises:
            ValueError: `after` is no place.
        """

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out, for good. One that is claimed goes as well, or stays."""


Keep = Callable[[Sequence[Outgoing]], Awaitable[Container[object]]]
"""Takes frames for everyone and returns tokens of claims; see `Transport.keep`."""


class Transport(KeepsDeadLetters, Protocol):
    """How one node talks to the network.

    Guarantees asked of every transport:

    * What `send` returned for is stored: it is delivered at least once to a reader that is connected or comes back. If
      `send` raises `TransportError`, each frame may or may not be stored; the caller sends it again with the same id.
      Where one place takes no frames, those for other places are stored all the same: `PartlySentError` names the
      missing ones.
    * Frames of one sender to one inbox arrive in the order sent, except where a retry or the network reordered or
      doubled them.
    * A claim that a frame `settles` ends when the frame is stored, and only then: there is no moment at which the claim
      is gone and the answer is not there.
    * A frame of a queue is claimed by one node at a time. A claim whose lease (`ack_wait` seconds) is not renewed is
      given to another node, or the same, with `attempt + 1`.
    * Frames of `everyone` may be lost: nothing but membership and session control travels there.
    * Frames of `direct` may be lost with a connection at either end. Those of one sender to one node arrive in the
      order sent, except where the network reordered or doubled them.
    * A claim is handed over while its lease lasts, or not at all.
    * Where the network has lost what it had stored, `receive` raises `DataLostError`, once.

    Every method that is waited for may raise `TransportError`; none blocks for longer than a few seconds without
    returning or raising.
    """

    @property
    def ack_wait(self) -> float:
        """Seconds a claim lasts unless renewed; the same for all nodes of a network."""

    async def open(self, node: str) -> None:
        """Connect, and create the inbox of `node` (an address: a runner's name and incarnation)."""

    async def close(self) -> None:
        """Disconnect and drop the inbox. Claims still open are given back. Never raises."""

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """Store `frames`, in order. Returns when the network has accepted all of them."""

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        """Send frames of the lane `direct`, in order, each once: nothing says whether they arrive.

        If this raises `TransportError`, none of them was sent, and the caller may try again.
        """

    async def receive(self) -> Sequence[Delivery]:
        """Wait for frames to this node and of the queues in demand; empty after a second without any.

        Frames of the inbox are settled by being returned. The call is never cancelled half-way by the bus while the
        node lives: a frame taken by a cancelled call would be lost until its lease ends.
        """

    def demand(self, queue: str, slots: int) -> None:
        """From now on claim at most `slots` further frames of `queue`; 0 stops serving it."""

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        """End claims. False for each that was no longer ours: its lease ended and the frame went elsewhere.

        If this raises `TransportError`, each of them may have ended or not; the caller tries all of them again.
        """

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """Renew the leases of claims for another `ack_wait`. False for each that was no longer ours."""

    def waiting(self, queue: str) -> WaitingFrames:
        """What waits in a queue, served or not."""

    @property
    def keep(self) -> Keep | None:
        """Speaks for the node while its event loop is blocked. None where only that loop can reach the network.

        The function sends frames to everyone and renews every claim of the node, over a connection made for that alone.
        It is called from another thread, in an event loop of its own, and not twice at a time. It returns the tokens of
        the claims that are still the node's. If it raises `BusError`, some leases may be renewed; it is called again.
        """


@runtime_checkable
class Prompt(Protocol):
    """A transport that saves wake-ups for frames of the lane `direct`. It offers this beside `Transport`."""

    def hand_over(self, take: Callable[[Delivery], None]) -> None:
        """From now on call `take`, which must not raise, with each such frame, instead of returning it by `receive`."""

    def tell_at_once(self, frames: Sequence[Outgoing]) -> bool:
        """Send frames to one node now. False if they would have to wait, or cannot be sent; nothing was done then."""
