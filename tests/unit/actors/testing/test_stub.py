"""A stub answers by its table, whatever stands there, and notes what it was asked."""

from __future__ import annotations

from typing import Any

import anyio.lowlevel
import pytest

from actors import BaseWorker, JobError
from actors.testing.stub import StubWorker
from tests.support.running import running

pytestmark = pytest.mark.anyio


async def later(payload: int) -> int:
    await anyio.lowlevel.checkpoint()
    return payload + 1


@pytest.mark.parametrize(
    ("answer", "payload", "expected"),
    [
        ("sunny", None, "sunny"),
        (None, 1, None),
        ({"nested": [1, 2.5]}, None, {"nested": [1, 2.5]}),
        (lambda payload: payload * 2, 4, 8),
        (later, 4, 5),
    ],
    ids=["a value", "nothing", "a table", "a function", "a coroutine function"],
)
async def test_a_stub_answers_with_what_stands_in_its_table(answer: Any, payload: Any, expected: Any) -> None:
    stub, asker = StubWorker("weather", {"today": answer}), BaseWorker("asker")
    async with running(stub, asker):
        assert await asker.job("weather", name="today", payload=payload) == expected
    assert stub.asked == [("today", payload)]


async def test_an_exception_in_the_table_is_the_requesters_error() -> None:
    stub, asker = StubWorker("weather", {"tomorrow": TimeoutError("no forecast")}), BaseWorker("asker")
    async with running(stub, asker):
        for _ in range(2):
            with pytest.raises(JobError, match="no forecast"):
                await asker.job("weather", name="tomorrow")


async def test_a_job_that_does_not_stand_in_the_table_is_an_error_that_says_what_does() -> None:
    stub, asker = StubWorker("weather", {"today": 1, None: 2}), BaseWorker("asker")
    empty = StubWorker("empty")
    async with running(stub, empty, asker):
        with pytest.raises(JobError, match="stub 'weather' has no answer for job 'tonight'; it has: 'today', None"):
            await asker.job("weather", name="tonight", payload="x")
        with pytest.raises(JobError, match="stub 'empty' has no answer for job None; it has: none"):
            await asker.job("empty")
    assert stub.asked == [("tonight", "x")]
    assert empty.asked == [(None, None)]


async def test_the_table_may_be_changed_at_any_time_and_is_the_stubs_own() -> None:
    table: dict[str | None, Any] = {None: "first"}
    stub, asker = StubWorker("weather", table), BaseWorker("asker")
    async with running(stub, asker):
        table[None] = "of somebody else"
        assert await asker.job("weather") == "first"
        stub.answers[None] = "second"
        assert await asker.job("weather") == "second"
    assert stub.asked == [(None, None), (None, None)]
