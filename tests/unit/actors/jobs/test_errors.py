"""An error on its way: what it says, what it is called, what it is made of, and that no failure is lost: G54."""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib
import inspect
import logging
import pickle
import pkgutil
from collections.abc import AsyncIterator, Callable, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import anyio
import pytest

import actors
import bus
from actors import (
    Backoff,
    BaseWorker,
    Client,
    JobError,
    JobGroupError,
    JobResult,
    JobTimeoutError,
    RetryPolicy,
    SupervisionError,
    WorkerRunner,
    WorkerUnavailableError,
    job,
)
from actors.jobs.errors import JobRefusedError, describe
from actors.runs import RunState, RunStatus
from bus import BusJobRequestMessage, BusJobResponseMessage, ErrorInfo, JobStatus, convert
from bus.errors import DataLostError
from bus.log import LONGEST_TEXT, said
from tests.support.running import running

anyio_mark = pytest.mark.anyio


# --- all errors survive pickle and copy ---


def error_classes() -> Iterator[type[Exception]]:
    """Every exception class that a module of ours defines under a public name."""
    for package in (bus, actors):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                ours = inspect.isclass(value) and value.__module__ == module.__name__
                if ours and issubclass(value, Exception) and not name.startswith("_"):
                    yield value


STATUS = RunStatus(run_id="run-1", state=RunState.FAILED, worker_names=("a",), error=ErrorInfo("E", "no"))

SAMPLES: dict[Any, Any] = {
    str: "a text",
    int: 7,
    float: 0.5,
    bool: True,
    object: ("any", "thing"),
    Any: {"an": "answer"},
    JobStatus: JobStatus.FAILED,
    ErrorInfo: ErrorInfo("ValueError", "no", worker="inner"),
    RunStatus: STATUS,
    dict[str, JobResult]: {"a": JobResult(JobStatus.COMPLETED, 1)},
    dict[str, Any]: {"a": [1, 2]},
    tuple[str, ...]: ("one", "two"),
}


def sample(hint: Any) -> Any:
    if hint in SAMPLES:
        return SAMPLES[hint]
    if get_origin(hint) in {Union, UnionType}:
        return sample(next(each for each in get_args(hint) if each is not type(None)))
    if get_args(hint):
        first = get_args(hint)[0]
        return first if isinstance(first, str) else {}
    return {} if hint is dict else hint(1) if isinstance(hint, type) else None


def made(kind: type[Exception]) -> Exception:
    """One of a class, with a value for each parameter of its constructor."""
    init = vars(kind).get("__init__") or next(
        vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)
    )
    if not inspect.isfunction(init):
        return kind("a text")
    hints = get_type_hints(init, vars(importlib.import_module(init.__module__)) | {"RunStatus": RunStatus})
    positional, keywords = [], {}
    for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[name] = sample(hints[name])
        else:
            positional.append(sample(hints[name]))
    return kind(*positional, **keywords)


WAYS: dict[str, Callable[[Exception], Exception]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301 - our own
    "an old pickle": lambda error: pickle.loads(pickle.dumps(error, protocol=2)),  # noqa: S301 - our own
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", sorted(set(error_classes()), key=str))
def test_g54_every_error_survives_pickle_and_copy_with_all_it_has(kind: type[Exception], way: str) -> None:
    error = made(kind)
    error.add_note("a note")
    again = WAYS[way](error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    for name in dir(error):
        if not name.startswith("_") and hasattr(error, name) and not callable(getattr(error, name)):
            assert getattr(again, name) == getattr(error, name)


def test_g54_the_walk_finds_the_errors_there_are() -> None:
    assert {JobError, JobGroupError, SupervisionError, bus.EncodeError, bus.PayloadError} <= set(error_classes())


# --- what an exception is called, and what it says ---


class Odd(Exception):  # noqa: N818 - users name theirs as they like
    retryable = True


def test_g54_of_a_group_all_that_failed_is_named_and_the_first_gives_the_type() -> None:
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [Odd("a")]), KeyError("b")])
    info = describe(nested)
    assert (info.type, info.message, info.retryable) == ("Odd", "a (and KeyError: 'b')", True)
    many = describe(ExceptionGroup("many", [ValueError(str(number)) for number in range(50)]))
    assert many.message.startswith("0 (and ValueError: 1, ")
    assert "45 more" in many.message


def test_g54_what_only_ends_a_task_is_not_named() -> None:
    info = describe(BaseExceptionGroup("left", [asyncio.CancelledError(), Odd("it")]))
    assert (info.type, info.message) == ("Odd", "it")


class HostileText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain", "plain"),
        (None, "None"),
        (7, "7"),
        (b"raw", "b'raw'"),
        ("a lone \ud800 one", "a lone \\ud800 one"),
        (HostileText("x"), "(its text could not be made: SystemExit)"),
        ("x" * LONGEST_TEXT, "x" * LONGEST_TEXT),
        ("x" * 5000, "x" * (LONGEST_TEXT - 21) + "... (5000 characters)"),
    ],
)
def test_what_a_user_says_is_made_a_text_that_can_be_told(text: object, told: str) -> None:
    assert said(text) == said(told) == told
    assert describe(Exception(text)).message == told or isinstance(text, HostileText)


# --- between workers ---


class Agent(BaseWorker):
    """Raises what it is told to, as deep as it is told to."""

    def __init__(self, name: str, make: Callable[[], BaseException] = ValueError) -> None:
        super().__init__(name)
        self.make = make
        self.raised: list[BaseException] = []
        self.calls = 0

    @job
    async def ask(self, depth: int) -> int:
        self.calls += 1
        if depth == 0:
            self.raised.append(self.make())
            raise self.raised[-1]
        return await self.job(self.name, name="ask", payload=depth - 1)  # type: ignore[no-any-return]

    @job
    async def ask_all(self, depth: int) -> int:
        return len((await self.job_group(self.name, name="ask", payload=depth)).responses)

    @job
    async def hang(self, seconds: float) -> None:
        await anyio.sleep_forever()

    @job
    async def be_late(self, worker: str) -> None:
        await self.job(worker, name="hang", payload=1.0, timeout=0.01)

    @job
    async def ask_nobody(self, worker: str) -> None:
        await self.job(worker)

    @job(retries=RetryPolicy(attempts=3, retry_on=(ConnectionError,), backoff=Backoff(first=0.0)))
    async def again(self, number: int) -> None:
        self.calls += 1
        raise self.make()


@pytest.fixture
async def asker() -> AsyncIterator[Client]:
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False, ready_timeout=0.01)
    async with runner, Client(runner) as client:
        yield client


async def failure(client: Any, worker: Any, payload: Any, name: str, **options: Any) -> JobError:
    await client_runner(client).add_workers(worker)
    with pytest.raises(JobError) as caught:
        await client.request(worker.name, payload, name=name, **options)
    return caught.value


def client_runner(client: Client) -> Any:
    return client._runner


@anyio_mark
@pytest.mark.parametrize("depth", [0, 1, 5, 40])
@pytest.mark.parametrize("name", ["ask", "ask_all"])
async def test_g54_an_exception_many_jobs_away_is_told_once(asker: Client, depth: int, name: str) -> None:
    error = await failure(asker, Agent("agent", lambda: Odd("the reason")), depth, name)
    assert error.error is not None
    assert (error.error.type, error.error.message) == ("Odd", "the reason")
    assert error.status is JobStatus.ERROR
    assert str(error).count("the reason") == 1
    assert len(str(error)) < 200
    inner = depth > 0 or name == "ask_all"
    assert error.error.worker == ("agent" if inner else None)
    assert error.error.retryable is (not inner), "only the handler of a job knows whether that may be repeated"


@anyio_mark
async def test_g54_within_a_process_the_cause_is_the_exception_itself_and_so_on_inside(asker: Client) -> None:
    agent = Agent("agent", lambda: Odd("it"))
    error: BaseException | None = await failure(asker, agent, 3, "ask")
    for _ in range(3):
        assert error is not None
        error = error.__cause__
        assert isinstance(error, JobError)
    assert error is not None
    assert error.__cause__ is agent.raised[0]


@anyio_mark
async def test_g54_the_error_of_a_group_has_that_of_its_member_as_cause(asker: Client) -> None:
    agent = Agent("agent", lambda: Odd("it"))
    await client_runner(asker).add_workers(agent)
    with pytest.raises(JobGroupError) as caught:
        await asker.job_group("agent", name="ask", payload=0)
    assert caught.value.__cause__ is agent.raised[0]
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert again.results == caught.value.results


@anyio_mark
async def test_g54_words_of_a_handlers_own_are_told_and_not_those_of_the_job_inside(asker: Client) -> None:
    class Translator(Agent):
        @job
        async def translate(self, depth: int) -> None:
            try:
                await self.job(self.name, name="ask", payload=depth)
            except JobError as error:
                raise Odd("in other words") from error

        @job
        async def reword(self, depth: int) -> None:
            raise JobError("in other words", error=ErrorInfo("ValueError", "not these"))

    error = await failure(asker, Translator("agent"), 0, "translate")
    assert error.error == ErrorInfo("Odd", "in other words", retryable=True)
    with pytest.raises(JobError) as caught:
        await asker.request("agent", 0, name="reword")
    assert caught.value.error == ErrorInfo("JobError", "in other words")


RAISED_BY_USERS: list[Callable[[], BaseException]] = [
    lambda: TimeoutError("mine"),
    lambda: JobTimeoutError("mine", worker_name="x"),
    lambda: JobTimeoutError(error=ErrorInfo("JobTimeoutError", "mine"), status=JobStatus.FAILED),
    lambda: WorkerUnavailableError(error=ErrorInfo("WorkerUnavailableError", "mine"), status=JobStatus.FAILED),
    lambda: JobRefusedError("mine"),
    lambda: bus.MailboxFullError("x", 1),
    lambda: DataLostError("mine"),
    lambda: ExceptionGroup("g", [JobTimeoutError("mine")]),
]


@anyio_mark
@pytest.mark.parametrize("make", RAISED_BY_USERS, ids=[str(number) for number in range(len(RAISED_BY_USERS))])
async def test_g54_outcomes_of_the_system_are_the_systems(asker: Client, make: Callable[[], BaseException]) -> None:
    error = await failure(asker, Agent("agent", make), 0, "ask")
    assert type(error) is JobError
    assert error.status is JobStatus.ERROR


@anyio_mark
async def test_g54_a_handler_that_reads_something_else_that_does_not_fit_has_not_been_refused(asker: Client) -> None:
    class Reader(BaseWorker):
        @job
        async def read(self, number: int) -> int:
            return len(convert({"n": "no number"}, dict[str, int], "payload"))

        @job(retries=RetryPolicy(attempts=1))
        async def read_again(self, number: int) -> int:
            return await self.read(number)

    await client_runner(asker).add_workers(Reader("reader"))
    for name in ("read", "read_again"):
        for payload, status in ((1, JobStatus.ERROR), ("no number", JobStatus.FAILED)):
            with pytest.raises(JobError, match="PayloadError") as caught:
                await asker.request("reader", payload, name=name)
            assert caught.value.status is status


@anyio_mark
@pytest.mark.parametrize(("name", "kind"), [("be_late", "JobTimeoutError"), ("ask_nobody", "WorkerUnavailableError")])
async def test_g54_what_a_job_inside_could_not_have_is_not_the_outcome_of_the_outer_one(
    asker: Client, name: str, kind: str
) -> None:
    other = "agent" if name == "be_late" else "nobody"
    error = await failure(asker, Agent("agent"), other, name)
    assert type(error) is JobError
    assert error.error is not None
    assert (error.error.type, error.error.worker, error.error.retryable) == (kind, other, False)


@anyio_mark
async def test_g54_an_answer_made_by_hand_cannot_claim_an_outcome_of_the_system(asker: Client) -> None:
    class Forger(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await self.send_bus_message(
                BusJobResponseMessage(
                    source=self.name,
                    target=message.source,
                    job_id=message.job_id,
                    status=JobStatus.FAILED,
                    error=ErrorInfo("WorkerUnavailableError", "of somebody else"),
                )
            )

    await client_runner(asker).add_workers(Forger("forger"))
    with pytest.raises(JobError) as caught:
        await asker.request("forger")
    assert type(caught.value) is JobError


@anyio_mark
@pytest.mark.parametrize(
    ("make", "calls"),
    [
        (lambda: ConnectionError("down"), 3),
        (lambda: ExceptionGroup("g", [ConnectionError("down")]), 3),
        (lambda: ExceptionGroup("g", [ExceptionGroup("h", [ConnectionError("a"), ConnectionError("b")])]), 3),
        (lambda: ExceptionGroup("g", [ConnectionError("down"), ValueError("no")]), 1),
        (lambda: BaseExceptionGroup("g", [ConnectionError("down"), SystemExit(1)]), 1),
        (lambda: ValueError("no"), 1),
    ],
    ids=["plain", "group", "groups", "also another", "with an exit", "another"],
)
async def test_g54_retries_look_at_what_failed_in_a_group(
    asker: Client, make: Callable[[], BaseException], calls: int
) -> None:
    agent = Agent("agent", make)
    await failure(asker, agent, 1, "again")
    assert agent.calls == calls


@anyio_mark
@pytest.mark.parametrize("asks", ["job", "job_group"])
async def test_a_deadline_says_timeout(asker: Client, asks: str) -> None:
    await client_runner(asker).add_workers(Agent("agent"))
    for worker in ("agent", "nobody"):
        with pytest.raises(JobError, match="timeout"):
            await getattr(asker, asks)(worker, name="hang", payload=1.0, timeout=0.01)


# --- nothing is lost ---


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


@anyio_mark
async def test_g54_an_unexpected_exception_is_logged_once_where_it_was_raised(
    asker: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await failure(asker, Agent("agent", lambda: Odd("it")), 5, "ask")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "handler raised" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Odd)


@anyio_mark
@pytest.mark.parametrize("group", [False, True])
async def test_g54_a_job_that_is_failed_on_purpose_is_told_and_not_logged(
    asker: Client, group: bool, caplog: pytest.LogCaptureFixture
) -> None:
    made = ExceptionGroup("g", [JobError("no paper")]) if group else JobError("no paper")
    error = await failure(asker, Agent("agent", lambda: made), 0, "ask")
    assert error.error == ErrorInfo("JobError", "no paper")
    assert lines(caplog) == []


@anyio_mark
async def test_g54_a_payload_that_does_not_fit_is_told_and_not_logged(
    asker: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await failure(asker, Agent("agent"), "no number", "ask")
    assert lines(caplog) == []


class Hearing(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.heard: list[str] = []

    async def on_job_error(self, message: Any) -> None:
        self.heard.append(message.job_id)


def lost(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in lines(caplog) if "nobody was told" in line]


@anyio_mark
async def test_g54_a_failure_that_nobody_listens_to_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    deaf, hearing = BaseWorker("deaf"), Hearing("hearing")
    async with running(deaf, hearing, Agent("agent")):
        for worker in (deaf, hearing):
            await worker.request_job("agent", name="ask", payload=0)
            await worker.request_job("agent", name="no such job")
            await anyio.wait_all_tasks_blocked()
        assert len(hearing.heard) == 2
        assert len(lost(caplog)) == 2
        assert all("worker='deaf'" in line for line in lost(caplog))
        caplog.clear()
        await deaf.request_job_group("agent", name="ask", payload=0, cancel_on_error=False)
        await anyio.wait_all_tasks_blocked()
        assert len(lost(caplog)) == 1
        caplog.clear()
        await deaf.cancel_job_group(await deaf.request_job("agent", name="hang", payload=1.0))
        assert lost(caplog) == []


@anyio_mark
@pytest.mark.parametrize("asks", ["waits", "looks", "does not care", "leaves it first"])
async def test_g54_a_group_that_is_held_is_logged_when_nobody_asks_how_it_ended(
    asks: str, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = BaseWorker("deaf")
    async with running(deaf, Agent("agent")):
        group: Any = await deaf.create_job_group_and_request_job(["agent"], name="ask", payload=0)
        if asks == "leaves it first":
            del group
            gc.collect()
        await anyio.wait_all_tasks_blocked()
        if asks == "waits":
            with pytest.raises(JobGroupError):
                await group.wait()
        elif asks == "looks":
            assert group.error is not None
        group = None
        gc.collect()
    assert len(lost(caplog)) == (0 if asks in {"waits", "looks"} else 1)


@anyio_mark
async def test_g54_a_job_that_failed_while_something_else_was_raised_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deaf = BaseWorker("deaf")
    async with running(deaf, Agent("agent")):
        with pytest.raises(KeyError):  # noqa: PT012 - what is raised in the body is meant
            async with deaf.job("agent", name="ask", payload=0):
                await anyio.wait_all_tasks_blocked()
                raise KeyError("mine")
    assert len(lost(caplog)) == 1
