"""The events of runs: for each run a row of entries that only grows, ends with a terminal one, and is then closed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import anyio
import msgspec

from actors.runs.errors import RunLostError, RunStoreError
from actors.runs.run import Lease, RunEvent, RunEventType, Unreadable
from actors.runs.stores.ledger import MOST_KEYS, Entry, Ledger
from actors.runs.stores.record import Record, event_key, last_event, run_key
from bus import DecodeError, dumps, loads

LAST_OFFSET = 10**10 - 1
"""What ten digits can say: the offsets of a run sort as texts."""

FIRST_LOOK = 4
"""Entries that are read at first; more and more, as long as they are there: a look at the end is cheap."""


class EventLog:
    """Adds and reads events.

    An entry is only put behind one that is there and is not terminal, and never replaced: so all readers see one row,
    with one end. Each says the latest attempt of those up to it. An event of an earlier attempt than that does not
    count: an owner that had lost its run, and had not known, wrote it.

    Args:
        ledger: Where they are kept.
        clock: Unix time.
        rng: Tells entries apart.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float], rng: Random) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._adding: dict[str, _Adding] = {}

    async def add(self, lease: Lease, kind: RunEventType, worker_name: str | None, data: Any) -> int:
        """Add an event, and return its offset.

        After a `RunStoreError` it may be there or not; added again it is there once.

        Raises:
            EncodeError: It cannot be kept.
            RunLostError: The run has ended.
        """
        run_id = lease.run_id
        content = dumps([kind.value, worker_name, data, lease.attempt], "event")
        mark = [self._clock(), self._rng.getrandbits(40)]
        adding = self._adding.setdefault(run_id, _Adding())
        async with adding.lock:
            if (offset := await self._added(run_id, adding, content)) is not None:
                return offset
            while True:
                if adding.end is None:
                    adding.end = await self._find_end(run_id)
                offset, attempt = adding.end
                if offset is None:
                    self.forget(run_id)
                    raise RunLostError(run_id, lease.attempt)
                attempt = max(attempt, lease.attempt)
                entry = dumps([content, attempt, *mark])
                try:
                    added = await self._ledger.put(event_key(run_id, offset), entry, 0)
                except RunStoreError:
                    adding.unsure[content] = offset, entry
                    raise
                adding.end = (offset + 1, attempt) if added else None  # else of others, who may have come far
                if added:
                    self._ledger.changes.note(run_id)
                    return offset

    async def close(self, record: Record) -> None:
        """See that a run that has ended has its terminal event, its last."""
        run_id = record.status.run_id
        last = last_event(record)
        content = dumps([last.type.value, None, last.data, last.attempt], "event")
        while True:
            offset, _ = await self._find_end(run_id)
            if offset is None:
                break
            entry = dumps([content, last.attempt, last.at, 0])
            if await self._ledger.put(event_key(run_id, offset), entry, 0):
                if await self._ledger.read([run_key(run_id)]) == [None]:  # deleted meanwhile, with all other events
                    await self._ledger.delete([event_key(run_id, offset)])
                break
        self.forget(run_id)
        self._ledger.changes.note(run_id)

    def forget(self, run_id: str) -> None:
        """Nothing is added to this run any more, as far as is known."""
        self._adding.pop(run_id, None)

    async def place(self, run_id: str, after: int) -> int:
        """The place after an offset, or behind all events if there is none of that offset."""
        if after < 0:
            return 0
        if after <= LAST_OFFSET and await self._ledger.read([event_key(run_id, after)]) != [None]:
            return after + 1
        keys = await self._ledger.keys(f"event/{run_id}", limit=1)
        return _offset(keys[0]) + 1 if keys else 0

    async def page(self, run_id: str, place: int, limit: int) -> tuple[list[RunEvent], int]:
        """Those of the next `limit` entries that are there and count, and the place behind them."""
        found: list[RunEvent] = []
        stop, many = place + limit, FIRST_LOOK
        while place < stop:
            many = min(many, stop - place)
            for entry in await self._ledger.read([event_key(run_id, place + n) for n in range(many)]):
                if entry is None:
                    return found, place
                event, attempt = _event(place, entry)
                if event.attempt == attempt:
                    found.append(event)
                place += 1
            many = min(4 * many, MOST_KEYS)
        return found, place

    async def _find_end(self, run_id: str) -> tuple[int | None, int]:
        """Where the next entry goes, and the latest attempt before it; None if the last is terminal."""
        keys = await self._ledger.keys(f"event/{run_id}", limit=1)
        (entry,) = await self._ledger.read(keys) if keys else [None]
        if entry is None:
            return 0, 0
        content, attempt, _, _ = loads(entry.value)
        return None if RunEventType(_header(content)[0]).terminal else _offset(keys[0]) + 1, attempt

    async def _added(self, run_id: str, adding: _Adding, content: bytes) -> int | None:
        """The offset of an event that was added while the store seemed not to answer, or is now.

        The same entry at the same place: however late the first try is carried out, only one of the two is.
        """
        if content not in adding.unsure:
            return None
        offset, value = adding.unsure[content]
        adding.end = None
        added = await self._ledger.put(event_key(run_id, offset), value, 0)
        if not added:
            (entry,) = await self._ledger.read([event_key(run_id, offset)])
            added = entry is not None and entry.value == value
        adding.unsure.pop(content)
        if added:
            self._ledger.changes.note(run_id)
        return offset if added else None


class _Adding:
    """How a process adds to the events of a run: where the next goes, behind which attempt, if that is known."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.end: tuple[int | None, int] | None = None
        self.unsure: dict[bytes, tuple[int, bytes]] = {}


def _offset(key: str) -> int:
    return int(key.rpartition("/")[2])


_header = msgspec.msgpack.Decoder(tuple[str, str | None, msgspec.Raw, int]).decode
"""An event as it is kept, but for its data: who looks for the end of a run need not know all types."""


def _event(offset: int, entry: Entry) -> tuple[RunEvent, int]:
    content, latest, at, _ = loads(entry.value)
    kind, worker_name, kept, attempt = _header(content)
    try:
        data = loads(kept)
    except DecodeError as error:
        data = Unreadable(str(error))
    return RunEvent(offset, RunEventType(kind), worker_name, data, attempt, at), latest
