"""Every job ends once, with a true outcome, and whoever waits for it is told: G1 to G7."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import (
    BaseWorker,
    Job,
    JobError,
    JobGroupParams,
    JobParams,
    JobResult,
    JobStatus,
    JobTimeoutError,
    WorkerRunner,
    WorkerUnavailableError,
    job,
)
from bus import BusJobRequestMessage, BusJobResponseMessage
from tests.support.running import leftovers, running

pytestmark = pytest.mark.anyio


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class HostileError(Exception):
    """Nothing about it can be asked without it leaving the program."""

    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def retryable(self) -> bool:
        raise SystemExit(4)


RAISED: list[tuple[str, Callable[[], BaseException]]] = [
    ("ValueError", lambda: ValueError("no")),
    ("BaseException", lambda: BaseException("bare")),
    ("SystemExit", lambda: SystemExit(7)),
    ("KeyboardInterrupt", KeyboardInterrupt),
    ("GeneratorExit", GeneratorExit),
    ("CancelledError", lambda: asyncio.CancelledError("mine")),
    ("ValueError", lambda: ExceptionGroup("two", [ValueError("a"), KeyError("b")])),
    ("KeyError", lambda: ExceptionGroup("around", [ExceptionGroup("one", [KeyError("b")])])),
    ("ValueError", lambda: BaseExceptionGroup("left", [SystemExit(1), ValueError("a")])),
    ("SystemExit", lambda: BaseExceptionGroup("right", [SystemExit(1)])),
    ("UnspeakableError", UnspeakableError),
    ("HostileError", HostileError),
    ("StopIteration", StopIteration),
    ("StopAsyncIteration", StopAsyncIteration),
    ("RecursionError", lambda: RecursionError("deep")),
    ("MemoryError", MemoryError),
    ("ValueError", lambda: ValueError("a lone surrogate: \ud800")),
]
INTERPRETED = {"StopIteration", "StopAsyncIteration"}
"""What Python itself turns into a RuntimeError at the edge of a coroutine or generator."""


class Raiser(BaseWorker):
    """Raises what it is told to, in each shape a handler can have."""

    def __init__(self, name: str, make: Callable[[], BaseException] = ValueError) -> None:
        super().__init__(name)
        self.make = make
        self.background_failed = anyio.Event()

    @job(name="coroutine")
    async def coroutine(self, message: Any) -> None:
        raise self.make()

    @job(name="later")
    async def later(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise self.make()

    @job(name="thread")
    def thread(self, message: Any) -> None:
        raise self.make()

    @job(name="stream")
    async def stream(self, message: Any) -> Any:
        yield 1
        raise self.make()

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        raise self.make()

    @job(name="fine")
    async def fine(self, message: Any) -> dict[str, str]:
        return {"still": "alive"}


class Echo(BaseWorker):
    @job(name="echo")
    async def echo(self, payload: Any) -> Any:
        return payload


class Silent(BaseWorker):
    """Takes jobs and never answers them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.requests: list[str] = []
        self.cancelled: list[str | None] = []

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        self.requests.append(message.job_id)

    async def on_job_cancelled(self, message: Any) -> None:
        self.cancelled.append(message.job_id)


class Hanging(BaseWorker):
    """Its handlers wait for ever; what ended them is kept."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began = anyio.Event()
        self.ended: list[str] = []

    @job(name="hang")
    async def hang(self, message: BusJobRequestMessage) -> None:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.append(message.job_id)

    @job(name="limited", timeout=0.02)
    async def limited(self, message: BusJobRequestMessage) -> None:
        await self.hang(message)

    @job(name="stubborn", timeout=0.02)
    async def stubborn(self, message: BusJobRequestMessage) -> None:
        released = anyio.Event()
        self.release = released.set
        with anyio.CancelScope(shield=True):
            await released.wait()
        self.ended.append(message.job_id)


class Boss(BaseWorker):
    def __init__(self, name: str = "boss") -> None:
        super().__init__(name)
        self.responses: list[BusJobResponseMessage] = []

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        self.responses.append(message)


# --- G1 ---


@pytest.mark.parametrize("shape", ["coroutine", "later", "thread", "stream", None])
@pytest.mark.parametrize(("kind", "make"), RAISED, ids=[f"{name}-{n}" for n, (name, _) in enumerate(RAISED)])
async def test_g1_whatever_a_handler_raises_is_the_requesters_error_and_nothing_else_ends(
    shape: str | None, kind: str, make: Callable[[], BaseException]
) -> None:
    boss, raiser = Boss(), Raiser("raiser", make)
    async with running(boss, raiser, Echo("echo")) as runner:
        with pytest.raises(JobError) as caught:
            await boss.job("raiser", name=shape)
        error = caught.value
        assert (error.worker_name, error.status, error.response) == ("raiser", JobStatus.ERROR, {})
        assert error.error is not None
        assert error.error.type in ({kind, "RuntimeError"} if kind in INTERPRETED else {kind})
        assert error.error.traceback is None
        assert await boss.job("raiser", name="fine") == {"still": "alive"}
        assert await boss.job("echo", name="echo", payload=1) == 1
        assert runner.running


async def test_g1_the_error_carries_the_text_of_what_was_raised() -> None:
    boss = Boss()
    async with running(boss, Raiser("raiser", lambda: ValueError("no such thing"))):
        with pytest.raises(JobError, match=r"job '.*' on worker 'raiser': error: ValueError: no such thing") as caught:
            await boss.job("raiser", name="coroutine", job_id="mine")
        assert caught.value.job_id == "mine"
        assert caught.value.error is not None
        assert caught.value.error.message == "no such thing"


async def test_g1_a_traceback_travels_only_if_the_runner_was_told_so() -> None:
    boss = Boss()
    async with running(boss, Raiser("raiser"), tracebacks=True):
        with pytest.raises(JobError) as caught:
            await boss.job("raiser", name="coroutine")
    assert caught.value.error is not None
    assert "raise self.make()" in (caught.value.error.traceback or "")


async def test_g1_an_exception_that_says_so_is_retryable_for_the_requester_too() -> None:
    class BusyError(Exception):
        retryable = True

    boss = Boss()
    async with running(boss, Raiser("raiser", BusyError)):
        with pytest.raises(JobError) as caught:
            await boss.job("raiser", name="coroutine")
    assert caught.value.error is not None
    assert caught.value.error.retryable


async def test_g1_jobs_that_run_beside_a_failing_one_go_on() -> None:
    boss, hanging = Boss(), Hanging("hanging")
    async with running(boss, hanging, Raiser("raiser", lambda: SystemExit(1))):
        beside = await boss.request_job("hanging", name="hang")
        await hanging.began.wait()
        for _ in range(5):
            with pytest.raises(JobError):
                await boss.job("raiser", name="coroutine")
        await anyio.wait_all_tasks_blocked()
        assert list(hanging.active_jobs) == [beside]
        assert not hanging.ended
        await boss.cancel_job_group(beside)


async def test_g1_what_a_handler_raises_after_it_answered_changes_nothing() -> None:
    class Late(BaseWorker):
        @job
        async def late(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, {"first": True})
            raise ValueError("too late")

    boss = Boss()
    async with running(boss, Late("late")) as runner:
        assert await boss.job("late", name="late") == {"first": True}
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().late_answers == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_g1_a_handler_that_cancels_its_own_task_harms_no_later_job(anyio_backend: str) -> None:
    class Suicidal(BaseWorker):
        @job
        async def cancel_and_wait(self, message: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep_forever()

        @job
        async def cancel_and_swallow(self, message: Any) -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep_forever()
            return "went on"

        @job
        async def cancel_and_return(self, message: Any) -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "gone"

        @job
        async def patient(self, message: Any) -> str:
            with anyio.move_on_after(0.01):
                await anyio.sleep_forever()
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(math.inf)
            except TimeoutError:
                return "on time"
            return "never"

    boss = Boss()
    async with running(boss, Suicidal("s")):
        for _ in range(3):
            with pytest.raises(JobError, match="cancelled by something it awaited") as caught:
                await boss.job("s", name="cancel_and_wait")
            assert caught.value.status is JobStatus.ERROR
            assert await boss.job("s", name="patient") == "on time"
            assert await boss.job("s", name="cancel_and_swallow") == "went on"
            assert await boss.job("s", name="patient") == "on time"
            assert await boss.job("s", name="cancel_and_return") == "gone"
            assert await boss.job("s", name="patient") == "on time"


# --- G2 and G3 ---


async def test_g2_a_handler_that_returns_without_an_answer_has_completed() -> None:
    class Quiet(BaseWorker):
        @job
        async def nothing(self, message: Any) -> None: ...

        @job
        async def something(self, message: Any) -> list[int]:
            return [1, 2]

        @job
        async def false(self, message: Any) -> bool:
            return False

    boss = Boss()
    async with running(boss, Quiet("quiet")):
        assert await boss.job("quiet", name="nothing") == {}
        assert await boss.job("quiet", name="something") == [1, 2]
        assert await boss.job("quiet", name="false") is False
        async with boss.job("quiet", name="nothing") as entered:
            pass
        assert entered.response == {}
        assert entered.results == {"quiet": JobResult(JobStatus.COMPLETED, {}, None, 1)}


async def test_g2_the_returned_value_is_ignored_once_the_handler_has_answered() -> None:
    class Both(BaseWorker):
        @job
        async def both(self, message: BusJobRequestMessage) -> str:
            await self.send_job_response(message.job_id, "sent", status=JobStatus.COMPLETED)
            return "returned"

    boss = Boss()
    async with running(boss, Both("both")) as runner:
        assert await boss.job("both", name="both") == "sent"
        await anyio.wait_all_tasks_blocked()
        assert [each.response for each in boss.responses] == ["sent"]
        assert runner.statistics().late_answers == 0


async def test_g3_on_job_request_that_returns_none_leaves_the_job_open_until_it_is_answered() -> None:
    boss, silent = Boss(), Silent("silent")
    async with running(boss, silent) as runner:
        job_id = await boss.request_job("silent", payload=1)
        await anyio.wait_all_tasks_blocked()
        assert list(silent.active_jobs) == [job_id] == silent.requests
        assert runner.statistics().jobs == 1
        assert boss.responses == []
        await silent.send_job_update(job_id, {"percent": 50})
        await silent.send_job_response(job_id, {"late": True})
        await anyio.wait_all_tasks_blocked()
        assert [(each.status, each.response) for each in boss.responses] == [("completed", {"late": True})]


async def test_g3_on_job_request_may_open_a_stream_and_go_on_with_it_after_it_returned() -> None:
    class Streamer(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await self.send_job_stream_start(message.job_id, {"type": "text"})
            self.create_task(self.stream(message.job_id))

        async def stream(self, job_id: str) -> None:
            for number in range(3):
                await self.send_job_stream_data(job_id, number)
            await self.send_job_stream_end(job_id, {"count": 3})

    boss = Boss()
    async with running(boss, Streamer("streamer")):
        async with boss.job("streamer") as context:
            events = [(event.type, event.data) async for event in context]
        assert events == [
            ("stream_start", {"type": "text"}),
            *(("stream_data", number) for number in range(3)),
            ("stream_end", {"count": 3}),
        ]
        assert context.response == {"count": 3}


@pytest.mark.parametrize("answer", [{"a": 1}, {}, 0, "", []])
async def test_g3_on_job_request_that_returns_something_has_answered(answer: Any) -> None:
    class Direct(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> Any:
            return answer

    boss = Boss()
    async with running(boss, Direct("direct")):
        assert await boss.job("direct") == answer
        assert await boss.job("direct", name="any-name-at-all") == answer


# --- G4 ---


@pytest.mark.parametrize("timeout", [None, 50.0])
async def test_g4_an_unknown_job_name_is_an_error_at_once(timeout: float | None) -> None:
    boss = Boss()
    async with running(boss, Echo("echo"), ready_timeout=1000.0):
        with pytest.raises(JobError, match="no handler for job 'ecco' on worker 'echo'; it serves 'echo'") as caught:
            await boss.job("echo", name="ecco", timeout=timeout)
        assert caught.value.status is JobStatus.ERROR


async def test_g4_a_job_without_a_name_needs_on_job_request() -> None:
    boss = Boss()
    async with running(boss, Echo("echo")):
        with pytest.raises(JobError, match="no handler for a job without a name: give name=, one of 'echo'") as caught:
            await boss.job("echo")
        assert caught.value.status is JobStatus.ERROR


# --- G5 ---


async def test_g5_a_name_that_nobody_ever_serves_fails_the_job_after_ready_timeout() -> None:
    boss = Boss()
    async with running(boss, Echo("critic"), ready_timeout=0.02) as runner:
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
        await runner.add_workers(Echo("late"))
        await anyio.wait_all_tasks_blocked()
        assert [(each.job_id, each.response) for each in boss.responses] == [(job_id, "waited")]


async def test_g5_jobs_that_wait_for_a_worker_are_kept_in_order_and_cancelled_one_by_one() -> None:
    boss = Boss()
    async with running(boss, ready_timeout=50.0) as runner:
        jobs = [await boss.request_job("late", name="echo", payload=number) for number in range(5)]
        await boss.cancel_job_group(jobs[1])
        await boss.cancel_job_group(jobs[3])
        assert runner.bus.statistics().parked == 3
        late = Echo("late")
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


# --- G6 ---


async def test_g6_one_deadline_covers_waiting_for_a_worker() -> None:
    boss = Boss()
    async with running(boss, Echo("critic"), ready_timeout=1000.0) as runner:
        with pytest.raises(JobTimeoutError, match=r"'critics' before the deadline.*did you mean 'critic'"):
            await boss.job("critics", name="echo", timeout=0.02)
        assert runner.bus.statistics().parked == 0


async def test_g6_one_deadline_covers_queueing() -> None:
    class OneAtATime(Hanging):
        max_concurrency = 1

    boss, worker = Boss(), OneAtATime("w")
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
    boss, hanging = Boss(), Hanging("w")
    async with running(boss, hanging):
        with pytest.raises(JobTimeoutError, match="no answer from 'w' before the deadline") as caught:
            await boss.job("w", name="hang", timeout=0.02)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.status, caught.value.retryable) == (JobStatus.FAILED, True)
        await anyio.wait_all_tasks_blocked()
        assert hanging.ended == [caught.value.job_id]


async def test_g6_a_job_left_open_ends_at_its_deadline() -> None:
    boss, silent = Boss(), Silent("silent")
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

    boss, middle, end = Boss(), Middle("middle"), End("end")
    async with running(boss, middle, end):
        with pytest.raises(JobTimeoutError):
            await boss.job("middle", name="ask", timeout=0.5)
        assert middle.remaining[0] is not None
        assert end.seen is not None
        assert end.seen <= middle.remaining[0] <= 0.5


@pytest.mark.parametrize(("name", "sooner"), [("hang", 0.02), ("limited", 0.02)])
async def test_g6_the_sooner_of_the_requesters_and_the_handlers_limit_counts(name: str, sooner: float) -> None:
    boss, hanging = Boss(), Hanging("w")
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

    boss = Boss()
    async with running(boss, Clock("clock")):
        assert least < await boss.job("clock", name="left", timeout=asked) <= most


async def test_g6_a_handler_that_ignores_its_own_limit_is_answered_for_after_the_grace() -> None:
    boss, hanging = Boss(), Hanging("w")
    async with running(boss, hanging, cancel_grace=0.02):
        try:
            with pytest.raises(JobTimeoutError):
                await boss.job("w", name="stubborn")
        finally:
            hanging.release()
        await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("timeout", [math.inf, 1e9])
async def test_g6_a_limit_that_is_far_away_changes_nothing(timeout: float) -> None:
    boss = Boss()
    async with running(boss, Echo("echo")):
        assert await boss.job("echo", name="echo", payload=1, timeout=timeout) == 1


async def test_g6_a_limit_of_zero_has_passed() -> None:
    boss, hanging = Boss(), Hanging("w")
    async with running(boss, hanging):
        with pytest.raises(JobTimeoutError):
            await boss.job("w", name="hang", timeout=0)
        await anyio.wait_all_tasks_blocked()


# --- G7 ---


async def test_g7_a_graceful_end_waits_for_running_jobs() -> None:
    class Slow(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.began, self.may_end = anyio.Event(), anyio.Event()

        @job
        async def work(self, message: Any) -> str:
            self.began.set()
            await self.may_end.wait()
            return "done"

    boss, slow = Boss(), Slow("slow")
    async with running(boss, slow) as runner:
        await boss.request_job("slow", name="work")
        await slow.began.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.remove_worker, "slow")
            await anyio.wait_all_tasks_blocked()
            assert "slow" in [worker.name for worker in (boss, slow) if runner.get_worker(worker.name)]
            slow.may_end.set()
        assert runner.get_worker("slow") is None
        await anyio.wait_all_tasks_blocked()
    assert [(each.status, each.response) for each in boss.responses] == [("completed", "done")]


@pytest.mark.parametrize("how", ["remove", "stop", "cancel message", "runner ends", "runner is cancelled"])
async def test_g7_the_requester_is_told_cancelled_when_the_performer_goes(how: str) -> None:
    boss, hanging = Boss(), Hanging("w")
    outcomes: list[tuple[Any, JobStatus]] = []

    async def ask() -> None:
        try:
            answer = await boss.job("w", name="hang")
        except JobError as error:
            outcomes.append((error.response, error.status))
        else:
            outcomes.append((answer, JobStatus.COMPLETED))

    async with anyio.create_task_group() as tasks, running(boss, hanging, drain_timeout=0.02) as runner:
        tasks.start_soon(ask)
        await hanging.began.wait()
        if how == "remove":
            await runner.remove_worker("w")
        elif how == "stop":
            await hanging.stop()
        elif how == "cancel message":
            await boss.cancel()
        elif how == "runner ends":
            await runner.end()
        else:
            await runner.cancel()
        while not outcomes:
            await anyio.wait_all_tasks_blocked()
    assert outcomes == [({}, JobStatus.CANCELLED)]
    assert len(hanging.ended) == 1


async def test_g7_a_handler_that_goes_on_after_its_answer_ends_with_its_worker() -> None:
    class Lingering(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.ended = False

        @job
        async def linger(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, "early")
            try:
                await anyio.sleep_forever()
            finally:
                self.ended = True

    boss, lingering = Boss(), Lingering("w")
    async with running(boss, lingering, drain_timeout=0.02) as runner:
        assert await boss.job("w", name="linger") == "early"
        assert not lingering.ended
        await runner.remove_worker("w")
        assert lingering.ended


async def test_g7_an_open_job_is_cancelled_with_its_worker() -> None:
    boss, silent = Boss(), Silent("silent")
    async with running(boss, silent, drain_timeout=0.02) as runner:
        job_id = await boss.request_job("silent")
        await anyio.wait_all_tasks_blocked()
        await runner.remove_worker("silent")
        await anyio.wait_all_tasks_blocked()
        assert [(each.job_id, each.status) for each in boss.responses] == [(job_id, JobStatus.CANCELLED)]
        assert (await leftovers(runner))["jobs"] == 0


# --- one outcome ---


async def test_an_awaited_job_without_cancel_on_error_still_raises() -> None:
    boss = Boss()
    async with running(boss, Raiser("raiser")):
        with pytest.raises(JobError):
            await boss.job("raiser", params=JobGroupParams(name="coroutine", cancel_on_error=False))
        with pytest.raises(JobError):
            async with boss.job("raiser", params=JobGroupParams(name="coroutine", cancel_on_error=False)):
                pass


@pytest.mark.parametrize("status", [JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.ERROR])
async def test_any_status_but_completed_raises_with_the_response_that_came_with_it(status: JobStatus) -> None:
    class Sad(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, {"why": "sad"}, status=status)

    boss = Boss()
    async with running(boss, Sad("sad")):
        with pytest.raises(JobError) as caught:
            await boss.job("sad", params=JobParams(payload={}))
        assert (caught.value.status, caught.value.response) == (status, {"why": "sad"})


async def test_a_thousand_jobs_that_end_in_every_way_leave_nothing() -> None:
    boss, raiser, hanging = Boss(), Raiser("raiser"), Hanging("hanging")
    async with running(boss, raiser, hanging, Echo("echo"), ready_timeout=0.02) as runner:
        outcomes: dict[str, int] = {}

        async def ask(worker: str, name: str, timeout: float | None) -> None:
            try:
                await boss.job(worker, name=name, timeout=timeout)
                outcome = "completed"
            except JobError as error:
                outcome = error.error.type if error.error else "?"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(ask, "echo", "echo", None)
                tasks.start_soon(ask, "raiser", "coroutine", 50)
                tasks.start_soon(ask, "hanging", "hang", 0.02)
                tasks.start_soon(ask, "hanging", "limited", None)
                tasks.start_soon(ask, "nobody", "echo", None)
        assert outcomes == {"completed": 200, "ValueError": 200, "JobTimeoutError": 400, "WorkerUnavailableError": 200}
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().late_answers <= 400


async def raise_when_cancelled(*_arguments: Any) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        raise ValueError("not now")


class RaisesWhenCancelled(Echo):
    on_job_completed = raise_when_cancelled  # type: ignore[assignment]

    @job(name="wait")
    async def wait_for_ever(self, message: Any) -> None:
        await raise_when_cancelled()

    async def run(self, params: Any) -> None:
        await self.start()
        await raise_when_cancelled()


async def test_code_that_raises_when_it_is_cancelled_does_not_make_its_runner_raise() -> None:
    boss, other = RaisesWhenCancelled("boss"), RaisesWhenCancelled("other")
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False, drain_timeout=0.02, cancel_grace=1.0)
    await runner.add_workers(boss, other)
    runner.add_event_handler("on_job_start", raise_when_cancelled)
    runner.add_event_handler("on_job_complete", raise_when_cancelled)
    other.add_event_handler("on_job_response", raise_when_cancelled)
    with anyio.fail_after(60):
        async with runner:
            boss.create_task(raise_when_cancelled())
            assert await boss.job("other", name="echo", payload=1) == 1
            assert await other.job("boss", name="echo", payload=1) == 1
            await boss.request_job("other", name="wait")
            await anyio.wait_all_tasks_blocked()
    assert not runner.running
