"""What the checks of run stores have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import anyio

from actors.runs.run import Lease, RunEvent, RunEventType, RunRequest, RunState, RunStatus
from actors.runs.store import RunStore
from bus.testing import require

MakeStores: TypeAlias = Callable[[int], AbstractAsyncContextManager[Sequence[RunStore]]]
"""Gives an empty database and so many open stores on it, and closes them at the end."""

RunStoreCheck: TypeAlias = Callable[[MakeStores], Awaitable[None]]
"""One sentence of the contract. Raises AssertionError if the store does not keep it."""

REQUEST = RunRequest(worker_names=("a",), name="do", payload={"n": 1})


async def begun(store: RunStore, owner: str = "owner", **options: Any) -> Lease:
    """A new run, taken."""
    return await taken(store, await store.create(REQUEST, **options), owner)


async def taken(store: RunStore, status: RunStatus, owner: str = "owner") -> Lease:
    """The next attempt at a run."""
    lease = await store.take(await lease_of(store, status.run_id), owner)
    require(lease is not None, f"the lease of run {status.run_id} did not hold, although nobody else was there")
    assert lease is not None
    return lease


async def lease_of(store: RunStore, run_id: str) -> Lease:
    """The lease that the store shows now."""
    found = [lease for lease in await store.leases() if lease.run_id == run_id]
    require(len(found) == 1, f"there are {len(found)} leases of run {run_id}, which has not ended")
    return found[0]


async def complete(store: RunStore, lease: Lease, result: Any = None) -> None:
    """End an attempt well."""
    await store.set_result(lease, result)
    done = await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
    require(done, f"run {lease.run_id} could not be completed by its owner")


async def say(store: RunStore, lease: Lease, *data: Any) -> list[int]:
    """Push updates, and return their offsets."""
    return [await store.push_event(lease, RunEventType.UPDATE, "a", each) for each in data]


async def heard(store: RunStore, run_id: str, after: int = -1, many: int | None = None) -> list[RunEvent]:
    """What a stream says until it ends, or has said so much."""
    events: list[RunEvent] = []
    async for event in store.stream(run_id, after):
        events.append(event)
        if len(events) == many:
            break
    return events


async def raises(kind: type[BaseException], call: Awaitable[object], what: str) -> None:
    """Fail unless a call raises that kind of error."""
    try:
        await call
    except kind:
        return
    raise AssertionError(f"{what} did not raise {kind.__name__}")


async def together(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What calls return that are made at the same time, in their order."""
    results: list[Any] = [None] * len(calls)

    async def one(number: int) -> None:
        results[number] = await calls[number]()

    async with anyio.create_task_group() as tasks:
        for number in range(len(calls)):
            tasks.start_soon(one, number)
    return results
