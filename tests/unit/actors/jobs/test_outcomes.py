"""Every job ends once, with a true outcome, and whoever waits for it is told: G1 to G4, G7."""

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
    JobError,
    JobGroupParams,
    JobParams,
    JobResult,
    JobStatus,
    WorkerRunner,
    job,
)
from actors.runner.runner import core_of_runner
from bus import BusJobRequestMessage
from tests.support.running import leftovers, running
from tests.support.workers import Boss, Hanging, Silent

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
    async def streams(self, message: Any) -> Any:
        yield 1
        raise self.make()

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        raise self.make()

    @job(name="fine")
    async def fine(self, message: Any) -> dict[str, str]:
        return {"still": "alive"}


class Echo(BaseWorker):
    @job(name="echo")
    async def echo(self, message: BusJobRequestMessage) -> Any:
        return message.payload


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
        assert await boss.job("quiet", name="nothing") is None
        assert await boss.job("quiet", name="something") == [1, 2]
        assert await boss.job("quiet", name="false") is False
        async with boss.job("quiet", name="nothing") as entered:
            pass
        assert entered.response is None
        assert entered.results == {"quiet": JobResult(JobStatus.COMPLETED, None, None, 1)}


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
            self.create_task(self.stream_beside(message.job_id))

        async def stream_beside(self, job_id: str) -> None:
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
        while not outcomes and not core_of_runner(runner).ends:
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
