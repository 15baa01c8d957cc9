"""What a process has yet to send: one queue, one writer, everything that waits in one flush."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import anyio
import msgspec

from bus.errors import TransportError
from bus.events import log
from bus.mailbox import Room
from bus.retry import Backoff
from bus.tasks import Tasks, Waiter, wake
from bus.transport import Delivery, Outgoing, Settlement, SettlesTogether, Transport

CAPACITY = 10_000
"""Requests and messages of users that may wait for the network; answers and events are bounded by their jobs."""

BATCH = 256
"""Frames of one flush."""

BACKOFF = Backoff(first=0.05, limit=2.0, jitter=0.5)


class OutboxStatistics(msgspec.Struct, frozen=True):
    """A snapshot of an `Outbox`: frames and settlements waiting, frames sent, and flushes that failed."""

    frames: int
    settlements: int
    sent: int
    failures: int


class _Item(msgspec.Struct):
    frame: Outgoing
    accepted: Callable[[], None] | None
    bounded: bool


class Outbox:
    """Frames in the order they were posted, sent again with the same id until the network has accepted them."""

    def __init__(self, transport: Transport, tasks: Tasks, rng: Random) -> None:
        self.room = Room("the network", CAPACITY, tasks)
        self._transport = transport
        self._together = transport if isinstance(transport, SettlesTogether) else None
        self._tasks = tasks
        self._rng = rng
        self._items: deque[_Item] = deque()
        self._settlements: deque[tuple[Delivery, Settlement, float]] = deque()
        self._waiter: Waiter | None = None
        self._idle: list[Waiter] = []
        self._sent = 0
        self._failures = 0
        self._closing = False

    @property
    def full(self) -> bool:
        """Whether senders that can wait have to."""
        return self.room.taken >= self.room.capacity

    def put(self, frame: Outgoing, accepted: Callable[[], None] | None = None, *, bounded: bool = False) -> None:
        """Send a frame soon, then call `accepted`. A `bounded` one takes a place: look whether it is `full` before."""
        if bounded:
            self.room.taken += 1
        self._items.append(_Item(frame, accepted, bounded))
        self._wake()

    def settle(self, delivery: Delivery, how: Settlement, until: float) -> None:
        """End a claim; tried until the clock says `until`, when its lease has ended anyway."""
        self._settlements.append((delivery, how, until))
        self._wake()

    def statistics(self) -> OutboxStatistics:
        """How much waits now."""
        return OutboxStatistics(len(self._items), len(self._settlements), self._sent, self._failures)

    async def flush(self, seconds: float) -> None:
        """Wait until everything was sent, at most `seconds`."""
        with anyio.move_on_after(seconds):
            while self._items or self._settlements:
                waiter = self._tasks.waiter()
                self._idle.append(waiter)
                await waiter

    async def run(self) -> None:
        """Send until cancelled."""
        failures = 0
        while True:
            if not self._items and not self._settlements:
                for waiter in self._idle:
                    wake(waiter)
                self._idle.clear()
                self._waiter = self._tasks.waiter()
                await self._waiter
                self._waiter = None
            try:
                await self._send()
                await self._settle()
                failures = 0
            except TransportError as error:
                failures += 1
                self._failures += 1
                if failures == 1:
                    log().warning("the network does not accept frames; trying again", error=str(error))
                await anyio.sleep(BACKOFF.delay(failures, self._rng))

    async def _send(self) -> None:
        while self._items:
            batch = [self._items[index] for index in range(min(len(self._items), BATCH))]
            await self._transport.send([item.frame for item in batch])
            self._sent += len(batch)
            for item in batch:
                self._items.popleft()
                if item.bounded:
                    self.room.give()
                if item.accepted is not None:
                    item.accepted()

    async def _settle(self) -> None:
        while self._settlements:
            now, count = self._tasks.now(), min(len(self._settlements), BATCH if self._together is not None else 1)
            batch = [self._settlements[index] for index in range(count)]
            lasting = [(delivery, how) for delivery, how, until in batch if now < until]
            if self._together is not None:
                await self._together.settle_all(lasting)
            elif lasting:
                await self._transport.settle(*lasting[0])
            for _ in batch:
                self._settlements.popleft()

    def _wake(self) -> None:
        if self._waiter is not None:
            wake(self._waiter)
