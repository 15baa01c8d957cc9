"""What the readers of one run in this process share: one of them looks at the database, for all."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable

import anyio

from actors.runs.errors import RunStoreError
from actors.runs.run import RunEvent

KEPT = 256
"""Events that are kept for readers that are a little behind; who is farther behind reads for itself."""


class Feed:
    """The latest events of a run.

    Args:
        look: Waits until there is something behind a place, and returns it, the place behind it, and whether it was the
            end of the run.
        place: Where to begin.
    """

    def __init__(self, look: Callable[[int], Awaitable[tuple[list[RunEvent], int, bool]]], place: int) -> None:
        self._look = look
        self._place = place
        self._first = place
        self._events: list[RunEvent] = []
        self._looking: _Look | None = None
        self.ended = False

    def has(self, offset: int) -> bool:
        """Whether all events from an offset on are here, or come."""
        return offset >= self._first

    def since(self, offset: int) -> list[RunEvent]:
        """The events here from an offset on."""
        return self._events[bisect_left(self._events, offset, key=lambda event: event.offset) :]

    async def more(self) -> None:
        """Wait until there may be more, or the run has ended.

        Raises:
            RunStoreError: The store does not answer.
            RunNotFoundError: The run was deleted.
        """
        look = self._looking
        if look is not None:
            await look.over.wait()
            if look.error is not None:
                raise RunStoreError(str(look.error)) from look.error
            return
        look = self._looking = _Look()
        try:
            events, self._place, self.ended = await self._look(self._place)
            self._events += events
            if len(self._events) > 2 * KEPT:
                del self._events[:-KEPT]
                self._first = self._events[0].offset
        except RunStoreError as error:
            look.error = error
            raise
        finally:
            # Those that wait go on; if it was cancelled, one of them looks.
            self._looking = None
            look.over.set()


class _Look:
    def __init__(self) -> None:
        self.over = anyio.Event()
        self.error: RunStoreError | None = None
