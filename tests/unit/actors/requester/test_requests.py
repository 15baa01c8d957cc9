"""Requests that wait: for room, for a worker, for the network; and those that nobody waits for any more."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Client, Job, JobTimeoutError, WorkerRunner, job
from actors.runner.runner import core_of_runner
from actors.testing import Simulation
from bus import AsyncQueueBus
from bus.local.mailbox import Room
from tests.support.running import running
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


class Gate(BaseWorker):
    """Runs one job at a time, while its gate is open."""

    max_concurrency = 1
    mailbox_size = 1

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = anyio.Event()
        self.seen: list[Any] = []
        self.begun = anyio.Event()

    @job(name="pass")
    async def through(self, job: Job[Any]) -> Any:
        self.seen.append(job.payload)
        self.begun.set()
        await self.gate.wait()
        return job.remaining


async def test_g25_members_whose_room_is_given_back_while_they_are_refused_are_asked_all_the_same() -> None:
    gates = [Gate("p"), Gate("q")]
    boss = BaseWorker("boss")
    async with running(boss, *gates):
        for gate in gates:
            await boss.request_job(gate.name, name="pass")
            await boss.request_job(gate.name, name="pass")
        await anyio.wait_all_tasks_blocked()
        for gate in gates:
            gate.gate.set()
        with anyio.fail_after(60):
            answers = await boss.job_group("p", "q", name="pass")
        assert sorted(answers.responses) == ["p", "q"]


async def test_who_waits_for_room_that_is_there_or_gone_does_not_wait() -> None:
    async with WorkerRunner(handle_sigint=False, handle_sigterm=False) as runner:
        room = Room("w", 1, core_of_runner(runner).tasks)
        await room.wait()
        assert room.take()
        room.close()
        await room.wait()


async def test_g18_a_request_that_was_handed_back_and_then_given_up_never_runs() -> None:
    gate, successor = Gate("p"), Gate("p")
    async with running(gate) as runner, Client(runner) as client, anyio.create_task_group() as task_group:
        async with client.job("p", name="pass", payload="first"):
            await gate.begun.wait()
            task_group.start_soon(runner.remove_worker, "p")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(JobTimeoutError):
                await client.job("p", name="pass", payload="ghost", timeout=0.05)
            assert runner.bus.statistics().parked == 0
            gate.gate.set()
        await gate.wait()
        successor.gate.set()
        await runner.add_workers(successor)
        await anyio.wait_all_tasks_blocked()
    assert "ghost" not in gate.seen + successor.seen


@virtual_time()
async def test_g6_the_time_a_job_waited_for_its_worker_is_gone_from_its_deadline() -> None:
    gate, boss = Gate("late"), BaseWorker("boss")
    gate.gate.set()
    async with running(boss) as runner:
        async with boss.job("late", name="pass", timeout=10) as asked:
            await anyio.sleep(8)
            await runner.add_workers(gate)
        assert asked.response == pytest.approx(2, abs=0.01)


async def test_runners_seeded_alike_make_different_ids() -> None:
    async with AsyncQueueBus() as bus:
        runners = [WorkerRunner(name, bus, handle_sigint=False, handle_sigterm=False, rng=Random(7)) for name in "ab"]
        async with runners[0], runners[1]:
            assert core_of_runner(runners[0]).new_id() != core_of_runner(runners[1]).new_id()


async def test_an_exception_that_cannot_be_shown_ends_nothing_but_its_own_handler() -> None:
    class OddError(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    def fails(*_arguments: object) -> None:
        raise OddError

    watched, boss = BaseWorker("watched"), BaseWorker("boss")
    async with running(boss, watched) as runner:
        await runner.registry.watch("watched", lambda _data: None, fails)
        assert await runner.remove_worker("watched")
        await boss.send_bus_error_message("still here")


def test_g38_a_runner_that_waits_for_its_network_can_be_ended() -> None:
    async def program(sim: Simulation) -> float:
        sim.partition("b")
        began = sim.now
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(sim.start, "b", BaseWorker("w"))
            await anyio.sleep(30)
            runner = sim.runner("b")
            assert runner is not None
            await runner.end()
            await sim.end("b")
            task_group.cancel_scope.cancel()
        sim.heal("b")
        return sim.now - began

    assert Simulation(1).run(program) < 60


def test_g36_jobs_that_wait_in_a_small_mailbox_are_not_taken_for_deadly_ones() -> None:
    class Turn(BaseWorker):
        mailbox_size = 1

        @job(name="turn", sequential=True)
        async def turn(self, job: Job[Any]) -> Any:
            await anyio.sleep(1)
            return job.payload

    async def program(sim: Simulation) -> list[Any]:
        boss = BaseWorker("boss")
        runner = await sim.start("a", boss)
        await sim.start("b", Turn("w"))
        await anyio.sleep(3)
        async with Client(runner) as client:
            return await client.gather("w", range(12), name="turn")

    assert Simulation(1).run(program) == list(range(12))
