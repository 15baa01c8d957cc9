"""A node under test, which does by hand what a bus does with its transport."""

from __future__ import annotations

import anyio

from bus.transport import Delivery, Lane, Outgoing, Transport

PATIENCE = 30.0
"""Seconds, beyond two leases, after which a check gives up on frames that do not come."""


class Probe:
    """A transport under test, and what it has seen: a network may double frames that come to one node."""

    def __init__(self, address: str, transport: Transport, ack_wait: float) -> None:
        self.address = address
        self.transport = transport
        self.ack_wait = ack_wait
        self._sent = 0
        self._seen: dict[tuple[Lane, bytes], None] = {}

    async def send(self, lane: Lane, to: str, *bodies: bytes) -> None:
        """Send frames of one lane together."""
        frames = [Outgoing(lane, to, f"{self.address}-{self._sent + n}", body) for n, body in enumerate(bodies)]
        self._sent += len(frames)
        await (self.transport.tell(frames) if lane == "direct" else self.transport.send(frames))

    async def receive(self) -> tuple[bool, list[Delivery]]:
        """Whether there was nothing at all, and what was new."""
        batch = await self.transport.receive()
        new: list[Delivery] = []
        for delivery in batch:
            key = (delivery.lane, delivery.body)
            if delivery.lane == "queue" or key not in self._seen:
                new.append(delivery)
                self._seen[key] = None
        return not batch, new

    async def take(self, count: int) -> list[Delivery]:
        """The next deliveries: at least `count`, so that one too many is seen."""
        give_up = anyio.current_time() + 2 * self.ack_wait + PATIENCE
        taken: list[Delivery] = []
        while len(taken) < count:
            taken += (await self.receive())[1]
            require(
                len(taken) >= count or anyio.current_time() < give_up,
                f"node {self.address!r} got {len(taken)} of {count} deliveries",
            )
        return taken

    async def take_one(self) -> Delivery:
        """The next delivery, which must come alone."""
        taken = await self.take(1)
        equal(len(taken), 1)
        return taken[0]

    async def drain(self) -> list[Delivery]:
        """What arrives before a frame that the node sends to itself now."""
        last = b"last of %d" % self._sent
        await self.send("inbox", self.address, last)
        taken: list[Delivery] = []
        while not any(delivery.body == last for delivery in taken):
            taken += await self.take(1)
        return [delivery for delivery in taken if delivery.body != last]

    async def rest(self) -> list[Delivery]:
        """What arrives before nothing does for as long as `receive` waits."""
        taken: list[Delivery] = []
        idle = False
        while not idle:
            idle, new = await self.receive()
            taken += new
        return taken


def require(condition: bool, otherwise: str) -> None:
    """Fail unless something holds."""
    if not condition:
        raise AssertionError(otherwise)


def equal(got: object, expected: object) -> None:
    """Fail unless two things are equal."""
    require(got == expected, f"got {got!r} instead of {expected!r}")
