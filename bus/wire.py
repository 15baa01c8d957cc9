"""What goes straight to other nodes: one queue, one writer, each frame sent once."""

from __future__ import annotations

from collections import deque
from random import Random

import anyio

from bus.errors import TransportError
from bus.events import log
from bus.mailbox import Room
from bus.outbox import BACKOFF, BATCH, CAPACITY
from bus.tasks import Tasks, Waiter, wake
from bus.transport import Outgoing, Transport


class Wire:
    """Frames of the lane `direct`, in the order they were posted.

    They wait while there is no connection. Once one was sent it is never sent again, whether it arrived or not.
    Requests take room; answers and events are bounded by their jobs.
    """

    def __init__(self, transport: Transport, tasks: Tasks, rng: Random) -> None:
        self.room = Room("the network", CAPACITY, tasks)
        self._transport = transport
        self._tasks = tasks
        self._rng = rng
        self._frames: deque[tuple[Outgoing, bool]] = deque()
        self._waiter: Waiter | None = None
        self._idle: list[Waiter] = []

    @property
    def waiting(self) -> int:
        """Frames that wait to be sent."""
        return len(self._frames)

    @property
    def full(self) -> bool:
        """Whether senders that can wait have to."""
        return self.room.taken >= self.room.capacity

    def put(self, frame: Outgoing, *, bounded: bool = False) -> None:
        """Send a frame soon. A `bounded` one takes a place: look whether it is `full` before."""
        self.room.taken += bounded
        self._frames.append((frame, bounded))
        if self._waiter is not None:
            wake(self._waiter)

    async def flush(self, seconds: float) -> None:
        """Wait until everything was sent, at most `seconds`."""
        with anyio.move_on_after(seconds):
            while self._frames:
                waiter = self._tasks.waiter()
                self._idle.append(waiter)
                await waiter

    async def run(self) -> None:
        """Send until cancelled."""
        failures = 0
        while True:
            if not self._frames:
                for waiter in self._idle:
                    wake(waiter)
                self._idle.clear()
                self._waiter = self._tasks.waiter()
                await self._waiter
                self._waiter = None
            count = min(len(self._frames), BATCH)
            try:
                await self._transport.tell([self._frames[index][0] for index in range(count)])
            except TransportError as error:
                failures += 1
                if failures == 1:
                    log().warning("the network is not connected; trying again", error=str(error))
                await anyio.sleep(BACKOFF.delay(failures, self._rng))
                continue
            failures = 0
            for _ in range(count):
                if self._frames.popleft()[1]:
                    self.room.give()
