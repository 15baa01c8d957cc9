"""How many jobs a worker does at once, and which of those that wait for a slot comes next."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.from_thread
import pytest

from actors import BaseWorker, Job, JobError, JobStatus, job
from bus import BusJobRequestMessage
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Limited(BaseWorker):
    """Counts how many of its jobs run at once; they end when told."""

    max_concurrency = 5

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.running = self.most = 0
        self.order: list[Any] = []
        self.may_end = anyio.Semaphore(0)

    async def work(self, message: BusJobRequestMessage) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(message.payload)
        try:
            await self.may_end.acquire()
        finally:
            self.running -= 1
        return message.payload

    @job(sequential=True)
    async def one(self, message: BusJobRequestMessage) -> Any:
        return await self.work(message)

    @job(max_concurrency=3)
    async def three(self, message: BusJobRequestMessage) -> Any:
        return await self.work(message)

    @job
    async def free(self, message: BusJobRequestMessage) -> Any:
        return await self.work(message)

    @job
    async def quick(self) -> str:
        return "quick"


@pytest.mark.parametrize(("name", "most"), [("one", 1), ("three", 3), ("free", 5)])
async def test_no_more_jobs_run_at_once_than_their_handler_and_worker_allow(name: str, most: int) -> None:
    boss, limited = BaseWorker("boss"), Limited("limited")
    async with running(boss, limited):
        groups = [
            await boss.create_job_group_and_request_job(["limited"], name=name, payload=number) for number in range(12)
        ]
        await anyio.wait_all_tasks_blocked()
        assert sorted(limited.order) == list(range(most))
        assert len(limited.active_jobs) == 12
        for _ in groups:
            limited.may_end.release()
        for number, group in enumerate(groups):
            await group.wait()
            assert group.responses == {"limited": number}
        assert limited.most == most
        assert sorted(limited.order) == list(range(12))
        if most == 1:
            assert limited.order == list(range(12))


async def test_the_handlers_of_a_worker_share_its_limit() -> None:
    boss, limited = BaseWorker("boss"), Limited("limited")
    async with running(boss, limited):
        groups = [
            await boss.create_job_group_and_request_job(["limited"], name=name, payload=name)
            for name in ("three", "three", "free", "free", "free", "free", "one", "three")
        ]
        await anyio.wait_all_tasks_blocked()
        assert limited.running == 5
        for group in groups:
            limited.may_end.release()
            await anyio.wait_all_tasks_blocked()
            assert limited.running <= 5
            assert not group.is_done or group.responses
        assert limited.most == 5
        assert all(group.is_done for group in groups)


async def test_jobs_of_different_handlers_that_wait_start_in_the_order_asked() -> None:
    class OneOfAll(Limited):
        max_concurrency = 1

    boss, limited = BaseWorker("boss"), OneOfAll("limited")
    async with running(boss, limited):
        names = ["free", "free", "free", "one", "three", "free", "one", "free"]
        for number, name in enumerate(names):
            await boss.request_job("limited", name=name, payload=number)
        for _ in names:
            await anyio.wait_all_tasks_blocked()
            limited.may_end.release()
        await anyio.wait_all_tasks_blocked()
        assert limited.order == list(range(8))


async def test_a_full_handler_does_not_hold_up_the_others_of_its_worker() -> None:
    boss, limited = BaseWorker("boss"), Limited("limited")
    async with running(boss, limited):
        jobs = [await boss.request_job("limited", name="one", payload=number) for number in range(10)]
        assert await boss.job("limited", name="quick") == "quick"
        assert limited.most == 1
        for job_id in jobs:
            await boss.cancel_job_group(job_id)


async def test_a_job_that_waits_may_be_cancelled_and_never_runs() -> None:
    boss, limited = BaseWorker("boss"), Limited("limited")
    async with running(boss, limited):
        first, second, third = [
            await boss.create_job_group_and_request_job(["limited"], name="one", payload=number) for number in range(3)
        ]
        await boss.cancel_job_group(second.job_id)
        limited.may_end.release()
        limited.may_end.release()
        await first.wait()
        await third.wait()
        assert limited.order == [0, 2]


async def test_a_failing_or_cancelled_sequential_job_lets_the_next_one_run() -> None:
    class Fragile(BaseWorker):
        @job(sequential=True)
        async def one(self, what: str) -> str:
            if what == "raise":
                raise SystemExit(1)
            if what == "hang":
                await anyio.sleep_forever()
            return what

    boss = BaseWorker("boss")
    async with running(boss, Fragile("f")):
        outcomes: list[Any] = []
        jobs = [
            await boss.create_job_group_and_request_job(["f"], name="one", payload=what, timeout=50)
            for what in ("raise", "hang", "raise", "fine")
        ]
        await anyio.wait_all_tasks_blocked()
        await boss.cancel_job_group(jobs[1].job_id)
        for each in jobs:
            try:
                await each.wait()
            except JobError as error:
                outcomes.append(error.status)
            else:
                outcomes.append(each.responses["f"])
        assert outcomes == ["error", "cancelled", "error", "fine"]


class Ring(BaseWorker):
    """Asks the next worker of a ring from inside a job that allows no second one."""

    max_concurrency = 1

    def __init__(self, name: str, after: str) -> None:
        super().__init__(name)
        self.after = after

    @job(sequential=True)
    async def round(self, message: BusJobRequestMessage) -> list[str]:
        left: int = message.payload
        if left == 0:
            return [self.name]
        return [self.name, *(await self.job(self.after, name="round", payload=left - 1))]

    @job(sequential=True)
    async def round_after_answering(self, work: Job[int]) -> None:
        await work.respond("early")
        self.last = await self.job(self.after, name="round", payload=work.payload)


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_sequential_job_that_asks_itself_through_others_does_not_wait_for_itself(size: int) -> None:
    ring = [Ring(f"r{number}", f"r{(number + 1) % size}") for number in range(size)]
    boss = BaseWorker("boss")
    async with running(boss, *ring):
        answer = await boss.job("r0", name="round", payload=3 * size)
        assert answer == [f"r{number % size}" for number in range(3 * size + 1)]


async def test_a_job_that_asks_itself_does_not_wait_for_itself_even_after_it_has_answered() -> None:
    ring = [Ring("r0", "r1"), Ring("r1", "r0")]
    boss = BaseWorker("boss")
    async with running(boss, *ring):
        assert await boss.job("r0", name="round_after_answering", payload=2, timeout=50) == "early"
        await anyio.wait_all_tasks_blocked()
        assert ring[0].last == ["r1", "r0", "r1"]


async def test_jobs_that_ask_each_other_in_a_loop_are_an_error_and_not_the_end_of_memory() -> None:
    class Loop(BaseWorker):
        @job
        async def ask(self) -> None:
            await self.job("loop", name="ask")

    boss = BaseWorker("boss")
    async with running(boss, Loop("loop")):
        with pytest.raises(JobError, match="JobStateError: jobs nested more than 100 deep") as caught:
            await boss.job("loop", name="ask")
        assert caught.value.status is JobStatus.ERROR
