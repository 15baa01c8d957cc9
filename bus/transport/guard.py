"""The guard around a transport: whatever fails in it is an outage, which is reported and tried again."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from bus.errors import BusError, TransportError
from bus.local.dead_letters import DeadFrames
from bus.log import log, text_of
from bus.transport.transport import Delivery, Keep, Outgoing, Prompt, Settlement, Transport, WaitingFrame, WaitingFrames

T = TypeVar("T")


@runtime_checkable
class Leaves(Protocol):
    """A transport that can leave its connection. It offers this beside `Transport`."""

    async def leave(self) -> None:
        """Drop the connection, which is made anew when it is needed: nobody could say what still comes over it."""


class GuardedTransport:
    """A transport as the loops of a session use it: each failure is a `TransportError`.

    A server, or what stands between, may send what nobody can read. It shows wherever a reply is looked at, as an error
    of any type. Here, and nowhere else, that ends the connection and not the loop: the error is logged, the connection
    is left, and who called tries again, as in any outage.

    Args:
        transport: The network.

    Attributes:
        unreadable: How often something failed in a way that no transport foresees.
    """

    def __init__(self, transport: Transport) -> None:
        self.unreadable = 0
        self._transport = transport
        if isinstance(transport, Prompt):
            self.hand_over = transport.hand_over
            self.tell_at_once = transport.tell_at_once

    @property
    def ack_wait(self) -> float:
        """See `Transport`."""
        return self._transport.ack_wait

    @property
    def keep(self) -> Keep | None:
        """See `Transport`."""
        return self._transport.keep

    @property
    def dead_frames(self) -> DeadFrames:
        """See `Transport`."""
        return self._transport.dead_frames

    async def open(self, node: str) -> None:
        """See `Transport`. Nothing has worked yet: what is no `TransportError` here is raised, and ends the start."""
        await self._transport.open(node)

    async def close(self) -> None:
        """See `Transport`."""
        await self._transport.close()

    async def send(self, frames: Sequence[Outgoing]) -> None:
        """See `Transport`."""
        await self.guarded(self._transport.send(frames))

    async def tell(self, frames: Sequence[Outgoing]) -> None:
        """See `Transport`."""
        await self.guarded(self._transport.tell(frames))

    async def receive(self) -> Sequence[Delivery]:
        """See `Transport`."""
        return await self.guarded(self._transport.receive())

    def demand(self, queue: str, slots: int) -> None:
        """See `Transport`."""
        self._transport.demand(queue, slots)

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        """See `Transport`."""
        return await self.guarded(self._transport.settle(settlements))

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """See `Transport`."""
        return await self.guarded(self._transport.extend(deliveries))

    def waiting(self, queue: str) -> WaitingFrames:
        """See `Transport`."""
        return _GuardedFrames(self, self._transport.waiting(queue))

    async def guarded(self, operation: Awaitable[T]) -> T:
        """Wait for an operation of the transport."""
        try:
            return await operation
        except TransportError:
            raise
        except Exception as error:
            raise await self._outage(error) from error

    async def _outage(self, error: Exception) -> TransportError:
        """Leave the connection for an error of any type; returns the one that says so."""
        words = str(error) if isinstance(error, BusError) else text_of(error)
        if not isinstance(error, BusError):
            self.unreadable += 1
            log().warning("what came over the network cannot be read; the connection is made anew", exc_info=error)
        if isinstance(self._transport, Leaves):
            await self._transport.leave()
        return TransportError(words)

    def __repr__(self) -> str:
        return f"<GuardedTransport: {self.unreadable} unreadable, of {self._transport!r}>"


class _GuardedFrames:
    """What waits in a queue, by way of a guarded transport."""

    def __init__(self, guard: GuardedTransport, frames: WaitingFrames) -> None:
        self._guard = guard
        self._frames = frames

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        return await self._guard.guarded(self._frames.oldest(most, after))

    async def discard(self, places: Sequence[str]) -> None:
        await self._guard.guarded(self._frames.discard(places))
