"""A run store over any ledger: all that is the same for all databases."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random, SystemRandom
from typing import Any, Self

import msgspec

from actors.runs.errors import RunConflictError, RunNotFoundError, RunStateError
from actors.runs.ledger import Entry, Ledger
from actors.runs.record import (
    Record,
    decode_record,
    encode_record,
    event_key,
    is_id,
    is_over,
    key_of,
    last_event,
    lease_of,
    require,
)
from actors.runs.run import (
    STEPS,
    Lease,
    RunEvent,
    RunEventType,
    RunProgress,
    RunRequest,
    RunState,
    RunStatus,
)
from bus import ErrorInfo, dumps, loads

LOOK = 0.5
"""Seconds between two looks at a run that another process may change; changes of this process are seen at once."""

PAGE = 256
"""Events fetched at a time by a stream."""

ORPHAN_AGE = 3600.0
"""Seconds after which what belongs to no run is what a crash left behind, not a run that is being entered."""


_Change = Callable[[Record], Record | None]


class LedgerRunStore:
    """Keeps runs in a `Ledger`; see `RunStore`.

    What an owner that has lost its run still writes is never seen: its record is fenced by version and attempt, its
    results lie under its own attempt, and its events are passed over behind the first of the next attempt.

    Args:
        ledger: The database.
        clock: Unix time, for people and for the time to live.
        rng: Where ids come from.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.time, rng: Random | None = None) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rng = rng or SystemRandom()
        self._next: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Open the database."""
        await self._ledger.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""
        await self._ledger.close()

    async def create(
        self, request: RunRequest, *, idempotency_key: str | None = None, ttl: float | None = None
    ) -> RunStatus:
        """See `RunStore`."""
        _check(request, idempotency_key, ttl)
        content = dumps(msgspec.structs.asdict(request), "request")
        run_id = f"{int(self._clock() * 1000):011x}-{self._rng.getrandbits(40):010x}"
        if idempotency_key is not None:
            key = key_of(idempotency_key)
            # The key comes first: whoever finds it without a run makes that run, so a crash in between doubles nothing.
            if not await self._ledger.put(key, run_id.encode(), 0):
                entry = await self._ledger.get(key)
                run_id = entry.value.decode() if entry is not None else run_id
        await self._ledger.put(f"request/{run_id}", content, 0)
        kept = await self._ledger.get(f"request/{run_id}")
        if idempotency_key is not None and (kept is None or kept.value != content):
            raise RunConflictError(idempotency_key, run_id)
        status = RunStatus(
            run_id=run_id,
            state=RunState.PENDING,
            worker_names=request.worker_names,
            job_name=request.name,
            label=request.label,
            created_at=self._clock(),
            progress=RunProgress(total=len(request.worker_names)),
            idempotency_key=idempotency_key,
            ttl=ttl,
        )
        if not await self._ledger.put(f"run/{run_id}", encode_record(Record(status)), 0):
            status = (await self._record(run_id))[0].status
        return status

    async def get(self, run_id: str) -> RunStatus:
        """See `RunStore`."""
        return (await self._record(run_id))[0].status

    async def request(self, run_id: str) -> RunRequest:
        """See `RunStore`."""
        await self._record(run_id)
        entry = await self._ledger.get(f"request/{run_id}")
        if entry is None:
            raise RunNotFoundError(run_id)
        return RunRequest(**loads(entry.value))

    async def find(
        self,
        *,
        state: RunState | None = None,
        worker_name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunStatus]:
        """See `RunStore`."""
        found: list[RunStatus] = []
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit!r}")
        for key in reversed(await self._ledger.keys("run/")):
            if after is not None and key >= f"run/{after}":
                continue
            entry = await self._ledger.get(key)
            if entry is None:
                continue
            status = decode_record(entry.value).status
            if (state is None or status.state is state) and (worker_name is None or worker_name in status.worker_names):
                found.append(status)
                if len(found) >= limit:
                    break
        return found

    async def set_state(
        self,
        run_id: str,
        expected: RunState,
        state: RunState,
        *,
        lease: Lease | None = None,
        error: ErrorInfo | None = None,
        progress: RunProgress | None = None,
    ) -> bool:
        """See `RunStore`."""
        if state not in STEPS[expected]:
            raise RunStateError(f"a run that is {expected.value} cannot become {state.value}")
        events = await self._count_events(run_id) if state.terminal else -1

        def change(record: Record) -> Record | None:
            status = record.status
            if lease is not None:
                require(record, lease)
            if status.state is not expected:
                return None
            if state is RunState.COMPLETED and status.cancel_requested_at is not None:
                return None  # who asked to cancel it was told that it will not complete
            changes: dict[str, Any] = {"state": state, "error": error or status.error}
            if progress is not None:
                changes["progress"] = progress
            if state.terminal:
                changes["finished_at"] = self._clock()
            return Record(msgspec.structs.replace(status, **changes), record.beat + 1, events)

        return await self._change(run_id, change) is not None

    async def set_progress(self, lease: Lease, progress: RunProgress) -> None:
        """See `RunStore`."""

        def change(record: Record) -> Record:
            require(record, lease)
            return msgspec.structs.replace(
                record, status=msgspec.structs.replace(record.status, progress=progress), beat=record.beat + 1
            )

        await self._change(lease.run_id, change)

    async def set_result(self, lease: Lease, result: Any) -> None:
        """See `RunStore`."""
        record, _ = await self._record(lease.run_id)
        require(record, lease)
        key, value = f"result/{lease.run_id}/{lease.attempt}", dumps(result, "result")
        while not await self._ledger.put(key, value, await self._version(key)):
            pass

    async def result(self, run_id: str) -> Any:
        """See `RunStore`."""
        status = await self.get(run_id)
        if status.state is not RunState.COMPLETED:
            raise RunStateError(f"run {run_id!r} is {status.state.value}: it has no result")
        entry = await self._ledger.get(f"result/{run_id}/{status.attempts}")
        return loads(entry.value) if entry is not None else None

    async def cancel(self, run_id: str, reason: str | None = None) -> RunStatus:
        """See `RunStore`."""
        error = ErrorInfo(type="RunCancelled", message=reason or "cancelled on request")

        def change(record: Record) -> Record | None:
            status, now = record.status, self._clock()
            if status.state.terminal or status.cancel_requested_at is not None:
                return None
            if status.state is RunState.PENDING:
                ended = {"state": RunState.CANCELLED, "finished_at": now}
                return Record(
                    msgspec.structs.replace(status, cancel_requested_at=now, error=error, **ended),
                    record.beat + 1,
                    events,
                )
            status = msgspec.structs.replace(status, cancel_requested_at=now, error=error)
            return msgspec.structs.replace(record, status=status)

        events = await self._count_events(run_id)
        changed = await self._change(run_id, change)
        return changed.status if changed is not None else await self.get(run_id)

    async def push_event(
        self, lease: Lease, kind: RunEventType, worker_name: str | None = None, data: Any = None
    ) -> int:
        """See `RunStore`."""
        record, _ = await self._record(lease.run_id)
        require(record, lease)
        if lease.run_id not in self._next:
            self._next[lease.run_id] = await self._count_events(lease.run_id)
        value = dumps([kind.value, worker_name, data, lease.attempt, self._clock()], "event")
        while True:
            offset = self._next[lease.run_id]
            if await self._ledger.put(event_key(lease.run_id, offset), value, 0):
                self._next[lease.run_id] = offset + 1
                return offset
            self._next[lease.run_id] = offset + 1

    async def events(self, run_id: str, after: int = -1, limit: int = 1000) -> Sequence[RunEvent]:
        """See `RunStore`."""
        record, _ = await self._record(run_id)
        return await self._events(run_id, after, limit, record)

    async def stream(self, run_id: str, after: int = -1) -> AsyncIterator[RunEvent]:
        """See `RunStore`."""
        while True:
            record, _ = await self._record(run_id)
            events = await self._events(run_id, after, PAGE, record)
            for event in events:
                yield event
                after = event.offset
            if events and events[-1].type.terminal:
                return
            if not events:
                if record.events >= 0:
                    return  # `after` is the last offset, or beyond it
                await self._ledger.changed(run_id, LOOK)

    async def leases(self) -> list[Lease]:
        """See `RunStore`."""
        found = []
        for key in await self._ledger.keys("run/"):
            entry = await self._ledger.get(key)
            if entry is not None and not (record := decode_record(entry.value)).status.state.terminal:
                found.append(lease_of(record))
        return found

    async def take(self, lease: Lease, owner: str) -> Lease | None:
        """See `RunStore`."""

        def change(record: Record) -> Record | None:
            status = record.status
            if status.state.terminal or lease_of(record) != lease:
                return None
            changes = {"state": RunState.RUNNING, "owner": owner, "attempts": status.attempts + 1}
            progress = RunProgress(total=len(status.worker_names))
            return Record(
                msgspec.structs.replace(status, **changes, started_at=self._clock(), progress=progress), record.beat + 1
            )

        changed = await self._change(lease.run_id, change)
        return lease_of(changed) if changed is not None else None

    async def renew(self, lease: Lease) -> Lease:
        """See `RunStore`."""

        def change(record: Record) -> Record:
            require(record, lease)
            return msgspec.structs.replace(record, beat=record.beat + 1)

        changed = await self._change(lease.run_id, change)
        assert changed is not None
        return lease_of(changed)

    async def release(self, lease: Lease) -> None:
        """See `RunStore`."""
        await self.set_state(lease.run_id, RunState.RUNNING, RunState.PENDING, lease=lease)

    async def delete(self, run_id: str) -> None:
        """See `RunStore`."""
        status = await self.get(run_id)
        if not status.state.terminal:
            raise RunStateError(f"run {run_id!r} is {status.state.value}: cancel it before it is deleted")
        await self._forget(run_id, status.idempotency_key)

    async def sweep(self) -> int:
        """See `RunStore`."""
        now, swept = self._clock(), 0
        runs = dict.fromkeys(await self._ledger.keys("run/"))
        for key in runs:
            entry = await self._ledger.get(key)
            status = decode_record(entry.value).status if entry is not None else None
            if status is not None and is_over(status, now):
                await self._forget(status.run_id, status.idempotency_key)
                swept += 1
        for key in await self._ledger.keys("request/"):  # left by who died between this and the record
            run_id = key.removeprefix("request/")
            if f"run/{run_id}" not in runs and int(run_id.partition("-")[0], 16) / 1000 + ORPHAN_AGE < now:
                await self._ledger.delete(key)
        return swept

    async def _events(self, run_id: str, after: int, limit: int, record: Record) -> list[RunEvent]:
        found: list[RunEvent] = []
        attempt = 0
        if after >= 0 and (before := await self._event(run_id, after)) is not None:
            attempt = before.attempt
        offset = max(after, -1) + 1
        while len(found) < limit and (record.events < 0 or offset < record.events):
            event = await self._event(run_id, offset)
            if event is None:
                break
            if event.attempt >= attempt:  # else an owner that had lost the run wrote it
                attempt = event.attempt
                found.append(event)
            offset += 1
        if 0 <= record.events <= offset and len(found) < limit and after < record.events:
            found.append(last_event(record))
        return found

    async def _event(self, run_id: str, offset: int) -> RunEvent | None:
        entry = await self._ledger.get(event_key(run_id, offset))
        if entry is None:
            return None
        kind, worker_name, data, attempt, at = loads(entry.value)
        return RunEvent(offset, RunEventType(kind), worker_name, data, attempt, at)

    async def _count_events(self, run_id: str) -> int:
        keys = await self._ledger.keys(f"event/{run_id}/")
        return int(keys[-1].rpartition("/")[2]) + 1 if keys else 0

    async def _record(self, run_id: str) -> tuple[Record, Entry]:
        entry = await self._ledger.get(f"run/{run_id}") if is_id(run_id) else None
        if entry is None:
            raise RunNotFoundError(run_id)
        return decode_record(entry.value), entry

    async def _change(self, run_id: str, change: _Change) -> Record | None:
        """Change a record, again if another was faster; None if `change` does not want to."""
        while True:
            record, entry = await self._record(run_id)
            changed = change(record)
            if changed is None:
                return None
            if await self._ledger.put(f"run/{run_id}", encode_record(changed), entry.version):
                if changed.status.state.terminal:
                    self._next.pop(run_id, None)
                return changed

    async def _version(self, key: str) -> int:
        entry = await self._ledger.get(key)
        return entry.version if entry is not None else 0

    async def _forget(self, run_id: str, idempotency_key: str | None) -> None:
        for kind in ("event", "result"):
            for key in await self._ledger.keys(f"{kind}/{run_id}/"):
                await self._ledger.delete(key)
        await self._ledger.delete(f"run/{run_id}")
        await self._ledger.delete(f"request/{run_id}")
        if idempotency_key is not None:
            await self._ledger.delete(key_of(idempotency_key))


def _check(request: RunRequest, idempotency_key: str | None, ttl: float | None) -> None:
    if not request.worker_names:
        raise ValueError("a run needs at least one worker name")
    if idempotency_key is not None and not idempotency_key:
        raise ValueError("an idempotency key must have at least one character; None is for none")
    if ttl is not None and not ttl >= 0:
        raise ValueError(f"ttl must be seconds, 0 or more, or None; got {ttl!r}")
