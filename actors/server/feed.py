"""What happens in the fleet, for any number of readers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import msgspec

KEPT = 1_000
"""Events kept for readers that come back, or are slow. Each costs what it says, whatever the number of readers."""


class FleetEvent(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        type: `worker_ready`, `worker_changed`, `worker_lost`, `job_started`, `job_completed`, `job_failed`, the type of
            a run's event, or `missed`: that many events (`data`, None if nobody knows) are not shown. They came while
            this reader did not read, and are not kept any more; or a runner had too many to tell.
        at: Unix time; of a job or a run, by the clock of who does it.
        data: What is known of it.
    """

    type: str
    at: float
    data: Any


class Feed:
    """Keeps the last events and wakes who waits for more. A slow reader costs nothing but its place.

    Args:
        life: Tells the ids of this server's life from those of another.
    """

    def __init__(self, life: str) -> None:
        self._life = life
        self._events: deque[FleetEvent] = deque(maxlen=KEPT)
        self._count = 0
        self._news = anyio.Event()
        self.readers = 0

    def put(self, event: FleetEvent) -> None:
        """Something happened."""
        self._events.append(event)
        self._count += 1
        news, self._news = self._news, anyio.Event()
        news.set()

    def read(self, after: str | None = None) -> AsyncGenerator[tuple[str, FleetEvent], None]:
        """The events after an id; without one, those that come from now on. Each with its own id, in order."""
        life, _, number = (after or "").rpartition("-")
        place = self._count
        missed = 0
        if life == self._life and number.isdecimal() and len(number) < 16:  # noqa: PLR2004 - more is none of ours
            place = min(int(number), self._count)
        elif after:
            missed = -1  # nobody knows how many: they were another life's
        return self._read(place, missed)

    async def _read(self, place: int, missed: int) -> AsyncGenerator[tuple[str, FleetEvent], None]:
        self.readers += 1
        try:
            while True:
                oldest = self._count - len(self._events)
                if place < oldest:
                    missed, place = oldest - place, oldest
                if missed:
                    known = missed if missed > 0 else None
                    yield f"{self._life}-{place}", FleetEvent("missed", 0.0, known)
                    missed = 0
                elif place < self._count:
                    event = self._events[place - oldest]
                    place += 1
                    yield f"{self._life}-{place}", event
                else:
                    await self._news.wait()
        finally:
            self.readers -= 1
