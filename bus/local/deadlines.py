"""Deadlines: many instants, one sleeping task."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

import anyio
import msgspec

from bus.local.tasks import Tasks, Waiter, wake
from bus.log import log, text_of

_MIN_COMPACT = 64


class Deadline(msgspec.Struct, eq=False):
    """One instant at which a callback is due, until it is cancelled.

    Attributes:
        when: The instant.
    """

    when: float
    _callback: Callable[[], None] | None
    _deadlines: Deadlines

    def cancel(self) -> None:
        """Forget the callback. Does nothing if it was called or cancelled before."""
        if self._callback is not None:
            self._callback = None
            self._deadlines.forget()


class DeadlineStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Deadlines`: armed ones, and cancelled ones not yet swept (at most as many, or 64)."""

    armed: int
    cancelled: int


class Deadlines:
    """A heap of deadlines and the loop that serves it.

    Arming costs a heap push of a tuple and cancelling a flag; cancelled entries are swept when they outnumber the armed
    ones, so memory is bounded by twice what is armed.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._heap: list[tuple[float, int, Deadline]] = []
        self._dead = 0
        self._order = 0
        self._waiter: Waiter | None = None
        self._sleeps_until = 0.0

    def add(self, when: float, callback: Callable[[], None]) -> Deadline:
        """Call `callback` once the clock has reached `when`, unless it is cancelled before."""
        self._order += 1
        deadline = Deadline(when, callback, self)
        heappush(self._heap, (when, self._order, deadline))
        if self._waiter is not None and when < self._sleeps_until:
            wake(self._waiter)
        return deadline

    def after(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Call `callback` in `seconds`."""
        return self.add(self._tasks.now() + seconds, callback)

    def statistics(self) -> DeadlineStatistics:
        """How many deadlines there are now."""
        return DeadlineStatistics(armed=len(self._heap) - self._dead, cancelled=self._dead)

    async def run(self) -> None:
        """Serve the deadlines until cancelled."""
        while True:
            self._call_due()
            self._sleeps_until = self._heap[0][0] if self._heap else float("inf")
            self._waiter = self._tasks.waiter()
            try:
                with anyio.CancelScope(deadline=self._sleeps_until):
                    await self._waiter
            finally:
                self._waiter = None

    def _call_due(self) -> None:
        now = self._tasks.now()
        while self._heap and self._heap[0][0] <= now:
            deadline = heappop(self._heap)[2]
            callback, deadline._callback = deadline._callback, None
            if callback is None:
                self._dead -= 1
                continue
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - one callback's defect must not stop the others
                log().error("deadline callback failed", error=text_of(error), exc_info=True)

    def forget(self) -> None:
        """One was cancelled: sweep when those outnumber the others."""
        self._dead += 1
        if self._dead > _MIN_COMPACT and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2]._callback is not None]
            heapify(self._heap)
            self._dead = 0
