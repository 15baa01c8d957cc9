"""Plain functions as workers."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import msgspec
import pytest

from actors import BaseWorker, Function, HandlerError, JobError, JobStatus, function
from actors.jobs.nesting import current_job
from actors.performer.execution import Execution
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Question(msgspec.Struct):
    text: str
    depth: int = 1


class Boss(BaseWorker):
    pass


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


ALL: list[Function[Any, Any]] = [
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
        ("hello", None, r"payload\.name: expected str, got None"),
        ("hello", {"nmae": "you"}, r"payload\.name: expected str, got a dict"),
        ("adder", {}, "payload: missing required field first"),
        ("adder", {"first": 1, "secnod": 2}, "unknown field secnod"),
        ("adder", [1, 2], "payload: expected a dict"),
        ("adder", 0, "payload: expected a dict"),
        ("nothing", {"x": 1}, "unknown field x"),
        ("question", {"asked": {"text": None}}, r"payload\.asked\.text: "),
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


def test_functions_that_cannot_be_given_arguments_by_name_are_refused() -> None:
    def positional(first: int, /) -> None: ...

    def variadic(*rest: int) -> None: ...

    def extra(**rest: int) -> None: ...

    def unknown(what: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def generator():  # type: ignore[no-untyped-def] # noqa: ANN202
        yield 1

    async def async_generator():  # type: ignore[no-untyped-def] # noqa: ANN202
        yield 1

    for bad, message in (
        (positional, "function 'positional': parameter first"),
        (variadic, r"function 'variadic': parameter \*rest"),
        (extra, r"function 'extra': parameter \*\*rest"),
        (unknown, "function 'unknown': name 'Missing' is not defined"),
        (generator, "function 'generator' is a generator"),
        (async_generator, "function 'async_generator' is a generator"),
    ):
        with pytest.raises(HandlerError, match=message):
            function()(bad)
    with pytest.raises(ValueError, match=r"function name 'not a name.n' is not a valid name"):
        function(name="not a name\n")(lambda: None)
    with pytest.raises(HandlerError, match="a function without a name of its own needs one: name="):
        function()(lambda: None)
