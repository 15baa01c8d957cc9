"""Those who read the events of one run in one process share the looks at its store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from actors.runs import (
    Changes,
    InMemoryRunStore,
    Lease,
    MemoryLedger,
    RunEvent,
    RunEventType,
    RunRequest,
    RunState,
    RunStoreError,
)
from actors.runs.stores.readers import KEPT
from tests.support.ledgers import Interrupted

pytestmark = pytest.mark.anyio

READERS = 1000


@asynccontextmanager
async def a_run(ledger: MemoryLedger) -> AsyncIterator[tuple[InMemoryRunStore, Lease]]:
    """A run, and a store through which another process does it."""
    store = InMemoryRunStore(ledger)
    await store.create(RunRequest(worker_names=("a",)))
    (lease,) = await store.leases()
    taken = await store.take(lease, "owner")
    assert taken is not None
    yield store, taken


async def say(store: InMemoryRunStore, lease: Lease, *data: object) -> None:
    for each in data:
        await store.push_event(lease, RunEventType.UPDATE, "a", each)


class Reader:
    def __init__(self) -> None:
        self.heard: list[RunEvent] = []
        self.error: Exception | None = None
        self.scope = anyio.CancelScope()

    async def read(self, store: InMemoryRunStore, run_id: str, after: int = -1) -> None:
        with self.scope:
            try:
                async for event in store.stream(run_id, after):
                    self.heard.append(event)
            except RunStoreError as error:
                self.error = error


async def have_heard(many: int, *readers: Reader) -> None:
    with anyio.fail_after(60):
        while any(len(reader.heard) < many for reader in readers):
            await checkpoint()


async def test_a_thousand_readers_of_a_run_cost_the_database_one() -> None:
    ledger = Interrupted()
    readers = [Reader() for _ in range(READERS)]
    async with a_run(ledger) as (store, lease), anyio.create_task_group() as tasks:
        await say(store, lease, 0)
        for reader in readers:
            tasks.start_soon(reader.read, store, lease.run_id)
        await have_heard(1, *readers)
        before = ledger.operations
        await say(store, lease, *range(1, 21))
        await have_heard(21, *readers)
        assert ledger.operations - before < READERS
        await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
    for reader in readers:
        assert [event.offset for event in reader.heard] == list(range(22))


async def test_when_the_reader_that_looks_leaves_another_looks() -> None:
    readers = [Reader() for _ in range(3)]
    async with a_run(MemoryLedger()) as (store, lease), anyio.create_task_group() as tasks:
        for reader in readers:
            tasks.start_soon(reader.read, store, lease.run_id)
        for number, reader in enumerate(readers[:2]):
            await say(store, lease, number)
            await have_heard(number + 1, *readers[number:])
            reader.scope.cancel()
        await say(store, lease, 2)
        await have_heard(3, readers[2])
        await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)


async def test_when_the_store_does_not_answer_every_reader_is_told_after_one_try() -> None:
    tries = 0

    class Away(Interrupted):
        away = False

        async def _step(self, *, after: bool) -> None:
            nonlocal tries
            await super()._step(after=after)
            if self.away and not after:
                tries += 1
                raise RunStoreError("the store is away")

    ledger = Away()
    readers = [Reader() for _ in range(100)]
    async with a_run(ledger) as (store, lease), anyio.create_task_group() as tasks:
        await say(store, lease, 0)
        for reader in readers:
            tasks.start_soon(reader.read, store, lease.run_id)
        await have_heard(1, *readers)
        ledger.away = True
        ledger.changes.note(lease.run_id)
        with anyio.fail_after(60):
            while not all(reader.error is not None for reader in readers):
                await checkpoint()
    assert tries == 1
    assert {str(reader.error) for reader in readers} == {"the store is away"}


async def test_a_reader_with_an_absurd_offset_keeps_nobody_busy() -> None:
    ledger = Interrupted()
    absurd, usual = Reader(), Reader()
    async with a_run(ledger) as (store, lease), anyio.create_task_group() as tasks:
        await say(store, lease, 0)
        tasks.start_soon(absurd.read, store, lease.run_id, 10**9)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(usual.read, store, lease.run_id)
        await have_heard(1, usual)
        with anyio.fail_after(30):
            await anyio.wait_all_tasks_blocked()
        await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
    assert (len(absurd.heard), len(usual.heard)) == (0, 2)


async def test_a_reader_that_is_far_behind_misses_nothing() -> None:
    many = 5 * KEPT
    async with a_run(MemoryLedger()) as (store, lease), anyio.create_task_group() as tasks:
        fast = Reader()
        tasks.start_soon(fast.read, store, lease.run_id)
        slow = store.stream(lease.run_id)
        await say(store, lease, 0)
        heard = [await anext(slow)]
        await say(store, lease, *range(1, many))
        await have_heard(many, fast)
        feed = store._readers._feeds[lease.run_id]
        assert len(feed._events) <= 3 * KEPT
        await store.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
        heard += [event async for event in slow]
        await have_heard(many + 1, fast)
        assert heard == fast.heard


async def test_what_another_process_adds_is_heard_too() -> None:
    """Nobody tells of it: it is looked for."""
    ledger = MemoryLedger()
    reader = Reader()
    async with a_run(ledger) as (store, lease), anyio.create_task_group() as tasks:
        other = Interrupted(ledger)
        other.changes = Changes()
        elsewhere = InMemoryRunStore(other)
        tasks.start_soon(reader.read, store, lease.run_id)
        await say(elsewhere, lease, 0)
        await have_heard(1, reader)
        await elsewhere.set_state(lease.run_id, RunState.RUNNING, RunState.COMPLETED, lease=lease)
    assert [event.offset for event in reader.heard] == [0, 1]
