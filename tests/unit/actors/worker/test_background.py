"""Background tasks of a worker."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, JobError
from actors.worker.verbs import core_of
from tests.support.running import running
from tests.support.workers import Performer

pytestmark = pytest.mark.anyio


async def test_a_background_task_runs_beside_its_worker_and_tells_when_it_is_done() -> None:
    worker, seen = BaseWorker("worker"), []

    async def background() -> None:
        seen.append("ran")

    async with running(worker):
        task = worker.create_task(background(), "seeing")
        assert (task.get_name(), task.done(), repr(task)) == (
            "worker::seeing",
            False,
            "<BackgroundTask worker::seeing running>",
        )
        await task.wait()
        await task.wait()
        assert task.done()
        assert seen == ["ran"]
        assert not core_of(worker).background


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
async def test_what_a_background_task_raises_that_is_not_vital_is_reported_and_goes_no_further(
    kind: type[BaseException],
) -> None:
    worker, errors = BaseWorker("worker"), []

    async def background() -> None:
        raise kind("no")

    async with running(worker) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        await worker.create_task(background(), vital=False).wait()
        await anyio.wait_all_tasks_blocked()
        assert errors == [f"background task 'worker::task' failed: {kind.__name__}: no"]
        assert core_of(worker).state.name == "READY"


async def test_a_background_task_can_be_cancelled_before_and_while_it_runs() -> None:
    worker, left = BaseWorker("worker"), []

    async def background(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.append(number)

    async with running(worker):
        await worker.cancel_task(worker.create_task(background(1)))
        running_task = worker.create_task(background(2))
        await anyio.wait_all_tasks_blocked()
        await worker.cancel_task(running_task)
        assert left == [1, 2]
        with anyio.move_on_after(0):
            await worker.create_task(background(3)).wait()
        await worker.stop()
        assert left == [1, 2, 3]


async def test_a_background_task_that_swallows_the_end_of_its_worker_spins_no_longer() -> None:
    worker, released, swallowed = BaseWorker("worker"), anyio.Event(), 0

    async def background() -> None:
        nonlocal swallowed
        while not released.is_set():
            try:
                await released.wait()
            except anyio.get_cancelled_exc_class():
                swallowed += 1

    async with running(BaseWorker("other"), worker, cancel_grace=0.05) as runner:
        task = worker.create_task(background())
        await anyio.wait_all_tasks_blocked()
        await runner.remove_worker("worker")
        before = swallowed
        assert before > 0
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert swallowed <= before + 1
        released.set()
        await task.wait()


async def test_a_background_task_that_ended_leaves_its_successor_alone() -> None:
    worker, ran = BaseWorker("worker"), []

    async def background(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        ran.append(number)

    async with running(worker):
        first = worker.create_task(background(1))
        await first.wait()
        await anyio.wait_all_tasks_blocked()
        second = worker.create_task(background(2))
        first.cancel()
        await second.wait()
        assert ran == [1, 2]


async def test_whoever_gives_up_waiting_for_a_background_task_is_forgotten() -> None:
    worker = BaseWorker("worker")
    async with running(worker):
        task = worker.create_task(anyio.sleep_forever())
        for _ in range(10):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await task.wait()
        assert not task.done()
        assert task._over.statistics().tasks_waiting == 0
        await worker.cancel_task(task)


async def test_a_job_asked_for_in_a_background_task_ends_with_the_worker() -> None:
    worker, performer, outcomes = BaseWorker("worker"), Performer("performer"), []

    async def background() -> None:
        try:
            await worker.job("performer", name="work")
        except JobError as error:
            outcomes.append(error.status.value)
            raise

    async with running(worker, performer):
        worker.create_task(background())
        await anyio.wait_all_tasks_blocked()
        assert performer.begun
        await worker.stop()
        await anyio.wait_all_tasks_blocked()
        assert performer.active_jobs == {}
        assert worker.job_groups == {}
