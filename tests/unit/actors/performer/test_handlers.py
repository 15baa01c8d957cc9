"""Every shape a handler can have, and how it is run."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.from_thread
import msgspec
import pydantic
import pytest

from actors import Backoff, BaseWorker, Job, JobError, JobStatus, JobTimeoutError, RetryPolicy, job
from bus import BusJobRequestMessage
from tests.support.running import running, settled

pytestmark = pytest.mark.anyio


class Question(msgspec.Struct):
    text: str
    depth: int = 1


class Finding(msgspec.Struct):
    line: int
    tags: list[str] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Order(pydantic.BaseModel):
    item: str
    count: int = pydantic.Field(gt=0)


class Boss(BaseWorker):
    pass


class Shapes(BaseWorker):
    @job
    async def untyped(self, message):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return [type(message).__name__, message.payload, message.job_name]

    @job
    async def message(self, message: BusJobRequestMessage) -> Any:
        return [message.source, message.target, message.payload]

    @job
    async def anything(self, message: Any) -> Any:
        return type(message).__name__

    @job
    async def bare_job(self, work: Job) -> Any:  # type: ignore[type-arg]
        return [work.name, work.requester, work.worker_name, work.attempt, work.payload, work.remaining]

    @job
    async def typed_job(self, work: Job[Question]) -> Any:
        return [type(work.payload).__name__, work.payload.text, work.payload.depth, type(work.request).__name__]

    @job
    async def job_of_anything(self, work: Job[Any]) -> Any:
        return work.payload

    @job
    async def struct(self, question: Question) -> Finding:
        return Finding(question.depth, [question.text])

    @job
    async def dataclass(self, point: Point) -> Point:
        return Point(point.y, point.x)

    @job
    async def pydantic(self, order: Order) -> Order:
        return Order(item=order.item, count=order.count + 1)

    @job
    async def many(self, points: list[Point]) -> dict[str, Point]:
        return {str(number): point for number, point in enumerate(points)}

    @job
    async def maybe(self, text: str | None) -> str:
        return "nothing" if text is None else text

    @job
    async def number(self, value: int) -> int:
        return value + 1

    @job
    async def nothing(self) -> str:
        return "no argument"

    @job
    async def keywords_only(self, *, verbose: bool = False, **rest: Any) -> str:
        return f"no argument, verbose={verbose}"

    @job
    async def optional(self, message: BusJobRequestMessage | None = None, *rest: Any) -> str:
        return "given" if message is not None else "nothing"

    @job
    async def variadic(self, *messages: Any) -> list[str]:
        return [type(message).__name__ for message in messages]

    @job
    def in_thread(self, question: Question) -> list[Any]:
        return [question.text, threading.current_thread() is threading.main_thread()]

    @job
    def in_thread_without_arguments(self) -> str:
        return "thread"

    @job
    def in_thread_with_job(self, work: Job[Question]) -> str:
        anyio.from_thread.run(work.update, {"from": "thread"})
        return work.payload.text

    @job(name="another.name-1")
    async def named(self, message: Any) -> str:
        return "named"

    @job()
    async def parentheses(self, message: Any) -> str:
        return "parentheses"

    @job(name="stream")
    async def streams(self, work: Job[Question]) -> AsyncGenerator[dict[str, int]]:
        for number in range(work.payload.depth):
            yield {"chunk": number}

    @job
    async def stream_of_nothing(self) -> AsyncGenerator[int]:
        for number in range(0):
            yield number


@pytest.mark.parametrize(
    ("name", "payload", "answer"),
    [
        ("untyped", 1, ["BusJobRequestMessage", 1, "untyped"]),
        ("message", {"a": 1}, ["boss", "shapes", {"a": 1}]),
        ("anything", None, "BusJobRequestMessage"),
        ("bare_job", 5, ["bare_job", "boss", "shapes", 1, 5, None]),
        ("typed_job", {"text": "why"}, ["Question", "why", 1, "BusJobRequestMessage"]),
        ("typed_job", Question("why", 3), ["Question", "why", 3, "BusJobRequestMessage"]),
        ("job_of_anything", (1, {2}), (1, {2})),
        ("struct", {"text": "t", "depth": 7}, Finding(7, ["t"])),
        ("struct", Question("t", 8), Finding(8, ["t"])),
        ("dataclass", {"x": 1, "y": 2}, Point(2, 1)),
        ("dataclass", Point(3, 4), Point(4, 3)),
        ("pydantic", {"item": "tea", "count": 1}, Order(item="tea", count=2)),
        ("pydantic", Order(item="tea", count=2), Order(item="tea", count=3)),
        ("many", [{"x": 1, "y": 2}, Point(3, 4)], {"0": Point(1, 2), "1": Point(3, 4)}),
        ("maybe", None, "nothing"),
        ("maybe", "something", "something"),
        ("number", 41, 42),
        ("nothing", {"ignored": True}, "no argument"),
        ("keywords_only", 1, "no argument, verbose=False"),
        ("optional", 1, "given"),
        ("variadic", 1, ["BusJobRequestMessage"]),
        ("in_thread", {"text": "t"}, ["t", False]),
        ("in_thread_without_arguments", None, "thread"),
        ("in_thread_with_job", {"text": "t"}, "t"),
        ("another.name-1", None, "named"),
        ("parentheses", None, "parentheses"),
        ("stream", {"text": "", "depth": 2}, None),
        ("stream_of_nothing", None, None),
    ],
)
async def test_a_handler_is_given_what_its_signature_asks_for(name: str, payload: Any, answer: Any) -> None:
    boss = Boss("boss")
    async with running(boss, Shapes("shapes")):
        got = await boss.job("shapes", name=name, payload=payload)
        assert got == answer
        assert type(got) is type(answer)


@pytest.mark.parametrize(
    ("name", "payload", "message"),
    [
        ("struct", {"text": 1}, r"payload\.text: expected `?str`?, got `?int`?"),
        ("struct", {}, "payload: missing required field text"),
        ("struct", None, "expected `?a dict`?, got `?None`?"),
        ("typed_job", {"text": "t", "depth": "deep"}, r"payload\.depth: "),
        ("dataclass", {"x": 1, "y": 2.5}, r"payload\.y: "),
        ("pydantic", {"item": "tea", "count": 0}, r"payload\.count: "),
        ("many", [{"x": 1, "y": 2}, {"x": 1, "y": None}], r"payload\[1\]\.y: "),
        ("number", "41", "payload: expected `?int`?, got `?str`?"),
        ("in_thread", {"text": None}, r"payload\.text: "),
        ("stream", {"text": "", "depth": None}, r"payload\.depth: "),
    ],
)
async def test_a_payload_that_does_not_fit_is_a_failed_answer_that_names_the_field(
    name: str, payload: Any, message: str
) -> None:
    boss = Boss("boss")
    async with running(boss, Shapes("shapes")):
        with pytest.raises(JobError, match=message) as caught:
            await boss.job("shapes", name=name, payload=payload)
        assert caught.value.status is JobStatus.FAILED
        assert caught.value.error is not None
        assert caught.value.error.type == "PayloadError"


async def test_handlers_are_inherited_and_may_be_replaced() -> None:
    class Base(BaseWorker):
        @job
        async def kept(self) -> str:
            return f"kept by {self.name}"

        @job
        async def replaced(self) -> str:
            return "base"

        @job(name="by-name")
        async def called(self) -> str:
            return "base"

    class Derived(Base):
        @job
        async def replaced(self) -> str:
            return "derived, over " + await super().replaced()

        @job(name="by-name")
        async def called(self) -> str:
            return "derived"

    boss = Boss("boss")
    async with running(boss, Derived("d")):
        assert await boss.job("d", name="kept") == "kept by d"
        assert await boss.job("d", name="replaced") == "derived, over base"
        assert await boss.job("d", name="by-name") == "derived"


# --- streams ---


async def test_an_async_generator_streams_what_it_yields() -> None:
    boss = Boss("boss")
    async with running(boss, Shapes("shapes")):
        async with boss.job("shapes", name="stream", payload=Question("", 1000)) as context:
            events = [(event.type, event.data) async for event in context]
        assert events[0] == ("stream_start", None)
        assert events[1:-1] == [("stream_data", {"chunk": number}) for number in range(1000)]
        assert events[-1] == ("stream_end", None)
        assert context.response is None


async def test_a_cancelled_stream_closes_its_generator() -> None:
    class Endless(BaseWorker):
        closed = 0

        @job
        async def count(self) -> AsyncGenerator[int]:
            try:
                number = 0
                while True:
                    yield number
                    number += 1
            finally:
                self.closed += 1

    boss, endless = Boss("boss"), Endless("endless")
    async with running(boss, endless):
        seen = []
        with pytest.raises(JobError, match="enough"):  # noqa: PT012 - leaving the context is what raises
            async with boss.job("endless", name="count") as context:
                async for event in context:
                    seen.append(event.data)
                    if event.data == 2000:
                        await context.cancel("enough")
                        break
        await anyio.wait_all_tasks_blocked()
        assert seen == [None, *range(2001)]
        assert endless.closed == 1


async def test_a_stream_that_answers_in_the_middle_is_closed() -> None:
    class Early(BaseWorker):
        closed = 0

        @job
        async def count(self, work: Job[Any]) -> AsyncGenerator[int]:
            try:
                yield 1
                await work.respond("enough")
                yield 2
            finally:
                self.closed += 1

    boss, early = Boss("boss"), Early("early")
    async with running(boss, early):
        async with boss.job("early", name="count") as context:
            assert [event.data async for event in context] == [None, 1]
        assert context.response == "enough"
        await anyio.wait_all_tasks_blocked()
        assert early.closed == 1


async def test_a_coroutine_may_stream_and_its_returned_value_ends_the_stream() -> None:
    class Mixed(BaseWorker):
        @job
        async def mixed(self, work: Job[Any]) -> dict[str, int]:
            await work.update("soon")
            await work.stream(1)
            await work.stream(2)
            await work.update("nearly")
            return {"total": 2}

    boss = Boss("boss")
    async with running(boss, Mixed("mixed")):
        async with boss.job("mixed", name="mixed") as context:
            events = [(event.type, event.data) async for event in context]
        assert events == [
            ("update", "soon"),
            ("stream_start", None),
            ("stream_data", 1),
            ("stream_data", 2),
            ("update", "nearly"),
            ("stream_end", {"total": 2}),
        ]
        assert context.response == {"total": 2}


# --- retries ---

SOON = Backoff(first=0.0, limit=0.0)


class Flaky(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls = 0

    @job(retries=RetryPolicy(attempts=3, backoff=SOON))
    async def third_time(self, number: int) -> int:
        self.calls += 1
        if self.calls < 3:
            raise ConnectionError(str(self.calls))
        return self.calls + number

    @job(retries=RetryPolicy(attempts=3, backoff=SOON))
    def third_time_in_thread(self) -> int:
        self.calls += 1
        if self.calls < 3:
            raise ConnectionError(str(self.calls))
        return self.calls

    @job(retries=RetryPolicy(attempts=2, backoff=SOON))
    async def never(self) -> None:
        self.calls += 1
        raise ConnectionError(f"call {self.calls}")

    @job(retries=RetryPolicy(attempts=5, backoff=SOON, retry_on=(ConnectionError, TimeoutError)))
    async def unexpected(self) -> None:
        self.calls += 1
        raise KeyError("unexpected")

    @job(retries=RetryPolicy(attempts=5, backoff=SOON))
    async def leaving(self) -> None:
        self.calls += 1
        raise SystemExit(1)

    @job(retries=RetryPolicy(attempts=5, backoff=SOON))
    async def answered(self, work: Job[Any]) -> None:
        self.calls += 1
        await work.respond("done")
        raise ConnectionError("after the answer")

    @job(retries=RetryPolicy(attempts=1000, backoff=Backoff(first=100.0)))
    async def patient(self) -> None:
        self.calls += 1
        raise ConnectionError("again")


@pytest.mark.parametrize(("name", "answer"), [("third_time", 3), ("third_time_in_thread", 3), ("answered", "done")])
async def test_a_handler_is_called_again_until_it_answers(name: str, answer: Any) -> None:
    boss, flaky = Boss("boss"), Flaky("flaky")
    async with running(boss, flaky):
        assert await boss.job("flaky", name=name, payload=0) == answer
        await anyio.wait_all_tasks_blocked()
        assert flaky.calls == (1 if name == "answered" else 3)


@pytest.mark.parametrize(
    ("name", "calls", "error"),
    [("never", 2, "ConnectionError: call 2"), ("unexpected", 1, "KeyError"), ("leaving", 1, "SystemExit")],
)
async def test_a_handler_that_goes_on_raising_is_an_error_after_the_last_attempt(
    name: str, calls: int, error: str
) -> None:
    boss, flaky = Boss("boss"), Flaky("flaky")
    async with running(boss, flaky):
        with pytest.raises(JobError, match=error) as caught:
            await boss.job("flaky", name=name)
        assert caught.value.status is JobStatus.ERROR
        assert flaky.calls == calls


async def test_a_payload_that_does_not_fit_is_not_tried_again() -> None:
    boss, flaky = Boss("boss"), Flaky("flaky")
    async with running(boss, flaky):
        with pytest.raises(JobError) as caught:
            await boss.job("flaky", name="third_time", payload="text")
        assert caught.value.status is JobStatus.FAILED
        assert flaky.calls == 0


async def test_retries_stay_within_the_deadline_of_the_job() -> None:
    boss, flaky = Boss("boss"), Flaky("flaky")
    async with running(boss, flaky):
        with pytest.raises(JobTimeoutError):
            await boss.job("flaky", name="patient", timeout=0.05)
        assert flaky.calls == 1


# --- timeout= of a handler ---


async def test_the_limit_of_a_handler_counts_from_its_start_and_not_from_the_request() -> None:
    class Queued(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.release = anyio.Event()

        @job(sequential=True, timeout=30)
        async def limited(self, work: Job[Any]) -> float:
            if work.payload == "wait":
                await self.release.wait()
            assert work.remaining is not None
            return work.remaining

    boss, queued = Boss("boss"), Queued("q")
    async with running(boss, queued):
        first = await boss.request_job("q", name="limited", payload="wait")
        second = await boss.create_job_group_and_request_job(["q"], name="limited")
        with anyio.move_on_after(1.0):
            await second.wait()
        queued.release.set()
        await second.wait()
        assert 29.0 < second.responses["q"] <= 30.0
        assert first not in boss.job_groups


async def test_a_sync_handler_past_its_limit_is_answered_and_left_to_end_by_itself() -> None:
    class Blocking(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.release = threading.Event()

        @job(timeout=0.02)
        def block(self) -> str:
            self.release.wait(60)
            return "too late"

    boss, blocking = Boss("boss"), Blocking("b")
    async with running(boss, blocking) as runner:
        try:
            with pytest.raises(JobTimeoutError):
                await boss.job("b", name="block")
        finally:
            blocking.release.set()
        await settled(runner)
