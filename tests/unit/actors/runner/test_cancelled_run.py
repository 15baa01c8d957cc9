"""A cancelled run cleans up and raises the cancellation: G31."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, JobStatus, job
from bus import AsyncQueueBus
from tests.support.running import running
from tests.support.virtual_time import virtual_time
from tests.support.workers import Asker, Performer, quiet

pytestmark = pytest.mark.anyio


class Waiting(Performer):
    """Says that it was stopped properly."""

    tidy = False

    async def stop(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.tidy = True
        await super().stop()


async def test_g31_a_cancelled_run_cleans_up_and_raises_the_cancellation() -> None:
    worker, asker, runner = Waiting("worker"), Asker(), quiet()
    await runner.add_workers(worker, asker)
    cancelled = False
    async with anyio.create_task_group() as outer:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await anyio.wait_all_tasks_blocked()
                outer.start_soon(asker.ask, "worker")
                await anyio.wait_all_tasks_blocked()
                scope.cancel()

            outer.start_soon(cancel)
            try:
                await runner.run()
            except anyio.get_cancelled_exc_class():
                cancelled = True
                raise
    assert cancelled
    assert scope.cancelled_caught
    assert worker.tidy
    assert asker.outcomes["j"].status is JobStatus.CANCELLED
    assert not runner.running
    assert runner.bus.statistics().subscribers == 0


@virtual_time()
async def test_g31_a_run_cancelled_while_it_drains_stops_at_once() -> None:
    worker, asker, runner = Waiting("worker"), Asker(), quiet(drain_timeout=30.0)
    await runner.add_workers(worker, asker)
    async with anyio.create_task_group() as outer:
        with anyio.CancelScope() as scope:

            async def end() -> None:
                await anyio.wait_all_tasks_blocked()
                outer.start_soon(asker.ask, "worker")
                await anyio.wait_all_tasks_blocked()
                await runner.end()
                await anyio.sleep(3)
                scope.cancel()

            outer.start_soon(end)
            began = anyio.current_time()
            await runner.run()
        assert anyio.current_time() - began == pytest.approx(3.0)
    assert scope.cancelled_caught
    assert worker.tidy
    assert asker.outcomes["j"].status is JobStatus.CANCELLED


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_g31_a_bare_asyncio_cancel_however_often_cleans_up_and_is_raised(times: int) -> None:
    worker, asker, runner = Waiting("worker"), Asker(), quiet()
    await runner.add_workers(worker, asker)
    task = asyncio.create_task(runner.run())
    await anyio.wait_all_tasks_blocked()
    question = asyncio.create_task(asker.ask("worker"))
    await anyio.wait_all_tasks_blocked()
    for _ in range(times):
        task.cancel()
        await anyio.lowlevel.checkpoint()
    with pytest.raises(asyncio.CancelledError):
        await task
    await question
    assert task.cancelled()
    assert worker.tidy
    assert asker.outcomes["j"].status is JobStatus.CANCELLED
    assert not runner.running
    assert runner.bus.statistics().subscribers == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_g31_a_bare_asyncio_cancel_of_the_context_is_raised_too() -> None:
    worker, runner, inside = Waiting("worker"), quiet(), anyio.Event()
    await runner.add_workers(worker)

    async def script() -> None:
        async with runner:
            inside.set()
            await asyncio.sleep(3600)

    task = asyncio.create_task(script())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.tidy


async def test_g31_requesters_elsewhere_are_told_although_a_handler_swallows_the_cancellation() -> None:
    released = anyio.Event()

    class Stubborn(BaseWorker):
        @job(name="work")
        async def work(self) -> None:
            while not released.is_set():
                with contextlib.suppress(BaseException):
                    await released.wait()

    asker = Asker()
    async with AsyncQueueBus() as bus, running(asker, bus=bus), anyio.create_task_group() as tasks:
        runner, told = quiet(bus=bus, cancel_grace=0.1), anyio.Event()
        await runner.add_workers(Stubborn("stubborn"))
        with anyio.CancelScope() as scope:

            async def ask() -> None:
                await asker.ask("stubborn")
                told.set()

            async def cancel() -> None:
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
                await told.wait()
                released.set()

            tasks.start_soon(cancel)
            await runner.run()
        assert asker.outcomes["j"].status is JobStatus.CANCELLED
