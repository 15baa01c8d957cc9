"""A job for a name that nobody serves waits for who comes, in order, and for no longer than it may: G5."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from actors import JobError, JobStatus, WorkerUnavailableError, job
from bus import BusJobRequestMessage
from tests.support.running import running
from tests.support.workers import Boss, Clerk, Hanging

pytestmark = pytest.mark.anyio


async def test_g5_a_name_that_nobody_ever_serves_fails_the_job_after_ready_timeout() -> None:
    boss = Boss()
    async with running(boss, Clerk("critic"), ready_timeout=0.02) as runner:
        with pytest.raises(WorkerUnavailableError, match=r"nobody served 'critics'.*did you mean 'critic'") as caught:
            await boss.job("critics", name="echo")
        assert (caught.value.status, caught.value.retryable) == (JobStatus.FAILED, True)
        assert runner.bus.statistics().parked == 0


async def test_g5_a_job_waits_for_a_worker_that_comes_in_time() -> None:
    boss = Boss()
    async with running(boss, ready_timeout=50.0) as runner:
        job_id = await boss.request_job("late", name="echo", payload="waited")
        await anyio.wait_all_tasks_blocked()
        assert runner.bus.statistics().parked == 1
        await runner.add_workers(Clerk("late"))
        await anyio.wait_all_tasks_blocked()
        assert [(each.job_id, each.response) for each in boss.responses] == [(job_id, "waited")]


async def test_g5_jobs_that_wait_for_a_worker_are_kept_in_order_and_cancelled_one_by_one() -> None:
    boss = Boss()
    async with running(boss, ready_timeout=50.0) as runner:
        jobs = [await boss.request_job("late", name="echo", payload=number) for number in range(5)]
        await boss.cancel_job_group(jobs[1])
        await boss.cancel_job_group(jobs[3])
        assert runner.bus.statistics().parked == 3
        late = Clerk("late")
        late.max_concurrency = 1
        await runner.add_workers(late)
        await anyio.wait_all_tasks_blocked()
        answered = [each.response for each in boss.responses if each.status is JobStatus.COMPLETED]
        assert answered == [0, 2, 4]


async def test_g5_a_job_whose_worker_is_removed_before_it_began_goes_to_its_successor_or_fails() -> None:
    class OneByOne(Hanging):
        @job(name="hang", sequential=True)
        async def hang(self, message: BusJobRequestMessage) -> None:
            await super().hang(message)

    boss, first = Boss(), OneByOne("w")
    async with running(boss, first, ready_timeout=0.5, drain_timeout=0.01) as runner:
        running_job = await boss.request_job("w", name="hang")
        await first.began.wait()
        waiting_job = await boss.request_job("w", name="hang")
        lost_job = await boss.request_job("w", name="hang")
        await boss.cancel_job_group(lost_job)
        assert await runner.remove_worker("w")
        assert runner.bus.statistics().parked == 1
        second = OneByOne("w")
        await runner.add_workers(second)
        await second.began.wait()
        assert list(second.active_jobs) == [waiting_job]
        assert first.ended == [running_job]
        await runner.remove_worker("w")
        doomed = await boss.request_job("w", name="hang")
        with pytest.raises(JobError) as caught:
            await boss.job_groups[doomed].wait()
        assert caught.value.status is JobStatus.FAILED
    by_job = {each.job_id: each.status for each in boss.responses}
    assert by_job[running_job] == by_job[waiting_job] == JobStatus.CANCELLED
    assert by_job[doomed] is JobStatus.FAILED
