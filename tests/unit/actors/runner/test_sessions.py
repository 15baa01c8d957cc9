"""`end()` and `cancel()` of a worker reach the runners of its session, and no others."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import pytest

from actors import BaseWorker, JobStatus, WorkerRunner
from bus import AsyncQueueBus, BusCancelMessage, BusEndMessage, InvalidNameError
from tests.support.workers import Asker, Performer, quiet

pytestmark = pytest.mark.anyio

How = Literal["end", "cancel"]
RUNNERS = {"a1": "a", "a2": "a", "b": "b", "alone": None, "alone too": None}


@asynccontextmanager
async def fleet() -> AsyncGenerator[dict[str, WorkerRunner]]:
    """Five runners of two sessions, and of none, on one bus; each has a performer and an asker named after it."""
    async with AsyncQueueBus() as bus, anyio.create_task_group() as tasks:
        runners: dict[str, WorkerRunner] = {}
        for number, (label, session) in enumerate(RUNNERS.items()):
            runner = runners[label] = quiet(f"r{number}", bus=bus, session=session, drain_timeout=60.0)
            await runner.add_workers(Performer(f"performer{number}"), Asker(f"asker{number}"))
            tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()
        try:
            yield runners
        finally:
            for runner in runners.values():
                await runner.cancel()


def workers_of(runner: WorkerRunner) -> tuple[Performer, Asker]:
    number = runner.name[1:]
    performer, asker = runner.get_worker(f"performer{number}"), runner.get_worker(f"asker{number}")
    assert isinstance(performer, Performer)
    assert isinstance(asker, Asker)
    return performer, asker


@pytest.mark.parametrize("how", ["end", "cancel"])
@pytest.mark.parametrize(
    ("who", "reached"),
    [("a1", {"a1", "a2"}), ("a2", {"a1", "a2"}), ("b", {"b"}), ("alone", {"alone"}), ("alone too", {"alone too"})],
)
async def test_the_runners_of_the_same_session_end_and_the_others_go_on(how: How, who: str, reached: set[str]) -> None:
    async with fleet() as runners:
        _, asker = workers_of(runners[who])
        await getattr(asker, how)()
        await anyio.wait_all_tasks_blocked()
        assert {label for label, runner in runners.items() if not runner.running} == reached
        rest = [runner for label, runner in runners.items() if label not in reached]
        for runner in rest:
            performer, asker = workers_of(runner)
            assert await asker.job(performer.name, name="echo", payload=1) == 1


async def test_end_drains_every_runner_of_the_session_and_cancel_does_not() -> None:
    async with fleet() as runners, anyio.create_task_group() as tasks:
        performer, asker = workers_of(runners["a2"])
        tasks.start_soon(asker.ask, performer.name)
        await anyio.wait_all_tasks_blocked()
        await workers_of(runners["a1"])[1].end()
        await anyio.wait_all_tasks_blocked()
        assert {label: runner.running for label, runner in runners.items()} == {
            "a1": False,
            "a2": True,
            "b": True,
            "alone": True,
            "alone too": True,
        }
        performer.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert asker.outcomes == {"j": f"done by {performer.name}"}
        assert not runners["a2"].running

        performer, asker = workers_of(runners["b"])
        tasks.start_soon(asker.ask, performer.name)
        await anyio.wait_all_tasks_blocked()
        await asker.cancel()
        await anyio.wait_all_tasks_blocked()
        assert asker.outcomes["j"].status is JobStatus.CANCELLED


async def test_a_cancel_hurries_a_session_that_is_ending() -> None:
    async with fleet() as runners, anyio.create_task_group() as tasks:
        performer, asker = workers_of(runners["a2"])
        tasks.start_soon(asker.ask, performer.name)
        await anyio.wait_all_tasks_blocked()
        await asker.end()
        await anyio.wait_all_tasks_blocked()
        assert [runners[label].running for label in ("a1", "a2")] == [False, True]
        await asker.cancel()
        await anyio.wait_all_tasks_blocked()
        assert [runners[label].running for label in ("a1", "a2")] == [False, False]
        assert asker.outcomes["j"].status is JobStatus.CANCELLED


@pytest.mark.parametrize("kind", [BusEndMessage, BusCancelMessage])
@pytest.mark.parametrize(
    ("session", "reached"), [(None, {"a1"}), ("a", {"a1", "a2"}), ("b", {"b"}), ("nobody's", set())]
)
async def test_a_message_sent_by_hand_reaches_the_session_it_names_or_the_senders_runner(
    kind: type[Any], session: str | None, reached: set[str]
) -> None:
    async with fleet() as runners:
        _, asker = workers_of(runners["a1"])
        await asker.send_bus_message(kind(source=asker.name, session=session))
        await anyio.wait_all_tasks_blocked()
        assert {label for label, runner in runners.items() if not runner.running} == reached


@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_a_runner_that_is_told_itself_ends_alone(how: How) -> None:
    async with fleet() as runners:
        await getattr(runners["a1"], how)()
        await anyio.wait_all_tasks_blocked()
        assert [label for label, runner in runners.items() if not runner.running] == ["a1"]


async def test_the_reason_reaches_whoever_waits() -> None:
    async with fleet() as runners, anyio.create_task_group() as tasks:
        performer, asker = workers_of(runners["a1"])
        tasks.start_soon(asker.ask, performer.name)
        await anyio.wait_all_tasks_blocked()
        await asker.cancel(reason="the tests are over")
        await anyio.wait_all_tasks_blocked()
        assert "the tests are over" in str(asker.outcomes["j"])


def test_the_name_of_a_session_follows_the_rule_for_names() -> None:
    with pytest.raises(InvalidNameError, match=r"session 'no.tgood' is not a valid name"):
        quiet(session="no\tgood")


async def test_a_worker_may_end_the_session_from_its_first_hook() -> None:
    class Brief(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            await self.end()

    runner = quiet()
    await runner.add_workers(Brief("brief"), BaseWorker("other"))
    await runner.run()
    assert not runner.running
