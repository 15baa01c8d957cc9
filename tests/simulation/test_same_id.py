"""A requester asks anew under an id it has used before: what is late from the first time does not touch the second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import anyio
import pytest

from actors import BaseWorker, JobError, JobTimeoutError
from actors.jobs.remembered import REMEMBERED_SECONDS
from actors.testing import Faults, Simulation
from bus import BusJobCancelMessage, BusJobRequestMessage, Outgoing
from bus.delivery.claims import Claims
from bus.simulation.network import SimulatedTransport
from bus.wire.codec import decode_header
from tests.simulation.fleet import error_of, lose, nothing_left, pair
from tests.simulation.test_at_most_once import Worker, run

both_deliveries = pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])


@both_deliveries
def test_after_a_timeout_a_job_may_be_asked_for_anew_under_its_id(
    delivery: Literal["at_least_once", "at_most_once"],
) -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker(), Worker())
        for number in range(3):
            with pytest.raises(JobTimeoutError):
                await boss.job("w", name="sleep", payload=100.0, job_id="nightly", timeout=3)
            await anyio.sleep(2)
            answer = await boss.job("w", name="echo", payload=number, job_id="nightly")
            assert answer[0] == number
            await anyio.sleep(REMEMBERED_SECONDS)
        nothing_left(sim)

    run(program, delivery=delivery)


@both_deliveries
def test_g12_asked_for_anew_at_once_a_job_is_not_ended_by_the_late_answer_to_the_first(
    delivery: Literal["at_least_once", "at_most_once"],
) -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        sim.network.faults = Faults(delay=(0.2, 0.2))
        refused: list[str] = []
        for number in range(10):
            with pytest.raises(JobTimeoutError):
                await boss.job("w", name="sleep", payload=100.0, job_id=f"nightly-{number}", timeout=3)
            try:
                assert await boss.job("w", name="echo", payload=number, job_id=f"nightly-{number}") == [number, "b"]
            except JobError as error:
                refused.append(error.error.type if error.error is not None else "")
            await anyio.sleep(2)
        assert {*refused} <= {"JobStateError"}  # where the first has not stopped yet
        assert len(worker.runs) == 20 - len(refused) > 10
        nothing_left(sim)

    run(program, delivery=delivery)


@both_deliveries
def test_after_a_timeout_at_home_a_job_may_be_asked_for_anew_of_others(
    delivery: Literal["at_least_once", "at_most_once"],
) -> None:
    async def program(sim: Simulation) -> None:
        boss, here, there = BaseWorker("boss"), Worker(limit=1), Worker()
        await sim.start("a", boss, here)
        await sim.start("b", there)
        await anyio.sleep(3)
        with pytest.raises(JobTimeoutError):
            await boss.job("w", name="sleep", payload=100.0, job_id="nightly", timeout=3)
        await anyio.sleep(1)
        async with boss.job("w", name="sleep", payload=9.0):
            await anyio.sleep(1)
            assert here.runs == [100.0, 9.0]
            assert await boss.job("w", name="echo", payload=1, job_id="nightly") == [1, "b"]
        nothing_left(sim)

    run(program, delivery=delivery)


def test_a_cancellation_that_is_late_does_not_stop_what_was_asked_for_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker())
        send = SimulatedTransport.send

        async def slow(transport: SimulatedTransport, frames: Sequence[Outgoing]) -> None:
            if any(decode_header(frame.body)[0].type == BusJobCancelMessage.__name__ for frame in frames):
                await anyio.sleep(5)
            await send(transport, frames)

        monkeypatch.setattr(SimulatedTransport, "send", slow)
        lost = lose(monkeypatch, "a", lambda kind, _: kind == BusJobRequestMessage.__name__, most=1)
        with pytest.raises(JobTimeoutError):
            await boss.job("w", name="sleep", payload=9.0, job_id="nightly", timeout=2)
        assert await boss.job("w", name="sleep", payload=9.0, job_id="nightly") == "b"
        assert len(lost) == 1
        nothing_left(sim)

    run(program)


def test_the_answer_to_an_earlier_job_is_none_to_a_later_one_that_got_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        assert await boss.job("w", name="echo", payload=1, job_id="nightly") == [1, "b"]
        await anyio.sleep(REMEMBERED_SECONDS)
        lose(monkeypatch, "a", lambda kind, _: kind == BusJobRequestMessage.__name__, most=1)
        with pytest.raises(JobError) as failure:
            await boss.job("w", name="echo", payload=2, job_id="nightly")
        assert error_of(failure) == "JobLost"
        assert worker.runs == [1]
        assert await boss.job("w", name="echo", payload=3, job_id="nightly") == [3, "b"]
        nothing_left(sim)

    run(program)


def test_g18_a_request_that_was_sent_before_its_cancellation_is_forbidden_and_a_later_one_is_not() -> None:
    request = BusJobRequestMessage(source="boss", target="w", job_id="nightly", origin="a#1")
    key = ("w", "a#1", "boss", "nightly")
    claims: Any = Claims()
    claims.forbid(key, "too slow", "1-7")
    assert claims.forbidden(request, "1-6") == "too slow"
    claims.forbid(key, "too slow", "1-7")
    assert claims.forbidden(request, "1-8") is None
    assert claims.statistics(given_up=0, introductions=0).forbidden == 0


@both_deliveries
def test_g39_a_job_with_an_id_of_its_own_is_done_once_whoever_of_the_replicas_is_asked(
    delivery: Literal["at_least_once", "at_most_once"],
) -> None:
    async def program(sim: Simulation) -> None:
        first, second = Worker(), Worker()
        boss = await pair(sim, first, second)
        sim.network.faults = Faults(delay=(0.0, 0.3), duplicate=0.3)
        for number in range(20):
            answers: list[Any] = []

            async def ask(number: int = number, answers: list[Any] = answers) -> None:
                answers.append(await boss.job("w", name="echo", payload=number, job_id=f"order-{number}"))

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(ask)
            await ask()
            assert answers == [answers[0]] * 4
            assert answers[0][0] == number
        assert sorted(first.runs + second.runs) == list(range(20))
        nothing_left(sim)

    run(program, delivery=delivery)
