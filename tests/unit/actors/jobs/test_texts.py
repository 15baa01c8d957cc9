"""What a user says (a reason, a label, an error) is made a text that can be told; no end of a job is lost by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from actors import (
    BaseWorker,
    Client,
    Job,
    JobError,
    JobGroupError,
    JobStatus,
    WorkerRunner,
    job,
)
from bus import (
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusWorkerErrorMessage,
    ErrorInfo,
    WorkerLostData,
    open_bus,
)
from bus.log import LONGEST_TEXT, text_of
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Mute:
    """Nothing about it can be asked."""

    def __str__(self) -> str:
        raise SystemExit("no words")

    def __repr__(self) -> str:
        raise KeyError("no words")

    def __bool__(self) -> bool:
        raise ValueError("no truth")

    def __eq__(self, other: object) -> bool:
        raise ValueError("no equal")

    __hash__ = None  # type: ignore[assignment]


class MuteText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__

    def encode(self, *_: Any) -> bytes:
        raise RuntimeError("no bytes")


class NoText:
    def __str__(self) -> Any:
        return 7  # noqa: PLE0307 - it is what is tried

    __repr__ = __str__


class Bottomless:
    def __str__(self) -> str:
        return str(self)

    __repr__ = __str__


HOSTILE: dict[str, Any] = {
    "a number": 7,
    "bytes": b"\xff\x00",
    "a dict": {"why": ["so"]},
    "empty": "",
    "false": False,
    "a lone surrogate": "a \ud800 b \udfff",
    "a null": "a \x00 b\n\r\t",
    "huge": "x" * 3_000_000,
    "huge surrogates": "\ud800" * 5000,
    "an exception": ValueError("of another"),
    "mute": Mute(),
    "a mute text": MuteText("x"),
    "no text": NoText(),
    "bottomless": Bottomless(),
    "a class": Mute,
    "an enum": JobStatus.ERROR,
}

each_text = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


def is_told(text: object) -> bool:
    """Whether it is a text that can be written anywhere, and that somebody may want to read."""
    return type(text) is str and len(text) <= 2 * LONGEST_TEXT and bool(text.encode())


class Said(Exception):  # noqa: N818 - users name theirs as they like
    def __init__(self, text: Any) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text  # type: ignore[no-any-return]


class Performer(BaseWorker):
    def __init__(self, name: str, text: Any = "") -> None:
        super().__init__(name)
        self.text = text
        self.cancelled: list[Any] = []

    @job
    async def hang(self) -> None:
        await anyio.sleep_forever()

    @job
    async def fail(self) -> None:
        raise Said(self.text)

    @job
    async def fail_with_it(self) -> None:
        raise ValueError(self.text)

    @job
    async def fail_in_a_group(self) -> None:
        raise ExceptionGroup("g", [Said(self.text), ValueError(self.text), JobError(self.text)])

    @job
    async def fail_as_a_job(self) -> None:
        raise JobError("x", error=ErrorInfo(self.text, self.text, self.text, worker=self.text))

    @job
    def fail_in_a_thread(self) -> None:
        raise Said(self.text)

    @job
    async def fail_noted(self) -> None:
        error = ValueError("noted")
        error.__notes__ = [self.text]
        raise error

    @job
    async def answer_by_hand(self, job: Job[Any]) -> None:
        error = ErrorInfo(self.text, self.text, retryable=self.text)
        answer = BusJobResponseMessage(
            source=self.name, target=job.requester, job_id=job.id, status=JobStatus.FAILED, error=error
        )
        await self.send_bus_message(answer)

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.cancelled.append(message.reason)


class Boss(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failed: list[Any] = []
        self.lost: list[WorkerLostData] = []

    async def on_worker_failed(self, data: Any) -> None:
        self.failed.append(data.error)

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        self.lost.append(data)


FAILURES = [
    "fail",
    "fail_with_it",
    "fail_in_a_group",
    "fail_as_a_job",
    "fail_in_a_thread",
    "fail_noted",
    "answer_by_hand",
]


@each_text
@pytest.mark.parametrize("networked", [False, True], ids=["in process", "over a network"])
async def test_whatever_an_error_says_its_job_ends_and_its_requester_is_told(text: Any, networked: bool) -> None:
    performer, asker = Performer("performer", text), BaseWorker("asker")
    quiet: dict[str, Any] = {"handle_sigint": False, "handle_sigterm": False, "tracebacks": True}
    here = WorkerRunner(bus=open_bus("memory://texts") if networked else None, **quiet)
    there = WorkerRunner(bus=open_bus("memory://texts"), **quiet) if networked else here
    with anyio.fail_after(60):
        async with here, _also(there, here):
            await there.add_workers(performer)
            await here.add_workers(asker)
            for name in FAILURES:
                with pytest.raises(JobError) as caught:
                    await asker.job("performer", name=name)
                error = caught.value.error
                assert error is not None
                assert is_told(str(caught.value))
                assert type(error.type) is type(error.message) is str
                assert len(error.message) <= LONGEST_TEXT
                assert is_told(error.type or "x")
            assert performer.active_jobs == {}


def _also(there: WorkerRunner, here: WorkerRunner) -> Any:
    class Nothing:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *_: object) -> None:
            pass

    return there if there is not here else Nothing()


async def by_context(asker: BaseWorker, text: Any) -> Any:
    async with asker.job("performer", name="hang", label=text) as asked:
        await anyio.wait_all_tasks_blocked()
        await asked.cancel(text)


async def by_group(asker: BaseWorker, text: Any) -> Any:
    group = await asker.create_job_group_and_request_job(["performer"], name="hang", label=text)
    await anyio.wait_all_tasks_blocked()
    assert group.label is None or is_told(group.label or "x")
    group.cancel(text)
    await group.wait()


async def by_verb(asker: BaseWorker, text: Any) -> Any:
    group = await asker.create_job_group_and_request_job(["performer"], name="hang")
    await anyio.wait_all_tasks_blocked()
    await asker.cancel_job_group(group.job_id, reason=text)
    await group.wait()


async def by_other_verb(asker: BaseWorker, text: Any) -> Any:
    group = await asker.create_job_group_and_request_job(["performer"], name="hang")
    await anyio.wait_all_tasks_blocked()
    assert await asker.request_cancel_job_group(group.job_id, reason=text)
    await group.wait()


async def by_telling_to_stop(asker: BaseWorker, text: Any) -> Any:
    group = await asker.create_job_group_and_request_job(["performer"], name="hang")
    await anyio.wait_all_tasks_blocked()
    group.tell_to_stop(text)
    await group.wait()


async def by_hand(asker: BaseWorker, text: Any) -> Any:
    group = await asker.create_job_group_and_request_job(["performer"], name="hang")
    await anyio.wait_all_tasks_blocked()
    message = BusJobCancelMessage(source="asker", target="performer", job_id=group.job_id, reason=text)
    await asker.send_bus_message(message)
    await group.wait()


CANCELS = [by_context, by_group, by_verb, by_other_verb, by_telling_to_stop, by_hand]


@each_text
@pytest.mark.parametrize("cancel", CANCELS)
async def test_whatever_a_reason_is_the_job_is_cancelled_and_both_ends_are_told(
    text: Any, cancel: Callable[[BaseWorker, Any], Awaitable[Any]]
) -> None:
    performer, asker = Performer("performer"), BaseWorker("asker")
    async with running(performer, asker):
        with anyio.fail_after(60), pytest.raises(JobError) as caught:
            await cancel(asker, text)
        assert is_told(str(caught.value))
        assert caught.value.status is JobStatus.CANCELLED
        await anyio.wait_all_tasks_blocked()
        assert performer.active_jobs == {}
        assert [is_told(reason or "x") for reason in performer.cancelled] == [True]


@each_text
@pytest.mark.parametrize("end", ["end", "cancel"])
@pytest.mark.parametrize("who", ["worker", "runner", "by hand"])
async def test_whatever_a_reason_is_the_session_ends(text: Any, end: str, who: str) -> None:
    performer, asker = Performer("performer"), BaseWorker("asker")
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False, drain_timeout=0.01)
    await runner.add_workers(performer, asker)
    told: list[BaseException] = []

    async def wait() -> None:
        try:
            await asker.job("performer", name="hang")
        except JobError as error:
            told.append(error)

    async def drive() -> None:
        await anyio.wait_all_tasks_blocked()
        if who == "worker":
            await getattr(asker, end)(reason=text)
        elif who == "runner":
            await getattr(runner, end)(text)
        else:
            kind = BusEndMessage if end == "end" else BusCancelMessage
            await asker.send_bus_message(kind(source="asker", reason=text))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(wait)
            tasks.start_soon(drive)
    assert [is_told(str(error)) for error in told] == [True]


@each_text
@pytest.mark.parametrize("kind", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_whatever_a_reason_is_a_worker_ends_and_its_watcher_is_told(text: Any, kind: Any) -> None:
    boss, performer = Boss("boss"), Performer("performer")
    async with running(boss) as runner:
        await boss.add_workers(performer)
        await boss.send_bus_message(kind(source="boss", target="performer", reason=text))
        with anyio.fail_after(60):
            await performer.wait()
        await anyio.wait_all_tasks_blocked()
        assert runner.get_worker("performer") is None
        assert [is_told(data.reason or "x") for data in boss.lost] == [True]


@each_text
async def test_whatever_a_worker_reports_is_told(text: Any) -> None:
    boss, child = Boss("boss"), BaseWorker("child")
    async with running(boss) as runner:
        told: list[Any] = []
        runner.add_event_handler("on_error", lambda _, data: told.append(data.error))
        await boss.add_workers(child)
        await child.send_bus_error_message(text)
        await boss.send_bus_error_message(text)
        await boss.send_bus_message(BusWorkerErrorMessage(source="boss", target=runner.name, error=text))
        await anyio.wait_all_tasks_blocked()
        assert len(boss.failed) == 1
        assert len(told) == 2
        assert all(is_told(error or "x") for error in (*boss.failed, *told))


@each_text
async def test_whatever_run_raises_its_parent_is_told(text: Any) -> None:
    class Failing(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            raise Said(text)

    boss = Boss("boss")
    async with running(boss):
        await boss.add_workers(Failing("failing"))
        await anyio.wait_all_tasks_blocked()
        assert [is_told(error) for error in boss.failed] == [True]
        assert [is_told(data.reason or "x") for data in boss.lost] == [True]


@each_text
async def test_a_run_is_cancelled_for_whatever_reason(text: Any) -> None:
    async with WorkerRunner(handle_sigint=False, handle_sigterm=False) as runner, Client(runner) as client:
        await runner.add_workers(Performer("performer"))
        run = await client.submit("performer", name="hang", label=text)
        await run.cancel(text)
        status = await run.status()
        assert status.error is not None
        assert is_told(status.error.message)
        assert status.label is None or is_told(status.label or "x")


async def test_a_job_group_whose_worker_names_are_many_ends_in_a_text_that_can_be_read() -> None:
    asker = BaseWorker("asker")
    async with running(asker):
        with pytest.raises(JobGroupError, match="timeout") as caught:
            await asker.job_group(*(f"worker-{number}" for number in range(1000)), timeout=0.01)
        assert caught.value.error is not None
        assert len(caught.value.error.message) <= LONGEST_TEXT


def test_a_repr_that_fails_is_named() -> None:
    assert text_of(Mute()) == "Mute (its text could not be made: KeyError)"
    assert len(text_of("x" * 5000)) == LONGEST_TEXT


def test_the_request_is_not_touched() -> None:
    assert BusJobRequestMessage(source="a", job_id="x", payload="\ud800").payload == "\ud800"
