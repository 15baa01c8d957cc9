"""The events of runs: for each run a row of entries that only grows, ends with a terminal one, and is then closed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import anyio

from actors.runs.errors import RunLostError, RunStoreError
from actors.runs.ledger import MOST_KEYS, Entry, Ledger
from actors.runs.record import Record, event_key, last_event
from actors.runs.run import Lease, RunEvent, RunEventType
from bus import dumps, loads

LAST_OFFSET = 10**10 - 1
"""What ten digits can say: the offsets of a run sort as texts."""

FIRST_LOOK = 4
"""Entries that are read at first; more and more, as long as they are there: a look at the end is cheap."""


class Cursor(NamedTuple):
    """A place in the events of a run: the next entry, and the attempt of the last event before it that counts."""

    offset: int = 0
    attempt: int = 0


class EventLog:
    """Adds and reads events.

    An entry is only put behind one that is there and is not terminal, and never replaced: so all readers see one row,
    with one end. An event of an attempt counts if none of a later one stands before it: an owner that had lost its run,
    and had not known, wrote the others.

    Args:
        ledger: Where they are kept.
        clock: Unix time.
        rng: Tells entries apart.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float], rng: Random) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._ends: dict[str, _End] = {}

    async def add(self, lease: Lease, kind: RunEventType, worker_name: str | None, data: Any) -> int:
        """Add an event, and return its offset.

        After a `RunStoreError` it may be there or not; added again it is there once.

        Raises:
            EncodeError: It cannot be kept.
            RunLostError: The run has ended.
        """
        run_id = lease.run_id
        content = dumps([kind.value, worker_name, data, lease.attempt], "event")
        entry = self._entry(content)
        end = self._ends.setdefault(run_id, _End())
        async with end.lock:
            unsure = end.unsure.pop(content, None)
            if unsure is not None and await self._is(event_key(run_id, unsure[0]), unsure[1]):
                return unsure[0]
            while True:
                if end.offset is None:
                    end.offset = await self._find_end(run_id)
                offset = end.offset
                if offset is None:
                    self.forget(run_id)
                    raise RunLostError(run_id, lease.attempt)
                try:
                    added = await self._ledger.put(event_key(run_id, offset), entry, 0)
                except RunStoreError:
                    end.unsure[content] = offset, entry
                    raise
                end.offset = offset + 1 if added else None  # else of somebody else, who may have come far
                if added:
                    self._ledger.changes.note(run_id)
                    return offset

    async def close(self, record: Record) -> None:
        """See that a run that has ended has its terminal event, its last."""
        run_id = record.status.run_id
        last = last_event(record)
        entry = self._entry(dumps([last.type.value, None, last.data, last.attempt], "event"), last.at)
        while (offset := await self._find_end(run_id)) is not None:
            if await self._ledger.put(event_key(run_id, offset), entry, 0):
                break
        self.forget(run_id)
        self._ledger.changes.note(run_id)

    def forget(self, run_id: str) -> None:
        """Nothing is added to this run any more, as far as is known."""
        self._ends.pop(run_id, None)

    async def cursor(self, record: Record, after: int) -> Cursor:
        """The place after an offset, or behind all events if there is none of that offset."""
        run_id, attempts = record.status.run_id, record.status.attempts
        after = min(after, LAST_OFFSET)
        if after < 0:
            return Cursor()
        (entry,) = await self._ledger.read([event_key(run_id, after)])
        if entry is None:
            return await self._behind_all(run_id, attempts)
        attempt = _event(after, entry).attempt
        place = Cursor()
        while attempt < attempts and place.offset <= after:  # whether one of a later attempt stands before it
            _, place = await self.page(run_id, place, min(MOST_KEYS, after + 1 - place.offset))
            attempt = max(attempt, place.attempt)
        return Cursor(after + 1, attempt)

    async def page(self, run_id: str, place: Cursor, limit: int) -> tuple[list[RunEvent], Cursor]:
        """Those of the next `limit` entries that are there and count, and the place behind them."""
        found: list[RunEvent] = []
        (offset, attempt), stop = place, place.offset + limit
        many = FIRST_LOOK
        while offset < stop:
            many = min(many, stop - offset)
            for entry in await self._ledger.read([event_key(run_id, offset + n) for n in range(many)]):
                if entry is None:
                    return found, Cursor(offset, attempt)
                event = _event(offset, entry)
                offset += 1
                if event.attempt >= attempt:
                    attempt = event.attempt
                    found.append(event)
            many = min(4 * many, MOST_KEYS)
        return found, Cursor(offset, attempt)

    async def _behind_all(self, run_id: str, attempts: int) -> Cursor:
        keys = await self._ledger.keys(f"event/{run_id}", limit=1)
        return Cursor(int(keys[0].rpartition("/")[2]) + 1 if keys else 0, attempts)

    async def _find_end(self, run_id: str) -> int | None:
        """Where the next entry goes; None if the last is terminal."""
        keys = await self._ledger.keys(f"event/{run_id}", limit=1)
        if not keys:
            return 0
        offset = int(keys[0].rpartition("/")[2])
        (entry,) = await self._ledger.read(keys[:1])
        return None if entry is None or _event(offset, entry).type.terminal else offset + 1

    async def _is(self, key: str, value: bytes) -> bool:
        (entry,) = await self._ledger.read([key])
        return entry is not None and entry.value == value

    def _entry(self, content: bytes, at: float | None = None) -> bytes:
        return dumps([content, self._clock() if at is None else at, self._rng.getrandbits(40)])


class _End:
    """The end of the events of a run that this process adds to: None is not known."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.offset: int | None = None
        self.unsure: dict[bytes, tuple[int, bytes]] = {}


def _event(offset: int, entry: Entry) -> RunEvent:
    content, at, _ = loads(entry.value)
    kind, worker_name, data, attempt = loads(content)
    return RunEvent(offset, RunEventType(kind), worker_name, data, attempt, at)
