"""The readers of events, who share the looks at the database."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self
from weakref import WeakValueDictionary

import anyio

from actors.runs.errors import RunStoreError
from actors.runs.run import RunEvent
from actors.runs.stores.event_log import EventLog
from actors.runs.stores.ledger import MOST_KEYS, Changes, Entry
from actors.runs.stores.record import Record

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


FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0
"""Seconds between two looks at a run that another process may change, each longer than the one before as long as there
is nothing new; changes of this process are seen at once."""


class Readers:
    """Reads the events of runs: what there is, and what comes. All that wait for one run make one look at a time.

    Args:
        log: The events.
        changes: Tells of changes in this process.
        record: Reads the record of a run.
    """

    def __init__(
        self, log: EventLog, changes: Changes, record: Callable[[str], Awaitable[tuple[Record, Entry]]]
    ) -> None:
        self._log = log
        self._changes = changes
        self._record = record
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()

    def wake(self) -> None:
        """Let those that wait look again."""
        for run_id in tuple(self._feeds):
            self._changes.note(run_id)

    async def events(self, run_id: str, after: int, limit: int) -> list[RunEvent]:
        """See `RunStore.events`."""
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit!r}")
        record, _ = await self._record(run_id)
        place = await self._log.place(run_id, after)
        found: list[RunEvent] = []
        while len(found) < limit:
            events, place, ended = await self._page(record, place, limit - len(found))
            found += [event for event in events if event.offset > after]
            if ended or not events:
                break
        return found

    def stream(self, run_id: str, after: int) -> RunEvents:
        """See `RunStore.stream`."""
        return RunEvents(self, run_id, after)

    async def _join(self, run_id: str, after: int) -> tuple[Feed, int]:
        """What the readers of a run share, and the place in it behind an offset."""
        await self._record(run_id)
        place = await self._log.place(run_id, after)
        feed = self._feeds.get(run_id)
        if feed is None:
            feed = self._feeds[run_id] = Feed(lambda place: self._look(run_id, place), place)
        return feed, place

    async def _look(self, run_id: str, place: int) -> tuple[list[RunEvent], int, bool]:
        """Wait until there is something behind a place in the events of a run, or the run has ended there."""
        wait = FIRST_WAIT
        while True:
            change = self._changes.next(run_id)
            record, _ = await self._record(run_id)
            events, place, ended = await self._page(record, place, MOST_KEYS)
            if events or ended:
                return events, place, ended
            with anyio.move_on_after(wait):
                await change.wait()
            wait = min(2 * wait, LONGEST_WAIT)

    async def _page(self, record: Record, place: int, limit: int) -> tuple[list[RunEvent], int, bool]:
        """The events behind a place, the place behind them, and whether that is the end of the run."""
        status = record.status
        events, behind = await self._log.page(status.run_id, place, limit)
        if not events and status.state.terminal and behind == place:
            await self._log.close(record)  # who ended it may have died before
            events, behind = await self._log.page(status.run_id, place, limit)
            if not events:
                # A run is deleted before its events: if they are missing because of that, it is missing too.
                await self._record(status.run_id)
                return [], behind, True
        return events, behind, bool(events) and events[-1].type.terminal


class RunEvents:
    """The events of a run behind an offset, as they come.

    It has nothing that must be closed: who has heard enough leaves it. After it was cancelled, or raised, it goes on.

    Args:
        readers: Reads them.
        run_id: Of which run.
        after: The offset.
    """

    def __init__(self, readers: Readers, run_id: str, after: int) -> None:
        self._readers = readers
        self._run_id = run_id
        self._after = after
        self._feed: Feed | None = None
        self._place = 0
        self._ready: deque[RunEvent] = deque()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        while True:
            while self._ready:
                event = self._ready.popleft()
                self._ended = event.type.terminal
                if event.offset > self._after:
                    self._after = event.offset
                    return event
            if self._ended:
                raise StopAsyncIteration
            await self._fetch()

    async def _fetch(self) -> None:
        """Get what there is behind the place, or wait once until there may be more."""
        if self._feed is None:
            self._feed, self._place = await self._readers._join(self._run_id, self._after)
        feed, ended = self._feed, self._feed.ended
        if feed.has(self._place):
            events = feed.since(self._place)
            if not events and not ended:
                await feed.more()
        else:
            record, _ = await self._readers._record(self._run_id)
            events, self._place, ended = await self._readers._page(record, self._place, MOST_KEYS)
        if events:
            self._ready += events
            self._place = events[-1].offset + 1
        self._ended = ended and not events
