"""A job that was made and never asked for warns when it is collected, with the line that made it: G58."""

from __future__ import annotations

import gc
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from actors import BaseWorker, Client, JobStateError, job
from actors.requester.contexts import JobContext, JobGroupContext
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Agent(BaseWorker):
    @job
    async def ask(self, number: int) -> int:
        return number


def line_of(function: Callable[..., Any], mark: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(index for index, line in enumerate(lines) if mark in line)


def make_one(asker: Any) -> Any:
    made = asker.job("agent", name="ask", payload=1)  # the line of one
    return made  # noqa: RET504 - it is collected elsewhere


def make_some(asker: Any) -> Any:
    return asker.job_group(
        "agent",  # the line of some
        name="ask",
        payload=1,
    )


@pytest.mark.parametrize("who", ["worker", "client"])
@pytest.mark.parametrize(("make", "first"), [(make_one, "the line of one"), (make_some, "return asker.job_group")])
async def test_g58_a_forgotten_job_names_the_line_that_made_it(
    who: str, make: Callable[[Any], Any], first: str
) -> None:
    worker = BaseWorker("asker")
    async with running(Agent("agent"), worker) as runner, Client(runner) as client:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            made = make(worker if who == "worker" else client)
            gc.collect()
            assert seen == []
            del made
            gc.collect()
    (warning,) = seen
    assert warning.category is RuntimeWarning
    assert "'agent'" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, line_of(make, first))


def test_g58_a_forgotten_job_of_a_script_names_its_line_too() -> None:
    with Client.sync("memory://") as client, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        make_one(client)
        gc.collect()
    (warning,) = seen
    assert (warning.filename, warning.lineno) == (__file__, line_of(make_one, "the line of one"))


async def test_g58_what_is_asked_for_does_not_warn_however_it_ends() -> None:
    worker = BaseWorker("asker")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        async with running(Agent("agent"), worker) as runner, Client(runner) as client:
            assert await worker.job("agent", name="ask", payload=1) == 1
            async with worker.job("agent", name="ask", payload=2):
                pass
            await client.job_group("agent", name="ask", payload=3)
            assert await client.gather("agent", [1, 2], name="ask") == [1, 2]
            with pytest.raises(TypeError):
                await worker.job("agent", name="ask", payload=object())
            twice = worker.job("agent", name="ask", payload=1)
            await twice
            with pytest.raises(JobStateError):
                await twice
            del twice
        with pytest.raises(Exception, match="asker"):
            await worker.job("agent")
        gc.collect()
    assert [str(each.message) for each in seen] == []


async def test_g58_jobs_look_like_what_they_are_before_and_after() -> None:
    worker = BaseWorker("asker")
    async with running(Agent("agent"), worker):
        one, some = worker.job("agent", name="ask", payload=1), worker.job_group("agent", name="ask", payload=1)
        assert isinstance(one, JobContext)
        assert isinstance(some, JobGroupContext)
        await one
        await some
        assert type(one) is JobContext
        assert type(some) is JobGroupContext
