"""Somebody on the network between a node and its broker, who sees every frame and sends more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.transport.transport import Delivery, Outgoing, Settlement

Forger = Callable[[Outgoing], bytes | None]


class Interceptor(MemoryTransport):
    """Sends a forged copy ahead of every frame of its node, by the same way, and loses what it is told to.

    Args:
        broker: Where the frames are kept.
        forge: Makes the body of the copy; None sends none.
    """

    def __init__(self, broker: MemoryBroker, forge: Forger | None = None) -> None:
        super().__init__(broker)
        self.forge = forge
        self.lose: Callable[[Delivery], bool] = lambda _delivery: False
        self.sent: list[Outgoing] = []
        self.received: list[Delivery] = []
        self.forged: dict[bytes, None] = {}

    async def send(self, frames: Sequence[Outgoing]) -> None:
        self.sent += frames
        both: list[Outgoing] = []
        for frame in frames:
            body = self.forge(frame) if self.forge is not None else None
            if body is not None:
                self.forged[body] = None
                both.append(msgspec.structs.replace(frame, id=f"forged-{frame.id}", body=body, settles=None))
            made_up = frame.settles is not None and frame.settles.token is None  # by a test
            both.append(msgspec.structs.replace(frame, settles=None) if made_up else frame)
        await super().send(both)

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        real = [each for each in settlements if each[0].token is not None]  # the others were made up by a test
        settled = iter(await super().settle(real))
        return [delivery.token is not None and next(settled) for delivery, _ in settlements]

    async def receive(self) -> Sequence[Delivery]:
        deliveries = [delivery for delivery in await super().receive() if not self.lose(delivery)]
        self.received += deliveries
        return deliveries
