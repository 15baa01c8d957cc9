"""The verbs of asking: answers and chunks of a type, handlers given themselves, streams, members that have ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import msgspec
import pytest

from actors import (
    BaseWorker,
    Client,
    HandlerError,
    Job,
    JobError,
    JobGroupError,
    JobStatus,
    ResultMismatchError,
    function,
    job,
)
from bus import BusJobRequestMessage
from tests.support.running import running

pytestmark = pytest.mark.anyio


@dataclass
class Author:
    name: str


@dataclass
class Book:
    title: str
    pages: int
    author: Author


class Page(msgspec.Struct):
    number: int


PLAIN = {"title": "Emma", "pages": 512, "author": {"name": "Jane"}}
EMMA = Book("Emma", 512, Author("Jane"))


class Library(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.left: list[Any] = []
        self.over = anyio.Event()

    @job
    async def find(self, work: Job[Any]) -> Any:
        return work.payload

    @job
    async def lend(self, book: Book) -> Book:
        return book

    @job
    async def wrong(self, payload: str) -> Book:
        return payload  # type: ignore[return-value] # that is what this is about

    @job(name="count all")
    async def count(self, work: Job[list[int]]) -> int:
        return sum(work.payload)

    @job
    async def nothing(self) -> None:
        pass

    @job
    def plain(self, text: str) -> str:
        return text.upper()

    @job
    async def by_message(self, message: BusJobRequestMessage) -> str:
        return str(message.payload)

    @job
    async def pages(self, last: int) -> AsyncIterator[Page]:
        try:
            for number in range(last):
                yield Page(number)
        finally:
            self.left.append(last)
            self.over.set()

    @job
    async def fails(self, last: int) -> AsyncIterator[int]:
        for number in range(last):
            yield number
        raise LookupError("no more")


@function()
def shout(text: str) -> str:
    return text.upper()


# --- answers of a type ---


@pytest.mark.parametrize(
    ("sent", "wanted", "got"),
    [
        (PLAIN, Book, EMMA),
        ([PLAIN], list[Book], [EMMA]),
        ({"a": PLAIN}, dict[str, Book], {"a": EMMA}),
        ({"author": {"name": "x"}}, dict[str, Author], {"author": Author("x")}),
        (3, int | None, 3),
        (None, int | None, None),
        (None, type(None), None),
        ({"number": 1}, Page, Page(1)),
        (EMMA, Book, EMMA),
        (5, Annotated[int, msgspec.Meta(ge=1)], 5),
    ],
)
async def test_an_answer_is_made_what_its_requester_wants(sent: Any, wanted: Any, got: Any) -> None:
    async with running(Library("library"), asker := BaseWorker("asker")):
        payload = {"value": sent}

        class Echo(BaseWorker):
            @job
            async def echo(self, box: dict[str, Any]) -> Any:
                return box["value"]

        await asker.add_workers(Echo("echo"))
        assert await asker.request("echo", payload, name="echo", result=wanted) == got
        assert (await asker.job_group("echo", name="echo", payload=payload, result=wanted)).responses == {"echo": got}
        async with asker.job("echo", name="echo", payload=payload, result=wanted) as asked:
            pass
        assert asked.response == got
        assert asked.results["echo"].response == got


@pytest.mark.parametrize(
    ("sent", "wanted", "told"),
    [
        ({**PLAIN, "pages": "many"}, Book, "answer.pages"),
        ({**PLAIN, "author": {}}, Book, "answer.author"),
        ([PLAIN, 5], list[Book], r"answer\[1\]"),
        ({"number": None}, Page, "answer.number"),
        ({"a": 0}, dict[str, Annotated[int, msgspec.Meta(ge=1)]], "answer"),
    ],
)
async def test_an_answer_that_does_not_fit_fails_the_job_and_says_where(sent: Any, wanted: Any, told: str) -> None:
    async with running(Library("library"), asker := BaseWorker("asker")):
        with pytest.raises(ResultMismatchError, match=told) as refused:
            await asker.request("library", sent, name="find", result=wanted)
        assert refused.value.status is JobStatus.FAILED
        assert refused.value.worker_name == "library"
        assert refused.value.response == sent
        with pytest.raises(JobGroupError, match=told):
            await asker.job_group("library", name="find", payload=sent, result=wanted)
        kept = await asker.job_group("library", name="find", payload=sent, result=wanted, cancel_on_error=False)
        assert kept.results["library"].status is JobStatus.FAILED
        (slot,) = await asker.gather("library", [sent], name="find", result=wanted)
        assert isinstance(slot, ResultMismatchError)
        assert not asker.job_groups


# --- handlers given themselves ---


@pytest.mark.parametrize("kind", ["worker", "client"])
async def test_a_handler_is_asked_by_itself(kind: str) -> None:
    async with running(Library("library"), shout.worker()) as runner, Client(runner) as client:
        asker: Any = client if kind == "client" else BaseWorker("asker")
        if kind == "worker":
            await runner.add_workers(asker)
        assert await asker.call(Library.lend, EMMA, on="library") == EMMA
        assert await asker.call(Library.count, [1, 2, 3], on="library") == 6
        assert await asker.call(Library.nothing, on="library") is None
        assert await asker.call(Library.plain, "a", on="library", timeout=30) == "A"
        assert await asker.call(Library.by_message, {"a": 1}, on="library") == "{'a': 1}"
        assert await asker.call(shout, "hey") == "HEY"
        assert await asker.call(shout, "hey", on="shout") == "HEY"
        with pytest.raises(ResultMismatchError, match="answer"):
            await asker.call(Library.wrong, "text", on="library")


async def test_what_cannot_be_called_is_refused_before_anything_is_asked_for() -> None:
    async with running(library := Library("library"), asker := BaseWorker("asker")):
        for handler, on, told in (
            (Library.lend, None, r"Library.lend: say whom to ask, on='worker name'"),
            (Library.pages, "library", r"streams: use stream\(\)"),
            (library.lend, "library", "as its class has it"),
            (Library.add_workers, "library", "is no handler"),
            (len, "library", "is no handler"),
            ("library", "library", "is no handler"),
        ):
            with pytest.raises(HandlerError, match=told):
                await asker.call(handler, EMMA, **({"on": on} if on else {}))  # type: ignore[call-overload]
        with pytest.raises(HandlerError, match=r"does not stream: use call\(\)"):
            asker.stream(Library.lend, EMMA, on="library")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a name and types of its own"):
            asker.stream(Library.pages, 3, on="library", result=int)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="tiemout"):
            await asker.call(Library.lend, EMMA, on="library", tiemout=3)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="tiemout"):
            await asker.request_job("library", tiemout=3)  # type: ignore[call-arg]
        assert not asker.job_groups


# --- streams ---


async def test_a_stream_gives_the_chunks_and_ends() -> None:
    async with running(library := Library("library"), asker := BaseWorker("asker")):
        assert [each.number async for each in asker.stream(Library.pages, 4, on="library")] == [0, 1, 2, 3]
        got = [each async for each in asker.stream("library", 1, name="pages", result=Page)]
        assert got == [Page(0)]
        assert library.left == [4, 1]
        assert not asker.job_groups


async def test_who_leaves_a_stream_cancels_its_job() -> None:
    async with running(library := Library("library"), asker := BaseWorker("asker")):
        async with aclosing(asker.stream("library", name="pages", payload=10**9)) as chunks:
            async for _ in chunks:
                break
        await library.over.wait()
        assert not asker.job_groups
        assert library.statistics().running == 0


async def test_a_stream_that_fails_says_so_after_its_chunks() -> None:
    async with running(Library("library"), asker := BaseWorker("asker")):
        chunks = asker.stream(Library.fails, 3, on="library")
        assert [await anext(chunks) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(JobError, match="no more"):
            await anext(chunks)
        with pytest.raises(ResultMismatchError, match="chunk"):
            await anext(asker.stream("library", 3, name="pages", result=int))
        assert not asker.job_groups


# --- members that have ended ---


class Runner(BaseWorker):
    @job
    async def run_for(self, order: int) -> int:
        if order < 0:
            raise ValueError("fell")
        for _ in range(order):
            await anyio.wait_all_tasks_blocked()
        return order


async def test_a_group_tells_of_each_member_that_has_ended_in_that_order() -> None:
    names = {"slow": 30, "quick": 0, "middle": 10}
    async with running(*map(Runner, names), asker := BaseWorker("asker")):
        told = []
        async with asker.job_group(*names, name="run_for", payloads=dict(names)) as group:
            async for event in group:
                assert event.type == event.MEMBER_DONE
                assert event.result == group.results[event.worker_name]
                told.append((event.worker_name, event.data))
        assert told == [("quick", 0), ("middle", 10), ("slow", 30)]


async def test_a_group_tells_of_members_that_failed_and_of_those_that_were_stopped_for_it() -> None:
    async with running(Runner("fails"), Runner("waits"), asker := BaseWorker("asker")):
        told = {}
        turns = {"fails": -1, "waits": 10**6}

        async def hear() -> None:
            async with asker.job_group(*turns, name="run_for", payloads=turns) as group:
                async for event in group:
                    assert event.result is not None
                    told[event.worker_name] = event.result.status

        with pytest.raises(JobGroupError, match="fell"):
            await hear()
        assert told == {"fails": JobStatus.ERROR, "waits": JobStatus.CANCELLED}


async def test_more_members_than_a_window_holds_are_all_told_of() -> None:
    names = [f"runner {number}" for number in range(300)]
    async with (
        running(*map(Runner, names), asker := BaseWorker("asker")),
        asker.job_group(*names, name="run_for", payload=0) as group,
    ):
        assert sorted([event.worker_name async for event in group]) == sorted(names)


# --- names of one's own ---


async def test_a_worker_may_have_methods_named_like_the_later_verbs() -> None:
    class Phone(BaseWorker):
        @job
        async def call(self, number: int) -> int:  # type: ignore[override]
            return number + 1

        @job
        async def stream(self, number: int) -> AsyncIterator[int]:  # type: ignore[override]
            yield number

        async def gather(self) -> str:  # type: ignore[override]
            return "mine"

    async with running(phone := Phone("phone"), asker := BaseWorker("asker")):
        assert await asker.request("phone", 1, name="call") == 2
        assert [chunk async for chunk in asker.stream("phone", 1, name="stream")] == [1]
        assert await phone.gather() == "mine"
    with pytest.raises(HandlerError, match="stream"):
        type("Phone", (BaseWorker,), {"stream": None})
