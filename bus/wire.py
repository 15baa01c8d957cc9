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
from bus.transport import Outgoing, Prompt, Transport

SHARE = 50
"""Frames that are written at once, so that others begin with them while more are made: a tenth to a third more jobs a
second with a hundred in flight."""


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
        self._prompt = transport if isinstance(transport, Prompt) else None
        self._heard = 0
        self._telling = False

    @property
    def waiting(self) -> int:
        """Frames that wait to be sent."""
        return len(self._frames)

    def put(self, frame: Outgoing, *, bounded: bool = False) -> None:
        """Send a frame soon. A `bounded` one takes a place: look whether there is `room` before.

        What follows on a single frame goes at once: nothing else is likely to come that could share its way.
        """
        if self._heard == 1 and self._prompt is not None and not self._frames:
            self._heard = 0
            if self._prompt.tell_at_once([frame]):
                return
        self.room.taken += bounded
        self._frames.append((frame, bounded))
        if len(self._frames) % SHARE == 0 and self._prompt is not None and not self._telling:
            self._tell_share(self._prompt)
        if self._waiter is not None:
            wake(self._waiter)

    def heard(self) -> None:
        """A frame has come."""
        self._heard += 1

    async def flush(self, seconds: float) -> None:
        """Wait until everything was sent, at most `seconds`."""
        with anyio.move_on_after(seconds):
            while self._frames:
                waiter = self._tasks.waiter()
                self._idle.append(waiter)
                await waiter

    def _tell_share(self, prompt: Prompt) -> None:
        """Write what waits, node by node, as far as it is taken at once."""
        nodes: dict[str, list[Outgoing]] = {}
        for frame, _ in self._frames:
            nodes.setdefault(frame.to, []).append(frame)
        told = {to for to, frames in nodes.items() if prompt.tell_at_once(frames)}
        for _ in range(len(self._frames)):
            frame, bounded = self._frames.popleft()
            if frame.to not in told:
                self._frames.append((frame, bounded))
            elif bounded:
                self.room.give()

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
                continue
            self._heard = 0
            count = min(len(self._frames), BATCH)
            self._telling = True
            try:
                await self._transport.tell([self._frames[index][0] for index in range(count)])
            except TransportError as error:
                failures += 1
                if failures == 1:
                    log().warning("the network is not connected; trying again", error=str(error))
                await anyio.sleep(BACKOFF.delay(failures, self._rng))
                continue
            finally:
                self._telling = False
            failures = 0
            for _ in range(count):
                if self._frames.popleft()[1]:
                    self.room.give()
