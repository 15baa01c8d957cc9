"""G51: the threads of plain handlers: they count until they have ended, starve nobody, and hold up no end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import from_thread

from actors import BaseWorker, Client, Job, JobError, JobTimeoutError, WorkerRunner, function, job
from actors.performer.threads import THREADS
from tests.support.running import running, settled

pytestmark = pytest.mark.anyio


class Blocking(BaseWorker):
    """Its handlers run until they are released, and count how many do at once."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.begun = self.now = self.most = 0

    def block(self) -> str:
        with self.lock:
            self.begun += 1
            self.now += 1
            self.most = max(self.most, self.now)
        self.release.wait(60)
        with self.lock:
            self.now -= 1
        return "released"

    @job
    def free(self) -> str:
        return self.block()

    @job(sequential=True)
    def one_by_one(self) -> str:
        return self.block()

    @job(timeout=0.01)
    def limited(self) -> str:
        return self.block()

    @job
    def early(self, job: Job[Any]) -> None:
        from_thread.run(job.respond, "early")
        self.block()

    @job
    async def ping(self) -> str:
        return "pong"

    async def has_begun(self, count: int = 1) -> None:
        await until(lambda: self.begun >= count)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await anyio.lowlevel.checkpoint()


async def test_g51_a_thread_holds_its_slot_after_its_deadline_until_it_has_ended() -> None:
    worker, client = Blocking("b"), BaseWorker("client")
    worker.max_concurrency = 1
    async with running(worker, client) as runner:
        with pytest.raises(JobTimeoutError):
            await client.job("b", name="limited")
        now = worker.statistics()
        assert (now.running, now.threads, now.abandoned) == (1, 1, 1)
        assert (runner.statistics().threads, runner.statistics().abandoned_threads) == (1, 1)
        assert runner.statistics().jobs == 0
        group = await client.create_job_group_and_request_job(["b"], name="ping")
        await anyio.wait_all_tasks_blocked()
        assert worker.statistics().pending == 1
        worker.release.set()
        await group.wait()
        await settled(runner)
        assert (worker.statistics().running, worker.statistics().abandoned) == (0, 0)


async def test_g51_sequential_holds_though_the_requester_gave_up() -> None:
    async with running(worker := Blocking("b"), client := BaseWorker("client")) as runner:
        group = await client.create_job_group_and_request_job(["b"], name="one_by_one")
        await worker.has_begun()
        group.cancel()
        later = await client.create_job_group_and_request_job(["b"], name="one_by_one")
        await anyio.wait_all_tasks_blocked()
        assert (worker.begun, worker.statistics().abandoned) == (1, 1)
        worker.release.set()
        await later.wait()
        assert (worker.begun, worker.most) == (2, 1)
        await settled(runner)


async def test_g51_the_thread_of_a_job_that_was_answered_early_counts_and_is_left_when_its_worker_stops() -> None:
    async with running(worker := Blocking("b"), client := BaseWorker("client")) as runner:
        assert await client.job("b", name="early") == "early"
        await worker.has_begun()
        assert (worker.statistics().threads, worker.statistics().abandoned) == (1, 0)
        await worker.stop()
        assert (runner.statistics().threads, runner.statistics().abandoned_threads) == (1, 1)
        worker.release.set()
        await settled(runner)


async def test_g51_a_drain_does_not_wait_for_a_thread_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    worker = Blocking("b")
    try:
        async with WorkerRunner(handle_sigint=False, handle_sigterm=False, drain_timeout=3600) as runner:
            await runner.add_workers(worker, client := BaseWorker("client"))
            with pytest.raises(JobTimeoutError):
                await client.job("b", name="limited")
    finally:
        worker.release.set()
    assert "threads left behind" in caplog.text
    assert "b.limited" in caplog.text


async def test_g51_no_more_than_so_many_threads_however_many_jobs_time_out() -> None:
    async with running(worker := Blocking("b")) as runner, Client(runner) as client:
        while runner.statistics().abandoned_threads < THREADS:  # whose time is up before it begins needs no thread
            answers = await client.gather("b", range(1000), name="free", timeout=0.05, max_concurrency=500)
            assert all(isinstance(answer, JobTimeoutError) for answer in answers)
        await worker.has_begun(THREADS)
        assert worker.begun == runner.statistics().threads == worker.statistics().running == THREADS
        assert await client.request("b", name="ping") == "pong"
        worker.release.set()
        await settled(runner)
        assert await client.request("b", name="free") == "released"


async def test_g51_blocking_handlers_of_one_worker_do_not_hold_up_those_of_another() -> None:
    async with running(slow := Blocking("slow"), quick := Blocking("quick")) as runner, Client(runner) as client:
        quick.release.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(client.gather, "slow", range(2 * THREADS), name="free"))
            await slow.has_begun(THREADS)
            assert await client.request("quick", name="free") == "released"
            assert slow.statistics().pending == THREADS
            slow.release.set()
        assert slow.most == THREADS


class Nesting(BaseWorker):
    """Asks the next of its kind until it is deep enough."""

    others: tuple[str, ...] = ()

    @job
    def deeper(self, payload: dict[str, int]) -> int:
        depth, number = payload["depth"], payload["number"]
        if not depth:
            return number

        async def ask() -> Any:
            other = self.others[(number + depth) % len(self.others)]
            return await self.job(other, name="deeper", payload={"depth": depth - 1, "number": number})

        answer: int = from_thread.run(ask)
        return answer


@pytest.mark.parametrize("others", [("n1",), ("n1", "n2"), ("n1", "n2", "n3", "n4", "n5")])
async def test_g51_plain_handlers_that_ask_plain_handlers_never_starve_each_other(others: tuple[str, ...]) -> None:
    workers = [Nesting(name) for name in others]
    for worker in workers:
        worker.others = others
    async with running(*workers) as runner, Client(runner) as client:
        payloads = [{"depth": 5, "number": number} for number in range(200)]
        assert await client.gather(others[0], payloads, name="deeper") == list(range(200))
        await settled(runner)


async def test_g51_a_thread_that_waits_for_a_job_is_not_counted_until_it_has_the_answer() -> None:
    class Waiting(BaseWorker):
        @job
        def ask(self) -> Any:
            async def asked() -> Any:
                return await self.job("b", name="ping_slowly")

            return from_thread.run(asked)

        @job
        def work(self) -> str:
            return "worked"

    class Slow(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.gate = anyio.Event()

        @job
        async def ping_slowly(self) -> str:
            await self.gate.wait()
            return "pong"

    async with running(waiting := Waiting("w"), slow := Slow("b")) as runner, Client(runner) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(client.gather, "w", range(2 * THREADS), name="ask"))
            await until(lambda: slow.statistics().running == 2 * THREADS)
            assert await client.request("w", name="work") == "worked"
            assert waiting.statistics().threads == 2 * THREADS
            slow.gate.set()
        await settled(runner)


async def test_g51_a_thread_that_was_left_behind_is_told_when_it_asks() -> None:
    told: list[str] = []
    asked, go = threading.Event(), threading.Event()

    class Polite(BaseWorker):
        @job(timeout=0.01)
        def work(self, job: Job[Any]) -> None:
            go.wait(60)
            told.append(f"cancelled={job.cancelled}")
            try:
                from_thread.check_cancelled()
            except BaseException as error:
                told.append(type(error).__name__)
                raise
            finally:
                asked.set()

    async with running(Polite("p"), client := BaseWorker("client")) as runner:
        with pytest.raises(JobTimeoutError):
            await client.job("p", name="work")
        go.set()
        await settled(runner)
        assert told == ["cancelled=True", "CancelledError" if "CancelledError" in told else "Cancelled"]


async def test_g51_a_plain_function_as_a_worker_has_as_many_threads_as_a_class() -> None:
    release = threading.Event()
    begun: list[int] = []

    @function()
    def hold(number: int) -> int:
        begun.append(number)
        release.wait(60)
        return number

    async with running(hold) as runner, Client(runner) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(client.gather, "hold", range(THREADS + 5)))
            await until(lambda: len(begun) == THREADS)
            await anyio.wait_all_tasks_blocked()
            assert (len(begun), runner.statistics().threads) == (THREADS, THREADS)
            release.set()
        await settled(runner)
        assert len(begun) == THREADS + 5


async def test_g51_what_a_thread_raises_is_the_handlers_and_the_thread_goes_on() -> None:
    class Raising(BaseWorker):
        @job
        def fail(self, payload: str) -> None:
            kinds: list[type[BaseException]] = [SystemExit, StopIteration, ValueError, GeneratorExit]
            raise next(kind for kind in kinds if kind.__name__ == payload)(payload)

    async with running(Raising("r")) as runner, Client(runner) as client:
        for kind in ("SystemExit", "StopIteration", "ValueError", "GeneratorExit"):
            with pytest.raises(JobError, match=kind):
                await client.request("r", kind, name="fail")
        assert runner.statistics().threads == 0
