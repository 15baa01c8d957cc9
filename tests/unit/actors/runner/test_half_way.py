"""Workers between two states: ready while watchers are slow, never started, ending with work left."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, JobError, JobStatus, WorkerUnavailableError, job
from actors.worker.verbs import core_of
from bus import WorkerReadyData
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Asker, Performer, quiet

pytestmark = pytest.mark.anyio


async def test_a_worker_whose_adding_is_cancelled_while_a_slow_watcher_is_told_becomes_ready_all_the_same() -> None:
    gate, told = anyio.Event(), []

    async def slow(data: WorkerReadyData) -> None:
        told.append(data.worker_name)
        await gate.wait()

    class Activated(Performer):
        async def on_activated(self, args: Any) -> None:
            told.append("activated")

    async with running(asker := Asker()) as runner:
        await runner.registry.watch("late", slow)
        late = Activated("late")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.add_workers, late)
            await anyio.wait_all_tasks_blocked()
            assert told == ["late"]
            tasks.cancel_scope.cancel()
        group = await asker.create_job_group_and_request_job(["late"], name="echo", payload=1)
        gate.set()
        await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert told == ["late", "activated"]
        assert core_of(late).state.name == "READY"


async def test_a_worker_that_is_removed_while_a_slow_watcher_is_told_serves_nothing() -> None:
    gate, told = anyio.Event(), []

    async def slow(data: WorkerReadyData) -> None:
        told.append(data.worker_name)
        await gate.wait()

    async with running(Asker()) as runner:
        await runner.registry.watch("late", slow)
        late = Performer("late")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.add_workers, late)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(late.stop)
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert core_of(late).state.name == "STOPPED"
        assert runner.registry.local_workers == ["asker"]


@virtual_time()
@pytest.mark.parametrize("where", ["start", "run"])
async def test_g5_a_worker_whose_start_never_ends_is_unavailable_to_who_asks_it(where: str) -> None:
    class Stuck(Performer):
        async def start(self) -> None:
            if where == "start":
                await anyio.sleep_forever()
            await super().start()

        async def run(self, params: Any) -> None:
            if where == "run":
                await anyio.sleep_forever()
            await super().run(params)

    async with running(Stuck("stuck"), asker := Asker(), ready_timeout=5.0):
        began = anyio.current_time()
        with pytest.raises(WorkerUnavailableError, match="'stuck'"):
            await asker.job("stuck", name="echo", payload=1)
        assert anyio.current_time() - began == pytest.approx(5.0)


async def test_g30_the_hooks_of_what_ends_while_a_runner_drains_are_called() -> None:
    heard: list[str] = []

    class Hearing(BaseWorker):
        async def on_job_update(self, message: Any) -> None:
            heard.append(message.update)

        async def on_job_completed(self, result: Any) -> None:
            heard.append("completed")

    class Last(Performer):
        @job
        async def last(self) -> str:
            await self.gate.wait()
            for job_id in self.active_jobs:
                await self.send_job_update(job_id, "last words")
            return "done"

    runner = quiet(drain_timeout=30.0)
    hearing, performer = Hearing("hearing"), Last("performer")
    await runner.add_workers(hearing, performer)
    async with runner:
        await hearing.request_job("performer", name="last")
        await anyio.wait_all_tasks_blocked()
        await runner.end()
        await anyio.wait_all_tasks_blocked()
        performer.gate.set()
    assert heard == ["last words", "completed"]


@virtual_time()
async def test_g30_a_job_that_asks_an_inactive_worker_holds_up_a_drain_no_longer_than_it_may() -> None:
    class Outer(Performer):
        @job
        async def outer(self) -> Any:
            await self.gate.wait()
            return await self.job("asleep", name="echo", payload=1)

    runner = quiet(drain_timeout=7.0, ready_timeout=60.0)
    outer, asleep, asker = Outer("outer"), Performer("asleep"), Asker()
    await runner.add_workers(outer, asleep, asker)
    async with runner:
        await asker.deactivate_worker("asleep")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asker.ask, "outer", "outer")
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            await runner.end()
            outer.gate.set()
    assert anyio.current_time() - began <= 7.0
    outcome = asker.outcomes["j"]
    assert isinstance(outcome, JobError)
    assert outcome.status in {JobStatus.CANCELLED, JobStatus.ERROR}
