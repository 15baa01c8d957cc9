"""Plain functions as workers."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import msgspec
import pydantic
import pytest

from actors import (
    Backoff,
    BaseWorker,
    Function,
    HandlerError,
    Job,
    JobError,
    JobStatus,
    JobTimeoutError,
    RetryPolicy,
    function,
)
from actors.jobs.nesting import current_job
from actors.performer.execution import Execution
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Question(msgspec.Struct):
    text: str
    depth: int = 1


class Boss(BaseWorker):
    async def ask(self, worker: str) -> None:
        await self.job(worker)


@function()
def hello(name: str) -> str:
    """Greet."""
    return f"hello {name}"


@function(name="adder")
async def add(first: int, second: int = 10) -> int:
    return first + second


@function()
def greet(name: str = "you", *, loud: bool = False) -> str:
    return f"{name}!" if loud else name


@function()
def maybe(value: int | None) -> str:
    return repr(value)


@function()
def question(asked: Question) -> list[Question]:
    return [asked, Question(asked.text, asked.depth + 1)]


@function()
def anything(value) -> Any:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return value


@function()
def nothing() -> None: ...


@function()
def on_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


@function()
def fails(how: str) -> None:
    raise {"exit": SystemExit, "generator": GeneratorExit, "value": ValueError}[how](how)


@function()
async def forever() -> None:
    await anyio.sleep_forever()


@function()
async def asks_further(name: str) -> str:
    work = current_job.get()
    assert isinstance(work, Execution)
    worker = work.slots.doer.instance
    inner: str = await worker.job("hello", payload=name)
    return f"they say {inner}"


@function
def bounded(limit: Annotated[int, pydantic.Field(ge=1)]) -> int:
    return limit


@function
def search(text: str, sources: list[str] = ["web"]) -> list[str]:  # noqa: B006 - it is copied for each call
    sources.append(text)
    return sources


@function
def record(data: dict[str, Any]) -> dict[str, Any]:
    return data


@function
def collected(first: int, /, *more: int, label: str = "l", **rest: int) -> list[Any]:
    return [first, more, label, rest]


@function
def named(*, text: str) -> str:
    return text


@function
def with_job(job: Job[Any], number: int = 2) -> list[Any]:
    return [job.worker_name, number]


@function
def with_a_clock(text: str, *, clock: Callable[[], float] = time.monotonic) -> bool:
    return clock is time.monotonic and bool(text)


ALL: list[Function[Any, Any]] = [
    bounded,
    search,
    record,
    collected,
    named,
    with_job,
    with_a_clock,
    hello,
    add,
    greet,
    maybe,
    question,
    anything,
    nothing,
    on_thread,
    fails,
    forever,
    asks_further,
]


@pytest.mark.parametrize(
    ("worker", "payload", "answer"),
    [
        ("hello", {"name": "you"}, "hello you"),
        ("hello", "you", "hello you"),
        ("adder", {"first": 1}, 11),
        ("adder", {"first": 1, "second": 2}, 3),
        ("greet", None, "you"),
        ("greet", {}, "you"),
        ("greet", {"loud": True}, "you!"),
        ("maybe", None, "None"),
        ("maybe", {"value": None}, "None"),
        ("maybe", 0, "0"),
        ("question", {"text": "t"}, [Question("t", 1), Question("t", 2)]),
        ("question", Question("t", 2), [Question("t", 2), Question("t", 3)]),
        ("anything", [1, (2,)], [1, (2,)]),
        ("nothing", None, None),
        ("on-thread", None, True),
        ("asks_further", "me", "they say hello me"),
        ("bounded", 7, 7),
        ("bounded", {"limit": 7}, 7),
        ("search", {"text": "a"}, ["web", "a"]),
        ("search", {"text": "b"}, ["web", "b"]),
        ("record", {"id": 1}, {"id": 1}),
        ("record", {"data": {"id": 1}, "by": "ann"}, {"data": {"id": 1}, "by": "ann"}),
        ("record", {"data": {"id": 1}}, {"data": {"id": 1}}),
        ("collected", {"first": 1}, [1, (), "l", {}]),
        ("collected", {"first": 1, "label": "m", "n": 2}, [1, (), "m", {"n": 2}]),
        ("named", "t", "t"),
        ("named", {"text": "t"}, "t"),
        ("with_job", None, ["with_job", 2]),
        ("with_job", 3, ["with_job", 3]),
        ("with_a_clock", {"text": "t"}, True),
    ],
)
async def test_a_function_answers_jobs_with_its_arguments_by_name_or_the_only_one_itself(
    worker: str, payload: Any, answer: Any
) -> None:
    boss = Boss("boss")
    renamed = on_thread.worker("on-thread")
    async with running(boss, *ALL, renamed):
        assert await boss.job(worker, payload=payload) == answer
        assert await boss.job(worker, name="any-name", payload=payload, timeout=50) == answer


@pytest.mark.parametrize(
    ("worker", "payload", "message"),
    [
        ("hello", {"name": 5}, r"payload\.name: expected str, got int"),
        ("hello", None, r"payload: expected str, got None"),
        ("hello", {"nmae": "you"}, "payload: contains unknown field nmae; is it name?"),
        ("adder", {}, "payload: missing required field first"),
        ("adder", {"first": 1, "secnod": 2}, "unknown field secnod"),
        ("adder", [1, 2], "payload: expected a dict"),
        ("adder", 0, "payload: expected a dict"),
        ("nothing", {"x": 1}, "unknown field x"),
        ("question", {"text": None}, r"payload\.text: "),
        ("question", {"asked": {"text": "t"}}, "payload: missing required field text"),
        ("bounded", -5, "payload: .*greater than or equal to 1"),
        ("bounded", {"limit": -5}, "payload.limit: .*greater than or equal to 1"),
        ("search", {"text": "a", "sources": "web"}, "payload.sources: expected a list, got str"),
        ("search", {"text": "a", "sources": None}, "payload.sources: expected a list, got None"),
    ],
)
async def test_arguments_that_do_not_fit_are_a_failed_answer_that_names_them(
    worker: str, payload: Any, message: str
) -> None:
    boss = Boss("boss")
    async with running(boss, *ALL):
        with pytest.raises(JobError, match=message) as caught:
            await boss.job(worker, payload=payload)
        assert caught.value.status is JobStatus.FAILED


@pytest.mark.parametrize(
    ("how", "kind"), [("exit", "SystemExit"), ("generator", "GeneratorExit"), ("value", "ValueError")]
)
async def test_whatever_a_function_raises_is_the_requesters_error(how: str, kind: str) -> None:
    boss = Boss("boss")
    async with running(boss, *ALL):
        with pytest.raises(JobError) as caught:
            await boss.job("fails", payload=how)
        assert caught.value.error is not None
        assert (caught.value.status, caught.value.error.type) == (JobStatus.ERROR, kind)
        assert await boss.job("hello", payload="still") == "hello still"


async def test_a_function_is_cancelled_with_its_job() -> None:
    boss = Boss("boss")
    async with running(boss, *ALL) as runner:
        job_id = await boss.request_job("forever")
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().jobs == 1
        await boss.cancel_job_group(job_id)


def test_a_function_can_still_be_called() -> None:
    assert hello("you") == hello(name="you") == "hello you"
    assert hello.__doc__ == "Greet."
    assert hello.name == "hello"
    assert add.name == "adder"


class Streamed(msgspec.Struct):
    number: int


@function
async def numbers(upto: int) -> AsyncIterator[Streamed]:
    for number in range(upto):
        yield Streamed(number)


@function(name="plain-numbers")
def plain_numbers(upto: int) -> Iterator[int]:
    yield from range(upto)


async def test_a_function_that_yields_streams() -> None:
    boss = Boss("boss")
    async with running(boss, numbers, plain_numbers):
        async with boss.job("numbers", payload=2) as stream:
            assert [each.data async for each in stream if each.type == "stream_data"] == [Streamed(0), Streamed(1)]
        async with boss.job("plain-numbers", payload={"upto": 3}) as stream:
            assert [each.data async for each in stream if each.type == "stream_data"] == [0, 1, 2]


async def test_a_function_is_retried_limited_and_timed_out_as_it_says() -> None:
    calls: list[int] = []
    running_now = most = 0

    @function(retries=RetryPolicy(attempts=3, backoff=Backoff(first=0.0, limit=0.0)))
    async def flaky(number: int) -> int:
        calls.append(number)
        if len(calls) < 3:
            raise ConnectionError(str(number))
        return number

    @function(timeout=0.01)
    async def slow() -> None:
        await anyio.sleep_forever()

    @function(sequential=True)
    async def one() -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await anyio.lowlevel.checkpoint()
        running_now -= 1

    boss = Boss("boss")
    async with running(boss, flaky, slow, one):
        assert await boss.job("flaky", payload=4) == 4
        assert calls == [4, 4, 4]
        with pytest.raises(JobTimeoutError):
            await boss.job("slow")
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(boss.ask, "one")
        assert most == 1


async def test_functions_that_call_themselves_something_else_are_served() -> None:
    def twice(text: str, times: int = 2) -> str:
        return text * times

    class Adder:
        def __call__(self, first: int, second: int) -> int:
            return first + second

    boss = Boss("boss")
    triple = function(name="triple")(functools.partial(twice, times=3))
    async with running(boss, triple, function(name="sum")(Adder())):
        assert await boss.job("triple", payload={"text": "a"}) == "aaa"
        assert await boss.job("sum", payload={"first": 1, "second": 2}) == 3


def test_functions_that_cannot_be_served_are_refused() -> None:
    def variadic(*rest: int) -> None: ...

    def unknown(what: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def code(call: Callable[[], int]) -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    refused: tuple[tuple[Any, str], ...] = (
        (variadic, r"function 'variadic' takes \*args"),
        (unknown, "function 'unknown': the annotation of 'what', 'Missing' cannot be resolved: name 'Missing'"),
        (code, "function 'code': parameter 'call': .* is code"),
        ("name", "stands on a function, not on 'name'; a name goes into name="),
    )
    for bad, message in refused:
        with pytest.raises(HandlerError, match=message):
            function(bad)
    with pytest.raises(HandlerError, match="a stream cannot be retried"):
        function(retries=RetryPolicy())(stream)
    with pytest.raises(HandlerError, match="max_concurrency must be 1 or more"):
        function(max_concurrency=0)
    with pytest.raises(ValueError, match=r"function name 'not a name.n' is not a valid name"):
        function(name="not a name\n")(lambda: None)
    with pytest.raises(HandlerError, match="a function without a name of its own needs one: name="):
        function()(lambda: None)
