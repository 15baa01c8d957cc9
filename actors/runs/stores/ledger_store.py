"""A run store over any ledger: all that is the same for all databases."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Self

import anyio
import msgspec

from actors.runs.errors import RunLostError, RunNotFoundError, RunStateError, RunStoreError, RunValueError
from actors.runs.run import STEPS, Lease, RunEvent, RunEventType, RunProgress, RunRequest, RunState, RunStatus
from actors.runs.stores.entrance import ORPHAN_AGE, Entrance
from actors.runs.stores.event_log import EventLog
from actors.runs.stores.ledger import MOST_KEYS, Entry, Ledger
from actors.runs.stores.readers import Readers, RunEvents
from actors.runs.stores.record import (
    Record,
    decode_record,
    encode_record,
    is_id,
    kept_error,
    lease_of,
    open_key,
    over_key,
    request_key,
    require,
    result_key,
    run_key,
    stamp,
)
from bus import DecodeError, ErrorInfo, dumps, loads
from bus.log import log, reason_of


class LedgerRunStore:
    """Keeps runs in a `Ledger`; see `RunStore`.

    What an owner that has lost its run still writes is never seen: its record is fenced by version and attempt, its
    results lie under its own attempt, and its events do not count behind the first of the next attempt.

    Args:
        ledger: The database.
        clock: Unix time, for people and for the time to live.
        rng: Where ids come from.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.time, rng: Random | None = None) -> None:
        rng = rng or Random(secrets.randbits(64))
        self._ledger = ledger
        self._clock = clock
        self._entrance = Entrance(ledger, clock, rng)
        self._log = EventLog(ledger, clock, rng)
        self._readers = Readers(self._log, ledger.changes, self._record)
        self._opening = anyio.Lock()
        self._users = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        """Open the database, if nobody else in this process has opened this store."""
        async with self._opening:
            if not self._users:
                await self._ledger.open()
                self._closed = False
            self._users += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close it, if nobody else in this process still has it open."""
        with anyio.CancelScope(shield=True):
            async with self._opening:
                self._users -= 1
                if not self._users:
                    self._closed = True
                    self._readers.wake()
                    await self._ledger.close()

    async def create(
        self, request: RunRequest, *, idempotency_key: str | None = None, ttl: float | None = None
    ) -> RunStatus:
        """See `RunStore`."""
        self._check_open()
        return await self._entrance.enter(request, idempotency_key, ttl)

    async def get(self, run_id: str) -> RunStatus:
        """See `RunStore`."""
        return (await self._record(run_id))[0].status

    async def request(self, run_id: str) -> RunRequest:
        """See `RunStore`."""
        await self._record(run_id)
        (entry,) = await self._ledger.read([request_key(run_id)])
        if entry is None:
            raise RunNotFoundError(run_id)
        return RunRequest(**_read("the request", run_id, entry))

    async def find(
        self,
        *,
        state: RunState | None = None,
        worker_name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunStatus]:
        """See `RunStore`."""
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit!r}")
        if after is not None and not is_id(after):
            raise RunNotFoundError(after)
        self._check_open()
        found: list[RunStatus] = []
        folder = "open" if state is not None and not state.terminal else "run"
        many = MOST_KEYS if state is not None or worker_name is not None else min(limit, MOST_KEYS)
        while len(found) < limit:
            keys = await self._ledger.keys(folder, f"{folder}/{after}" if after is not None else "", many)
            if not keys:
                break
            run_ids = [key.rpartition("/")[2] for key in keys]
            found += [
                record.status
                for record in await self._records(run_ids)
                if record is not None
                and (state is None or record.status.state is state)
                and (worker_name is None or worker_name in record.status.worker_names)
            ]
            after = run_ids[-1]
        return found[:limit]

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
        if state is RunState.RUNNING:
            raise RunStateError("a run becomes running when somebody takes it: use `take`")
        done = False

        def change(record: Record) -> Record | None:
            nonlocal done
            status = record.status
            # A store that did not answer may have done it: who asks again shall not hear that all is lost.
            done = lease is not None and state.terminal and (status.state, status.attempts) == (state, lease.attempt)
            if done:
                return None
            if lease is not None:
                require(record, lease)
            if status.state is not expected:
                return None
            if status.cancel_requested_at is not None and state in {RunState.COMPLETED, RunState.PENDING}:
                return None  # who asked to cancel it was told that it will not complete any more
            changes: dict[str, Any] = {"state": state, "error": kept_error(error) or status.error}
            if progress is not None:
                changes["progress"] = progress
            return self._changed(record, changes)

        changed = await self._change(run_id, change)
        return done or changed is not None

    async def set_progress(self, lease: Lease, progress: RunProgress) -> None:
        """See `RunStore`."""

        def change(record: Record) -> Record:
            require(record, lease)
            return self._changed(record, {"progress": progress})

        await self._change(lease.run_id, change)

    async def set_result(self, lease: Lease, result: Any) -> None:
        """See `RunStore`."""
        await self._require(lease)
        key, value = result_key(lease.run_id, lease.attempt), dumps(result, "result")
        while True:
            (entry,) = await self._ledger.read([key])
            if await self._ledger.put(key, value, entry.version if entry is not None else 0):
                return

    async def result(self, run_id: str) -> Any:
        """See `RunStore`."""
        status = await self.get(run_id)
        if status.state is not RunState.COMPLETED:
            raise RunStateError(f"run {run_id!r} is {status.state.value}: it has no result")
        (entry,) = await self._ledger.read([result_key(run_id, status.attempts)])
        if entry is None:
            await self._record(run_id)  # it may have been deleted just now; else its owner kept none
        return _read("the result", run_id, entry) if entry is not None else None

    async def cancel(self, run_id: str, reason: str | None = None) -> RunStatus:
        """See `RunStore`."""
        error = kept_error(ErrorInfo(type="RunCancelled", message=reason_of(reason, "cancelled on request")))

        def change(record: Record) -> Record | None:
            status = record.status
            if status.state.terminal or (status.state is RunState.RUNNING and status.cancel_requested_at is not None):
                return None
            changes: dict[str, Any] = {"cancel_requested_at": self._clock(), "error": error}
            if status.state is RunState.PENDING:
                return self._changed(record, changes | {"state": RunState.CANCELLED})
            # The beat is the owner's: to cancel the run of a dead owner is no sign of life.
            return msgspec.structs.replace(record, status=msgspec.structs.replace(status, **changes))

        changed = await self._change(run_id, change)
        return changed.status if changed is not None else await self.get(run_id)

    async def push_event(
        self, lease: Lease, kind: RunEventType, worker_name: str | None = None, data: Any = None
    ) -> int:
        """See `RunStore`."""
        if kind.terminal:
            raise ValueError(f"{kind.value} is the event of a run that has ended: `set_state` adds it")
        await self._require(lease)
        return await self._log.add(lease, kind, worker_name, data)

    async def events(self, run_id: str, after: int = -1, limit: int = 1000) -> Sequence[RunEvent]:
        """See `RunStore`."""
        return await self._readers.events(run_id, after, limit)

    def stream(self, run_id: str, after: int = -1) -> RunEvents:
        """See `RunStore`."""
        return self._readers.stream(run_id, after)

    async def leases(self) -> list[Lease]:
        """See `RunStore`."""
        self._check_open()
        run_ids = sorted(key.rpartition("/")[2] for key in await self._ledger.keys("open"))
        found = []
        for record in await self._records(run_ids):
            if record is not None and record.status.state.terminal:
                await self._put_away(record)  # who ended it died before
            elif record is not None:
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
            return self._changed(record, changes | {"started_at": self._clock(), "progress": progress})

        changed = await self._change(lease.run_id, change)
        return lease_of(changed) if changed is not None else None

    async def renew(self, lease: Lease) -> Lease:
        """See `RunStore`."""

        def change(record: Record) -> Record:
            require(record, lease)
            return self._changed(record, {})

        changed = await self._change(lease.run_id, change)
        assert changed is not None
        return lease_of(changed)

    async def release(self, lease: Lease) -> None:
        """See `RunStore`."""

        def change(record: Record) -> Record:
            require(record, lease)
            cancelled = record.status.cancel_requested_at is not None
            return self._changed(record, {"state": RunState.CANCELLED if cancelled else RunState.PENDING})

        await self._change(lease.run_id, change)
        self._log.forget(lease.run_id)

    async def delete(self, run_id: str) -> None:
        """See `RunStore`."""
        status = await self.get(run_id)
        if not status.state.terminal:
            raise RunStateError(f"run {run_id!r} is {status.state.value}: cancel it before it is deleted")
        over = over_key(run_id, 0.0)
        await self._ledger.put(over, b"", 0)  # `sweep` ends what is begun here
        await self._sweep_again(run_id)
        await self._entrance.forget(run_id)
        await self._ledger.delete([over, *self._over(status)])

    async def sweep(self) -> int:
        """See `RunStore`."""
        self._check_open()
        swept = 0
        for key in await self._ledger.keys("over", f"over/{stamp(self._clock())}~"):
            run_id = key.partition("-")[2]
            if await self._ledger.read([run_key(run_id)]) != [None]:
                await self._sweep_again(run_id)
            swept += await self._entrance.forget(run_id)
            await self._ledger.delete([key])
        await self._entrance.sweep()
        return swept

    async def _sweep_again(self, run_id: str) -> None:
        """See that what an owner that had lost the run may still write after it was deleted is deleted, too."""
        await self._ledger.put(over_key(run_id, self._clock() + ORPHAN_AGE), b"", 0)

    async def _record(self, run_id: str) -> tuple[Record, Entry]:
        self._check_open()
        entry = (await self._ledger.read([run_key(run_id)]))[0] if is_id(run_id) else None
        if entry is None:
            raise RunNotFoundError(run_id)
        return decode_record(run_id, entry.value), entry

    async def _records(self, run_ids: Sequence[str]) -> list[Record | None]:
        found: list[Record | None] = []
        for first in range(0, len(run_ids), MOST_KEYS):
            some = run_ids[first : first + MOST_KEYS]
            entries = await self._ledger.read([run_key(run_id) for run_id in some])
            for run_id, entry in zip(some, entries, strict=True):
                try:
                    found.append(decode_record(run_id, entry.value) if entry is not None else None)
                except RunStoreError as error:  # the others are none the worse for it
                    log().warning("a run cannot be read", run=run_id, error=str(error))
                    found.append(None)
        return found

    async def _require(self, lease: Lease) -> None:
        def change(record: Record) -> None:
            require(record, lease)

        await self._change(lease.run_id, change)

    async def _change(self, run_id: str, change: Callable[[Record], Record | None]) -> Record | None:
        """Change a record, again if another was faster; None if `change` does not want to."""
        while True:
            record, entry = await self._record(run_id)
            try:
                changed = change(record)
            except RunLostError:
                self._log.forget(run_id)
                raise
            if changed is None:
                return None
            if await self._ledger.put(run_key(run_id), encode_record(changed), entry.version):
                if changed.status.state.terminal:
                    with suppress(RunStoreError):  # readers do the one, `leases` the other, if need be
                        await self._log.close(changed)
                        await self._put_away(changed)
                return changed

    def _changed(self, record: Record, changes: dict[str, Any]) -> Record:
        if "state" in changes and changes["state"].terminal:
            changes = changes | {"finished_at": self._clock()}
        return Record(msgspec.structs.replace(record.status, **changes), record.beat + 1)

    async def _put_away(self, record: Record) -> None:
        """Take a run that has ended from those that are open."""
        for key in self._over(record.status):
            await self._ledger.put(key, b"", 0)
        await self._ledger.delete([open_key(record.status.run_id)])

    def _over(self, status: RunStatus) -> list[str]:
        """The mark of a run that has ended, and is to be forgotten some day."""
        if status.ttl is None or status.finished_at is None:
            return []
        return [over_key(status.run_id, status.finished_at + status.ttl)]

    def _check_open(self) -> None:
        if self._closed:
            raise RunStoreError("the run store is closed")


def _read(what: str, run_id: str, entry: Entry) -> Any:
    try:
        return loads(entry.value)
    except DecodeError as error:
        raise RunValueError(run_id, what, str(error)) from error
