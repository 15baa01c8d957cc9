"""The events of a runner: what its handlers are told about jobs, failures and its start."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Job, JobError, JobParams, JobRecord, JobStatus, WorkerRunner, job, tracing
from actors.jobs.outcome import cancelled, refusal
from actors.runner.runner import core_of_runner
from actors.worker.verbs import core_of
from bus import DEAD_LETTERED, BusJobRequestMessage, WorkerErrorData
from tests.support.running import running
from tests.support.workers import Asker, Performer, quiet

pytestmark = pytest.mark.anyio

JOB_EVENTS = ("on_job_start", "on_job_complete", "on_job_error")


class Failing(Performer):
    @job(name="fail")
    async def fail(self) -> None:
        raise ValueError("no")


async def test_job_events_tell_who_did_what_for_whom_and_how_it_ended() -> None:
    worker, asker, told = Failing("worker"), Asker(), list[tuple[str, JobRecord]]()
    async with running(worker, asker) as runner:
        for event in JOB_EVENTS:
            runner.add_event_handler(event, lambda _, record, event=event: told.append((event, record)))
        async with anyio.create_task_group() as tasks:
            for name in ("echo", "fail", "unknown"):
                await asker.ask("worker", name, name)
                await anyio.wait_all_tasks_blocked()
            tasks.start_soon(asker.ask, "worker", "work", "work")
            await anyio.wait_all_tasks_blocked()
            await asker.cancel_job_group("work", reason="enough")
            await anyio.wait_all_tasks_blocked()
    assert [(event, record.job_id, record.status) for event, record in told] == [
        ("on_job_start", "echo", None),
        ("on_job_complete", "echo", JobStatus.COMPLETED),
        ("on_job_start", "fail", None),
        ("on_job_error", "fail", JobStatus.ERROR),
        ("on_job_error", "unknown", JobStatus.ERROR),
        ("on_job_start", "work", None),
        ("on_job_error", "work", JobStatus.CANCELLED),
    ]
    failed = {event: record for event, record in told if record.job_id == "fail"}["on_job_error"]
    assert failed.error is not None
    assert (failed.worker_name, failed.job_name, failed.requester, failed.attempt) == ("worker", "fail", "asker", 1)
    assert (failed.error.type, failed.error.message) == ("ValueError", "no")


class Unlucky(BaseWorker):
    """Each of its jobs fails in a way of its own."""

    @job
    async def raises(self) -> None:
        raise ValueError("no")

    @job
    async def exits(self) -> None:
        raise SystemExit(1)

    @job
    async def number(self, number: int) -> int:
        return number

    @job
    async def unsendable(self) -> object:
        return object()

    @job(timeout=0.01)
    async def limited(self) -> None:
        await anyio.sleep_forever()

    @job
    async def lingers(self) -> None:
        await anyio.sleep_forever()

    @job
    async def says_so(self, job: Job[Any]) -> None:
        await job.respond({}, status=JobStatus.FAILED)


@pytest.mark.parametrize(
    ("name", "options", "status", "kind"),
    [
        ("raises", {}, JobStatus.ERROR, "ValueError"),
        ("exits", {}, JobStatus.ERROR, "SystemExit"),
        ("number", {"payload": "x"}, JobStatus.FAILED, "PayloadError"),
        ("unsendable", {}, JobStatus.ERROR, "EncodeError"),
        ("limited", {}, JobStatus.FAILED, "JobTimeoutError"),
        ("lingers", {"timeout": 0.01}, JobStatus.CANCELLED, "JobCancelled"),
        ("says_so", {}, JobStatus.FAILED, "Failed"),
        ("unknown", {}, JobStatus.ERROR, "HandlerError"),
    ],
)
async def test_on_job_error_is_told_once_of_each_job_that_failed_whatever_way(
    name: str, options: dict[str, Any], status: JobStatus, kind: str
) -> None:
    told: list[tuple[str, Any, str | None]] = []
    async with running(Unlucky("worker"), Asker()) as runner:
        for event in JOB_EVENTS[1:]:
            note = partial(lambda event, _, record: told.append((event, record.status, record.error.type)), event)
            runner.add_event_handler(event, note)
        asker = runner.get_worker("asker")
        assert asker is not None
        with pytest.raises(JobError):
            await asker.job("worker", name=name, **options)
        await anyio.wait_all_tasks_blocked()
    assert told == [("on_job_error", status, kind)]


async def test_a_job_that_nobody_takes_is_told_to_on_job_error_where_it_was_asked_for() -> None:
    told: list[tuple[str, str, str, Any, str]] = []
    runs: list[str | None] = []
    async with running(Asker(), ready_timeout=0.01) as runner:
        asker = runner.get_worker("asker")
        assert asker is not None

        @runner.event_handler("on_job_error")
        def on_job_error(_runner: WorkerRunner, record: JobRecord) -> None:
            assert record.error is not None
            told.append((record.worker_name, record.job_id, record.requester, record.status, record.error.type))
            runs.append(record.run)

        with pytest.raises(JobError), tracing(run="run-1"):
            await asker.job("nobody", job_id="j1")
        with pytest.raises(JobError):
            await asker.job("nobody", job_id="j2", timeout=0.0)
        with pytest.raises(JobError):
            async with asker.job("nobody", job_id="j3") as asked:
                await asked.cancel()
        await anyio.wait_all_tasks_blocked()
    assert told == [
        ("nobody", "j1", "asker", JobStatus.FAILED, "WorkerUnavailableError"),
        ("nobody", "j2", "asker", JobStatus.FAILED, "JobTimeoutError"),
        ("nobody", "j3", "asker", JobStatus.CANCELLED, "JobCancelled"),
    ]
    assert runs == ["run-1", None, None]


async def test_a_job_that_became_a_dead_letter_is_told_to_on_job_error_where_it_was_asked_for() -> None:
    class Refuser(BaseWorker):
        """As a performer whose process dies each time, for the requester: the network answers for it."""

        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            self.bus.post(refusal(message, JobStatus.FAILED, DEAD_LETTERED, "delivered 5 times"))

    told: list[str] = []
    async with running(Refuser("worker"), Asker(), drain_timeout=0.0, cancel_grace=0.0) as runner:
        runner.add_event_handler("on_job_error", lambda _, record: told.append(record.error.type))
        asker = runner.get_worker("asker")
        assert asker is not None
        with pytest.raises(JobError):
            await asker.job("worker")
        await anyio.wait_all_tasks_blocked()
        admission = core_of(runner.get_worker("worker")).admission
        assert admission is not None
        for job_id in tuple(admission.executions):
            admission.stop(job_id, cancelled("it was answered"))
        await anyio.wait_all_tasks_blocked()
    assert told == [DEAD_LETTERED, "JobCancelled"]


async def test_a_second_job_under_an_id_in_use_is_told_to_on_job_error() -> None:
    worker, other, told = Performer("worker"), Asker("other"), list[tuple[str, str | None]]()
    async with running(worker, Asker(), other) as runner:
        asker = runner.get_worker("asker")
        assert isinstance(asker, Asker)
        runner.add_event_handler("on_job_error", lambda _, record: told.append((record.requester, record.error.type)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asker.ask, "worker")
            await anyio.wait_all_tasks_blocked()
            await other.ask("worker")
            worker.gate.set()
        await anyio.wait_all_tasks_blocked()
    assert told == [("other", "JobStateError")]


@pytest.mark.parametrize("at_once", [False, True])
async def test_jobs_that_end_with_their_runner_are_told_too(at_once: bool) -> None:
    told: list[str] = []
    runner = quiet(cancel_grace=0.0, drain_timeout=0.0)
    await runner.add_workers(Unlucky("worker"), Asker())

    @runner.event_handler("on_job_error")
    async def on_job_error(_runner: WorkerRunner, record: JobRecord) -> None:
        await anyio.lowlevel.checkpoint()
        assert record.status is JobStatus.CANCELLED
        told.append(record.job_id)

    async with runner:
        asker = runner.get_worker("asker")
        assert asker is not None
        for number in range(3):
            await asker.request_job("worker", params=JobParams(name="lingers", job_id=f"j{number}"))
        await anyio.wait_all_tasks_blocked()
        await (runner.cancel() if at_once else runner.end())
    assert sorted(told) == ["j0", "j1", "j2"]


async def test_a_handler_that_never_ends_does_not_keep_its_runner_from_ending() -> None:
    runner, begun = quiet(), anyio.Event()
    await runner.add_workers(Performer("worker"), Asker())

    @runner.event_handler("on_job_complete")
    async def block(*_: Any) -> None:
        begun.set()
        await anyio.sleep_forever()

    with anyio.fail_after(60):
        async with runner:
            asker = runner.get_worker("asker")
            assert asker is not None
            await asker.job("worker", name="echo")
            await begun.wait()


async def test_a_handler_that_was_removed_is_not_called_and_the_others_are() -> None:
    told: list[str] = []

    def first(*_: Any) -> None:
        told.append("first")

    def second(*_: Any) -> None:
        told.append("second")

    async with running(Performer("worker"), Asker()) as runner:
        asker = runner.get_worker("asker")
        assert asker is not None
        for handler in (first, second, first):
            runner.add_event_handler("on_job_start", handler)
        for _ in range(5):
            await asker.job("worker", name="echo")
            await anyio.wait_all_tasks_blocked()
            told.append("-")
            runner.remove_event_handler("on_job_start", first if told.count("-") < 3 else second)
        runner.remove_event_handler("on_job_complete", first)
        assert not core_of_runner(runner).job_events.wanted
    assert "".join(told) == "firstsecondfirst-firstsecond-second---"


async def test_an_event_has_many_handlers_of_both_kinds_in_order() -> None:
    told: list[str] = []
    async with running(Performer("worker"), Asker()) as runner:

        @runner.event_handler("on_job_start")
        def first(_runner: WorkerRunner, _record: JobRecord) -> None:
            told.append("first")

        @runner.event_handler("on_job_start")
        async def second(_runner: WorkerRunner, _record: JobRecord) -> None:
            await anyio.lowlevel.checkpoint()
            told.append("second")

        @runner.event_handler("on_job_start")
        def third(_runner: WorkerRunner, record: JobRecord) -> None:
            assert _runner is runner
            told.append(f"third {record.job_name}")

        asker = runner.get_worker("asker")
        assert asker is not None
        await asker.job("worker", name="echo")
        await anyio.wait_all_tasks_blocked()
    assert told == ["first", "second", "third echo"]


async def test_a_handler_that_blocks_delays_no_job() -> None:
    gate, worker, asker = anyio.Event(), Performer("worker"), Asker()
    async with running(worker, asker) as runner:

        @runner.event_handler("on_job_start")
        async def block(*_: Any) -> None:
            await gate.wait()

        for number in range(3):
            assert await asker.job("worker", name="echo", payload=number) == number
        gate.set()
        await anyio.wait_all_tasks_blocked()


async def test_the_runner_is_ready_once_and_after_its_workers() -> None:
    runner, worker, told = quiet(), BaseWorker("worker"), list[str]()
    runner.add_event_handler("on_ready", lambda _: told.append(core_of(worker).state.name))
    await runner.add_workers(worker)
    async with runner:
        assert told == ["READY"]
        await runner.add_workers(BaseWorker("later"))
        await anyio.wait_all_tasks_blocked()
    assert told == ["READY"]


async def test_whatever_of_a_worker_fails_is_told_to_on_error() -> None:
    class Clumsy(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            raise ValueError("in a hook")

        async def run(self, params: Any) -> None:
            await self.start()
            await anyio.wait_all_tasks_blocked()
            raise ValueError("in run")

    told: list[WorkerErrorData] = []
    async with running(BaseWorker("other")) as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        clumsy = Clumsy("clumsy")
        await runner.add_workers(clumsy)
        await clumsy.wait()
        await anyio.wait_all_tasks_blocked()
    assert told == [
        WorkerErrorData("clumsy", "hook on_activated failed: ValueError: in a hook"),
        WorkerErrorData("clumsy", "worker failed: ValueError: in run"),
    ]


async def test_an_event_that_a_runner_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no event 'on_job_done' on <WorkerRunner r not running>: there is on_"):
        quiet("r").add_event_handler("on_job_done", print)
