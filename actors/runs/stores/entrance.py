"""How runs come into a store, and leave it: in steps that anybody can take up where a crash has left them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from random import Random

import msgspec

from actors.runs.errors import RunConflictError, RunNotFoundError, RunStoreError
from actors.runs.run import RunProgress, RunRequest, RunState, RunStatus
from actors.runs.stores.ledger import MOST_KEYS, Ledger
from actors.runs.stores.record import (
    Record,
    claim_key,
    decode_record,
    encode_record,
    open_key,
    request_key,
    run_key,
    stamp,
)
from bus import DecodeError, check_name, dumps, loads

ORPHAN_AGE = 3600.0
"""Seconds after which a run without a record is what a crash left behind, not one that is being entered."""

_APART = {"traceparent": None, "tracestate": None}
"""What does not tell one request from another: who submits again does so in another trace."""

LONGEST_KEY = 1000
"""Letters of an idempotency key, and of a label: they are part of the record."""


class Entrance:
    """Enters runs and forgets them.

    Entering writes in this order: the mark of an open run, the claim of its idempotency key, its request, its record.
    Forgetting deletes the claim, the record, and then the rest. Who finds a claim without a record enters that run
    himself, and afterwards looks whether the claim still stands: if not, the run was being forgotten.

    Args:
        ledger: The database.
        clock: Unix time.
        rng: Where ids come from.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float], rng: Random) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._latest = ""

    async def enter(self, request: RunRequest, idempotency_key: str | None, ttl: float | None) -> RunStatus:
        """Enter a run, or find the one that was entered under the same key. See `RunStore.create`."""
        _check(request, idempotency_key, ttl)
        content = dumps(msgspec.structs.asdict(request), "request")
        status = RunStatus(
            run_id="",
            state=RunState.PENDING,
            worker_names=request.worker_names,
            job_name=request.name,
            label=request.label,
            progress=RunProgress(total=len(request.worker_names)),
            idempotency_key=idempotency_key,
            ttl=ttl,
        )
        if idempotency_key is None:
            run_id = self._new_id()
            await self._ledger.put(open_key(run_id), b"", 0)
            return await self._write(run_id, content, status)
        claim = claim_key(idempotency_key)
        while True:
            run_id = self._new_id()
            await self._ledger.put(open_key(run_id), claim.encode(), 0)
            if await self._ledger.put(claim, run_id.encode(), 0):
                return await self._write(run_id, content, status)
            await self._ledger.delete([open_key(run_id)])
            found = await self._claimed(claim, content, status)
            if found is not None:
                return found

    async def forget(self, run_id: str) -> bool:
        """Delete all there is of a run, and return whether there was one."""
        record, mark = await self._ledger.read([run_key(run_id), open_key(run_id)])
        claim = mark.value.decode() if mark is not None else ""
        if record is not None:
            with suppress(RunStoreError):  # a broken one goes like any other; its claim is found out by who meets it
                key = decode_record(run_id, record.value).status.idempotency_key
                claim = claim_key(key) if key is not None else ""
        if claim:
            (entry,) = await self._ledger.read([claim])
            if entry is not None and entry.value.decode() == run_id:
                await self._ledger.delete([claim], entry.version)
        await self._ledger.delete([run_key(run_id)])
        for folder in (f"event/{run_id}", f"result/{run_id}"):
            while keys := await self._ledger.keys(folder, limit=MOST_KEYS):
                await self._ledger.delete(keys)
        await self._ledger.delete([request_key(run_id), open_key(run_id)])
        self._ledger.changes.note(run_id)
        return record is not None

    async def sweep(self) -> None:
        """Forget what was left by who died while he entered a run."""
        keys = await self._ledger.keys("open", open_key(stamp(self._clock() - ORPHAN_AGE)))
        for first in range(0, len(keys), MOST_KEYS):
            run_ids = [key.rpartition("/")[2] for key in keys[first : first + MOST_KEYS]]
            records = await self._ledger.read([run_key(run_id) for run_id in run_ids])
            for run_id, record in zip(run_ids, records, strict=True):
                if record is None:
                    await self.forget(run_id)

    async def _claimed(self, claim: str, content: bytes, status: RunStatus) -> RunStatus | None:
        """The run that has a claim, entered by us if need be; None if it is on its way out."""
        (entry,) = await self._ledger.read([claim])
        if entry is None:
            return None
        run_id = entry.value.decode()
        record, request = await self._ledger.read([run_key(run_id), request_key(run_id)])
        if record is not None:
            self._compare(run_id, request.value if request is not None else content, content, status)
            return decode_record(run_id, record.value).status
        if run_id < stamp(self._clock() - ORPHAN_AGE / 2):
            await self._ledger.delete([claim], entry.version)
            return None
        await self._ledger.put(open_key(run_id), claim.encode(), 0)
        entered = await self._write(run_id, content, status)
        if (await self._ledger.read([claim]))[0] == entry:
            return entered
        await self.forget(run_id)
        return None

    async def _write(self, run_id: str, content: bytes, status: RunStatus) -> RunStatus:
        if not await self._ledger.put(request_key(run_id), content, 0):
            (request,) = await self._ledger.read([request_key(run_id)])
            self._compare(run_id, request.value if request is not None else content, content, status)
        status = msgspec.structs.replace(status, run_id=run_id, created_at=self._clock())
        if await self._ledger.put(run_key(run_id), encode_record(Record(status)), 0):
            return status
        (record,) = await self._ledger.read([run_key(run_id)])
        if record is None:
            raise RunNotFoundError(run_id)
        return decode_record(run_id, record.value).status

    def _compare(self, run_id: str, kept: bytes, content: bytes, status: RunStatus) -> None:
        with suppress(DecodeError):  # of a type that is not known here, so it is not what was given
            if kept == content or loads(kept) | _APART == loads(content) | _APART:
                return
        raise RunConflictError(status.idempotency_key or "", run_id)

    def _new_id(self) -> str:
        """An id that sorts behind all that this process gave."""
        moment = stamp(self._clock())
        if moment <= self._latest:
            moment = f"{int(self._latest, 16) + 1:011x}"
        self._latest = moment
        return f"{moment}-{self._rng.getrandbits(40):010x}"


def _check(request: RunRequest, idempotency_key: str | None, ttl: float | None) -> None:
    if not request.worker_names:
        raise ValueError("a run needs at least one worker name")
    seen: set[str] = set()
    for name in request.worker_names:
        check_name("worker", name)
        if name in seen:
            raise ValueError(f"worker {name!r} stands twice in one run")
        seen.add(name)
    if request.name is not None:
        check_name("job name", request.name)
    if request.label is not None and len(request.label) > LONGEST_KEY:
        raise ValueError(f"a label has at most {LONGEST_KEY} characters, not {len(request.label)}")
    if idempotency_key is not None:
        if not 1 <= len(idempotency_key) <= LONGEST_KEY:
            raise ValueError(f"an idempotency key has 1 to {LONGEST_KEY} characters; None is for none")
        if not idempotency_key.isprintable():
            raise ValueError(f"idempotency key {idempotency_key!r:.100} has characters that cannot be printed")
    if ttl is not None and (math.isnan(ttl) or ttl < 0):
        raise ValueError(f"ttl must be seconds, 0 or more, or None; got {ttl!r}")
