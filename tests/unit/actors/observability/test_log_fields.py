"""Log lines of a handler say of which job, attempt, worker and run they are, and those of nobody else do."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import anyio
import pytest
import structlog
from structlog.testing import LogCapture

from actors import BaseWorker, Client, JobError, job, tracing
from actors.observability.log_fields import _variable
from bus import BusJobRequestMessage
from bus.log import log
from tests.support.running import TasksBegun, running

pytestmark = pytest.mark.anyio

EventDict = dict[str, Any]


class Talking(BaseWorker):
    """Logs with structlog, as any program does."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = anyio.Event()

    @job
    async def talk(self, text: str) -> str:
        structlog.get_logger().info(text)
        return text

    @job
    async def linger(self, text: str) -> None:
        structlog.get_logger().info(f"begin {text}")
        await self.gate.wait()
        structlog.get_logger().info(f"end {text}")

    @job
    def in_a_thread(self, text: str) -> None:
        structlog.get_logger().info(text)

    @job
    async def bind(self, text: str) -> int:
        structlog.contextvars.bind_contextvars(user="ann", job="mine")
        structlog.get_logger().info(text)
        return [variable.name for variable in copy_context()].count("structlog_job")

    @job
    async def forget(self) -> None:
        structlog.contextvars.clear_contextvars()
        structlog.get_logger().info("forgotten")

    @job
    async def pass_on(self, worker: str) -> None:
        structlog.get_logger().info("before")
        await self.job(worker, name="talk", payload="inner")
        structlog.get_logger().info("after")

    @job
    async def fail(self) -> None:
        raise ValueError("no")

    @job
    async def own(self) -> None:
        log().warning("ours", worker="said")

    async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any] | None:
        structlog.get_logger().info("by the hook")
        return {}


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """What is logged with structlog, with the processors that its default configuration has too."""
    capture: Any = LogCapture()
    former = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    try:
        yield capture.entries
    finally:
        structlog.configure(**former)


def test_the_processor_that_shows_the_fields_is_in_the_default_configuration_of_structlog() -> None:
    assert structlog.contextvars.merge_contextvars in structlog.get_config()["processors"]


async def test_a_job_does_not_wait_for_a_thread_that_imports_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    _variable.cache_clear()
    monkeypatch.setitem(sys.modules, "structlog", types.ModuleType("structlog"))  # so far it is, and nothing in it yet
    monkeypatch.delitem(sys.modules, "structlog.contextvars")
    async with running(Talking("ann")) as runner, Client(runner) as client:
        assert await client.request("ann", "hello", name="talk") == "hello"


async def test_a_line_of_a_handler_says_of_which_job_it_is(lines: list[EventDict]) -> None:
    async with running(Talking("ann")) as runner, Client(runner) as client:
        with tracing(run="run-1"):
            await client.request("ann", "hello", name="talk", job_id="j1")
        await client.request("ann", "thread", name="in_a_thread", job_id="j2")
        await client.request("ann", job_id="j3")
        structlog.get_logger().info("outside")
    level = {"log_level": "info"}
    assert lines == [
        {"event": "hello", "worker": "ann", "job": "j1", "attempt": 1, "run": "run-1", **level},
        {"event": "thread", "worker": "ann", "job": "j2", "attempt": 1, **level},
        {"event": "by the hook", "worker": "ann", "job": "j3", "attempt": 1, **level},
        {"event": "outside", **level},
    ]


async def test_jobs_at_the_same_time_do_not_mix_their_fields(lines: list[EventDict]) -> None:
    ann, bob = Talking("ann"), Talking("bob")
    async with running(ann, bob) as runner, Client(runner) as client, anyio.create_task_group() as tasks:

        async def ask(worker: str, number: int) -> None:
            with tracing(run=f"run-{number}"):
                await client.request(worker, str(number), name="linger", job_id=f"j{number}")

        for number in range(20):
            tasks.start_soon(ask, ("ann", "bob")[number % 2], number)
        await anyio.wait_all_tasks_blocked()
        ann.gate.set()
        bob.gate.set()
    assert len(lines) == 40
    for line in lines:
        number = int(line["event"].split()[1])
        assert (line["job"], line["run"]) == (f"j{number}", f"run-{number}")
        assert line["worker"] == ("ann", "bob")[number % 2]


async def test_a_job_inside_a_job_has_fields_of_its_own_and_gives_them_back(lines: list[EventDict]) -> None:
    async with running(Talking("ann"), Talking("bob")) as runner, Client(runner) as client:
        with tracing(run="run-1"):
            await client.request("ann", "bob", name="pass_on", job_id="outer")
    assert [(line["event"], line["worker"], line["run"]) for line in lines] == [
        ("before", "ann", "run-1"),
        ("inner", "bob", "run-1"),
        ("after", "ann", "run-1"),
    ]
    assert lines[0]["job"] == lines[2]["job"] == "outer" != lines[1]["job"]


async def test_what_a_handler_binds_or_clears_is_its_own_affair(lines: list[EventDict]) -> None:
    async with running(Talking("ann")) as runner, Client(runner) as client:
        assert await client.request("ann", "bound", name="bind", job_id="j1") == 1  # of two either might be shown
        await client.request("ann", name="forget", job_id="j2")
        await client.request("ann", "hello", name="talk", job_id="j3")
    level = {"log_level": "info"}
    assert lines == [
        {"event": "bound", "user": "ann", "worker": "ann", "job": "mine", "attempt": 1, **level},
        {"event": "forgotten", **level},
        {"event": "hello", "worker": "ann", "job": "j3", "attempt": 1, **level},
    ]


async def test_tasks_that_ran_jobs_which_were_logged_about_are_used_again(lines: list[EventDict]) -> None:
    async with running(Talking("ann")) as runner, Client(runner) as client:
        await client.request("ann", "hello", name="talk")
        begun = TasksBegun(runner)
        for _ in range(20):
            await client.request("ann", "hello", name="talk")
        assert begun.count == 0
    assert len(lines) == 21


async def test_our_own_lines_carry_them_too_and_what_a_line_says_itself_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(Talking("ann")) as runner, Client(runner) as client:
        with caplog.at_level(logging.DEBUG, "actorbus"), tracing(run="run-1"):
            await client.request("ann", name="own", job_id="j1")
            with pytest.raises(JobError):
                await client.request("ann", name="fail", job_id="j2")
    shown = {record.getMessage().split(" ")[0]: record.getMessage() for record in caplog.records}
    for field in ("worker='said'", "job='j1'", "attempt=1", "run='run-1'"):
        assert field in shown["ours"]
    for field in ("worker='ann'", "job='j2'", "attempt=1", "run='run-1'"):
        assert field in shown["handler"]


@pytest.mark.parametrize("field", ["message", "name", "args", "module", "asctime", "msg", "worker"])
def test_a_field_may_have_any_name(field: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "actorbus"):
        log().debug("something happened", **{field: "value"})
    (record,) = caplog.records
    assert record.getMessage() == f"something happened {field}='value'"
    assert "value" in vars(record).values()
