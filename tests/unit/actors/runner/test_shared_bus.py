"""Several runners on one bus."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from actors import (
    JobStatus,
    WorkerUnavailableError,
)
from bus import AsyncQueueBus
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Asker, Performer, quiet

pytestmark = pytest.mark.anyio


async def test_workers_of_one_runner_ask_workers_of_another_on_the_same_bus() -> None:
    asker, worker = Asker(), Performer("worker")
    async with AsyncQueueBus() as bus, running(asker, bus=bus) as first, running(worker, bus=bus) as second:
        assert await asker.job("worker", name="echo", payload=[1]) == [1]
        assert first.registry.remote_workers == ["worker"]
        assert second.registry.remote_workers == ["asker"]
        data = first.registry.get("worker")
        assert data is not None
        assert data.runner == second.name


@virtual_time()
async def test_when_a_runner_ends_watchers_of_the_other_are_told_and_waiting_jobs_fail_in_time() -> None:
    asker, worker = Asker(), Performer("worker")
    async with AsyncQueueBus() as bus, running(asker, bus=bus, ready_timeout=12.0) as first:
        second = quiet(bus=bus)
        await second.add_workers(worker)
        async with anyio.create_task_group() as tasks, second:
            await asker.watch_workers("worker")
            tasks.start_soon(asker.ask, "worker", "one", "running")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(asker.ask, "worker", "one", "waiting")
            await anyio.wait_all_tasks_blocked()
            await second.cancel()
            ended = anyio.current_time()
        assert asker.outcomes["running"].status is JobStatus.CANCELLED
        assert isinstance(asker.outcomes["waiting"], WorkerUnavailableError)
        assert asker.outcomes["waiting"].status is JobStatus.FAILED
        assert anyio.current_time() - ended == pytest.approx(12.0)
        assert [data.runner for data in asker.lost] == [second.name]
        assert "worker" not in first.registry


async def test_when_the_bus_stops_every_runner_on_it_ends_and_whoever_waits_is_told() -> None:
    asker, worker, bus, stop = Asker(), Performer("worker"), AsyncQueueBus(), anyio.Event()

    async def carry() -> None:
        async with bus:
            await stop.wait()

    first, second = quiet("first", bus=bus), quiet("second", bus=bus)
    await first.add_workers(asker)
    await second.add_workers(worker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(carry)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(first.run)
        tasks.start_soon(second.run)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(asker.ask, "worker", "work", "running")
        tasks.start_soon(asker.ask, "nobody", "work", "waiting")
        await anyio.wait_all_tasks_blocked()
        stop.set()
    assert {error.status for error in asker.outcomes.values()} == {JobStatus.CANCELLED}
    assert (first.running, second.running, bus.statistics().subscribers) == (False, False, 0)
