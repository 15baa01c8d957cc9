"""A job has one deadline from request to answer, whatever it waits for: G6."""

from __future__ import annotations

import math
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Job, JobStatus, JobTimeoutError, job
from tests.support.running import running
from tests.support.workers import Clerk, Hanging, Silent

pytestmark = pytest.mark.anyio


async def test_g6_one_deadline_covers_waiting_for_a_worker() -> None:
    boss = BaseWorker("boss")
    async with running(boss, Clerk("critic"), ready_timeout=1000.0) as runner:
        with pytest.raises(JobTimeoutError, match=r"'critics' before the deadline.*did you mean 'critic'"):
            await boss.job("critics", name="echo", timeout=0.02)
        assert runner.bus.statistics().parked == 0


async def test_g6_one_deadline_covers_queueing() -> None:
    class OneAtATime(Hanging):
        max_concurrency = 1

    boss, worker = BaseWorker("boss"), OneAtATime("w")
    async with running(boss, worker):
        first = await boss.request_job("w", name="hang")
        await worker.began.wait()
        with pytest.raises(JobTimeoutError):
            await boss.job("w", name="hang", timeout=0.02)
        await anyio.wait_all_tasks_blocked()
        assert worker.ended == []
        assert list(worker.active_jobs) == [first]
        await boss.cancel_job_group(first)


async def test_g6_one_deadline_covers_running_and_the_handler_is_told() -> None:
    boss, hanging = BaseWorker("boss"), Hanging("w")
    async with running(boss, hanging):
        with pytest.raises(JobTimeoutError, match="no answer from 'w' before the deadline") as caught:
            await boss.job("w", name="hang", timeout=0.02)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.status, caught.value.retryable) == (JobStatus.FAILED, True)
        await anyio.wait_all_tasks_blocked()
        assert hanging.ended == [caught.value.job_id]


async def test_g6_a_job_left_open_ends_at_its_deadline() -> None:
    boss, silent = BaseWorker("boss"), Silent("silent")
    async with running(boss, silent):
        with pytest.raises(JobTimeoutError) as caught:
            await boss.job("silent", timeout=0.02)
        await anyio.wait_all_tasks_blocked()
        assert silent.cancelled == [caught.value.job_id]
        assert silent.active_jobs == {}


async def test_g6_a_job_asked_for_inside_another_never_outlives_its_deadline() -> None:
    class Middle(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.remaining: list[float | None] = []

        @job
        async def ask(self, work: Job[Any]) -> None:
            self.remaining.append(work.remaining)
            await self.job("end", name="remaining", timeout=500)

    class End(BaseWorker):
        seen: float | None = None

        @job
        async def remaining(self, work: Job[Any]) -> None:
            self.seen = work.remaining
            await anyio.sleep_forever()

    boss, middle, end = BaseWorker("boss"), Middle("middle"), End("end")
    async with running(boss, middle, end):
        with pytest.raises(JobTimeoutError):
            await boss.job("middle", name="ask", timeout=0.5)
        assert middle.remaining[0] is not None
        assert end.seen is not None
        assert end.seen <= middle.remaining[0] <= 0.5


@pytest.mark.parametrize(("name", "sooner"), [("hang", 0.02), ("limited", 0.02)])
async def test_g6_the_sooner_of_the_requesters_and_the_handlers_limit_counts(name: str, sooner: float) -> None:
    boss, hanging = BaseWorker("boss"), Hanging("w")
    async with running(boss, hanging):
        with pytest.raises(JobTimeoutError) as caught:
            await boss.job("w", name=name, timeout=sooner if name == "hang" else 50)
        assert caught.value.status is JobStatus.FAILED
        await anyio.wait_all_tasks_blocked()
        assert hanging.ended == [caught.value.job_id]


@pytest.mark.parametrize(("asked", "least", "most"), [(None, 20.0, 30.0), (100.0, 20.0, 30.0), (5.0, 0.0, 5.0)])
async def test_g6_a_handler_sees_what_is_left_of_the_sooner_limit(
    asked: float | None, least: float, most: float
) -> None:
    class Clock(BaseWorker):
        @job(timeout=30.0)
        async def left(self, work: Job[Any]) -> float | None:
            return work.remaining

    boss = BaseWorker("boss")
    async with running(boss, Clock("clock")):
        assert least < await boss.job("clock", name="left", timeout=asked) <= most


async def test_g6_a_handler_that_ignores_its_own_limit_is_answered_for_after_the_grace() -> None:
    boss, hanging = BaseWorker("boss"), Hanging("w")
    async with running(boss, hanging, cancel_grace=0.02):
        try:
            with pytest.raises(JobTimeoutError):
                await boss.job("w", name="stubborn")
        finally:
            hanging.release()
        await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("timeout", [math.inf, 1e9])
async def test_g6_a_limit_that_is_far_away_changes_nothing(timeout: float) -> None:
    boss = BaseWorker("boss")
    async with running(boss, Clerk("echo")):
        assert await boss.job("echo", name="echo", payload=1, timeout=timeout) == 1


async def test_g6_a_limit_of_zero_has_passed() -> None:
    boss, hanging = BaseWorker("boss"), Hanging("w")
    async with running(boss, hanging):
        with pytest.raises(JobTimeoutError):
            await boss.job("w", name="hang", timeout=0)
        await anyio.wait_all_tasks_blocked()
