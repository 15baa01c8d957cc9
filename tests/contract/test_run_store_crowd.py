"""A crowd on one database: submitters, owners that steal, leave and die, readers that come and go, and cancels.

Whatever happens: one key is one run, each run ends once, all its readers hear the same, and what its last owner was
told is there is there, once and in order.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import TypeVar

import anyio
import anyio.abc
import pytest
from anyio.lowlevel import checkpoint

from actors.runs import (
    Entry,
    InMemoryRunStore,
    Lease,
    MemoryLedger,
    NatsRunStore,
    RedisRunStore,
    RunEvent,
    RunEventType,
    RunLostError,
    RunRequest,
    RunState,
    RunStore,
    RunStoreError,
    SQLiteRunStore,
)
from bus.brokers import Broker, RedisBroker

pytestmark = pytest.mark.anyio

T = TypeVar("T")

RUNS, STORES, OWNERS, READERS = 6, 3, 4, 4


class Shaky(MemoryLedger):
    """Takes its time, and fails now and then: before it has done something, or after."""

    def __init__(self, entries: MemoryLedger, rng: Random) -> None:
        super().__init__()
        self._folders = entries._folders
        self._entries = entries
        self._rng = rng

    async def _shake(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await checkpoint()
        if self._rng.random() < 0.03:
            raise RunStoreError("shaken")

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        await self._shake()
        return await super().read(keys)

    async def put(self, key: str, value: bytes, version: int) -> bool:
        await self._shake()
        done = await self._entries.put(key, value, version)
        await self._shake()
        return done

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        await self._shake()
        await super().delete(keys, version)
        await self._shake()

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> list[str]:
        await self._shake()
        return await super().keys(folder, before, limit)


class Crowd:
    def __init__(self, stores: Sequence[RunStore], rng: Random) -> None:
        self.stores = stores
        self.rng = rng
        self.run_ids: dict[str, set[str]] = {}
        self.ended: dict[str, RunState] = {}
        self.told: dict[tuple[str, int], list[tuple[int, object]]] = {}
        self.heard: dict[str, list[list[RunEvent]]] = {}

    async def gather(self) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(OWNERS):
                tasks.start_soon(self.own, number)
            async with anyio.create_task_group() as others:
                for number in range(2):
                    others.start_soon(self.submit, number, others)
            tasks.cancel_scope.cancel()

    async def submit(self, number: int, readers: anyio.abc.TaskGroup) -> None:
        store = self.stores[number]
        for n in range(RUNS):
            request = RunRequest(worker_names=("a",), payload=n)
            run_id = (await again(lambda: store.create(request, idempotency_key=f"run {n}"))).run_id  # noqa: B023
            self.run_ids.setdefault(f"run {n}", set()).add(run_id)
            for _ in range(READERS // 2):
                readers.start_soon(self.read, self.rng.choice(self.stores), run_id)
            if self.rng.random() < 0.3:
                await again(lambda: store.cancel(run_id))  # noqa: B023

    async def read(self, store: RunStore, run_id: str) -> None:
        heard: list[RunEvent] = []
        while not (heard and heard[-1].type.terminal):
            leaves_after = self.rng.choice([1, 3, math.inf])
            try:
                async for event in store.stream(run_id, heard[-1].offset if heard else -1):
                    heard.append(event)
                    leaves_after -= 1
                    if not leaves_after:
                        break
            except RunStoreError:
                await checkpoint()
        self.heard.setdefault(run_id, []).append(heard)

    async def own(self, number: int) -> None:
        store = self.stores[number % STORES]
        while True:
            for lease in await again(store.leases):
                if self.rng.random() < (0.1 if lease.owner else 0.6):
                    try:
                        taken = await store.take(lease, f"owner{number}")
                    except RunStoreError:
                        continue  # it may be ours, and we do not know: another finds it
                    if taken is not None:
                        try:
                            await self.do(store, taken)
                        except RunLostError:
                            continue
            await checkpoint()

    async def do(self, store: RunStore, lease: Lease) -> None:
        told = self.told.setdefault((lease.run_id, lease.attempt), [])
        for n in range(self.rng.randrange(6)):
            data = [lease.attempt, n // 2]
            told.append((await again(lambda: store.push_event(lease, RunEventType.UPDATE, "a", data)), data))  # noqa: B023
        how = self.rng.choice(["dies", "leaves", RunState.COMPLETED, RunState.COMPLETED, RunState.FAILED])
        if how == "leaves":
            await again(lambda: store.release(lease))
        elif isinstance(how, RunState):
            await again(lambda: store.set_result(lease, lease.attempt))
            for state in (how, RunState.CANCELLED):
                if await again(lambda: store.set_state(lease.run_id, RunState.RUNNING, state, lease=lease)):  # noqa: B023
                    assert self.ended.setdefault(lease.run_id, state) is state
                    break

    async def check(self) -> None:
        assert [len(run_ids) for run_ids in self.run_ids.values()] == [1] * RUNS
        for (run_id,) in self.run_ids.values():
            status = await again(lambda: self.stores[0].get(run_id))  # noqa: B023
            assert status.state is self.ended.get(run_id, RunState.CANCELLED)
            if status.state is RunState.COMPLETED:
                assert status.cancel_requested_at is None
                assert await again(lambda: self.stores[1].result(run_id)) == status.attempts  # noqa: B023
            events = list(await again(lambda: self.stores[2].events(run_id)))  # noqa: B023
            assert [event.type.terminal for event in events] == [False] * (len(events) - 1) + [True]
            attempts = [event.attempt for event in events]
            assert attempts == sorted(attempts)
            assert self.heard[run_id] == [events] * READERS
            last = [(event.offset, event.data) for event in events[:-1] if event.attempt == status.attempts]
            assert last == self.told.get((run_id, status.attempts), [])


async def again(operation: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await operation()
        except RunStoreError:
            await checkpoint()


async def gather(stores: Sequence[RunStore], seed: int) -> None:
    crowd = Crowd(stores, Random(seed))
    with anyio.fail_after(100):
        await crowd.gather()
        await crowd.check()


@pytest.mark.parametrize("seed", range(20))
async def test_a_crowd_on_a_database_that_fails_now_and_then(seed: int) -> None:
    entries, rng = MemoryLedger(), Random(seed)
    await gather([InMemoryRunStore(Shaky(entries, rng), rng=rng) for _ in range(STORES)], seed)


@pytest.mark.parametrize("seed", range(3))
async def test_a_crowd_on_one_file(tmp_path: Path, seed: int) -> None:
    async with AsyncExitStack() as stack:
        stores = [SQLiteRunStore(tmp_path / "runs.db") for _ in range(STORES)]
        await gather([await stack.enter_async_context(store) for store in stores], seed)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_crowd_on_one_server(each_broker: Broker) -> None:
    for seed in range(3):
        make = RedisRunStore if isinstance(each_broker, RedisBroker) else NatsRunStore
        async with AsyncExitStack() as stack:
            stores = [make(each_broker.url, namespace=f"crowd{seed}") for _ in range(STORES)]
            await gather([await stack.enter_async_context(store) for store in stores], seed)
