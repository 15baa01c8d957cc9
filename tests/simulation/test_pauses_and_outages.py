"""A fleet whose processes stand still, whose links go dead and whose broker goes away: one scenario each."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, Job, JobError, JobStatus, job
from actors.testing import Faults, Simulation
from bus import TransportError
from bus.simulation.network import SimulatedTransport
from tests.simulation import fleet
from tests.simulation.fleet import run


class Worker(fleet.Worker):
    """It also speaks while it works."""

    @job(name="report")
    async def report(self, job: Job[Any]) -> Any:
        """Says something once a second."""
        for number in range(job.payload):
            await job.update([self.worker_runner.name, number])
            await anyio.sleep(1)
        return {"by": self.worker_runner.name}


async def _fleet(sim: Simulation, *labels: str) -> tuple[BaseWorker, dict[str, Worker]]:
    boss = BaseWorker("boss")
    await sim.start("a", boss)
    workers = {}
    for label in labels:
        workers[label] = Worker("w")
        await sim.start(label, workers[label])
    await anyio.sleep(8)
    return boss, workers


async def _count_up(seconds: list[float]) -> None:
    while True:
        await anyio.sleep(1)
        seconds.append(anyio.current_time())


def test_a_paused_process_takes_no_step_and_its_timers_fire_late() -> None:
    class Clock(BaseWorker):
        def __init__(self) -> None:
            super().__init__("clock")
            self.ticks: list[float] = []

        async def start(self) -> None:
            await super().start()
            self.create_task(_count_up(self.ticks), "count")

    async def program(sim: Simulation) -> None:
        clock = Clock()
        await sim.start("a", clock)
        await anyio.sleep(3.5)
        sim.pause("a")
        await anyio.sleep(100)
        assert len(clock.ticks) == 3
        sim.resume("a")
        await anyio.sleep(3.2)
        assert len(clock.ticks) == 7
        assert clock.ticks[3] == pytest.approx(103.5)

    run(program)


@pytest.mark.parametrize("pause", [14.0, 60.0], ids=["while the new owner runs", "after it has answered"])
@pytest.mark.parametrize("fenced_ack", [True, False])
def test_g35_what_a_process_answers_that_was_paused_past_its_lease_does_not_count(
    pause: float, fenced_ack: bool
) -> None:
    async def program(sim: Simulation) -> None:
        boss, workers = await _fleet(sim)
        workers["b"] = Worker("w")
        workers["b"].max_concurrency = 1  # else it is given the job again while it is paused
        await sim.start("b", workers["b"])
        async with boss.job("w", name="sleep", payload=10.0) as asked:
            await anyio.sleep(1)
            sim.pause("b")
            workers["c"] = Worker("w")
            await sim.start("c", workers["c"])
            await anyio.sleep(pause)
            sim.resume("b")
            await anyio.sleep(2)
        assert asked.response == {"by": "c"}
        assert asked.results["w"].attempt == 2
        assert workers["c"].runs == [(asked.job_id, 2)]
        assert workers["b"].active_jobs == {}
        assert sim.bus("b").network_statistics().claims.refused >= 1
        await anyio.sleep(20)
        assert sim.network.broker.statistics().claimed == 0
        assert len(workers["b"].runs) == 1

    run(program, fenced_ack=fenced_ack)


@pytest.mark.parametrize("cut", ["partition", "black_hole"])
def test_g35_what_an_older_attempt_had_sent_does_not_mix_with_the_newer_one(cut: str) -> None:
    async def program(sim: Simulation) -> None:
        boss, _ = await _fleet(sim, "b")
        async with boss.job("w", name="report", payload=20) as asked:
            await anyio.sleep(2.5)
            await sim.start("c", Worker("w"))
            getattr(sim, cut)("b")
            await anyio.sleep(15)
            sim.heal("b")
            seen = [(event.attempt, event.data) async for event in asked]
        first = [event for event in seen if event[0] == 1]
        assert first == [(1, ["b", number]) for number in range(len(first))]
        assert seen[len(first) :] == [(2, ["c", number]) for number in range(20)]
        assert asked.response == {"by": "c"}

    run(program)


def test_a_request_that_was_stored_twice_is_heard_from_one_performer_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(sim: Simulation) -> None:
        boss, workers = await _fleet(sim, "b", "c")
        send = SimulatedTransport.send
        lost: list[Any] = []

        async def send_without_reply(transport: SimulatedTransport, frames: Any) -> None:
            await send(transport, frames)
            if not lost and any(frame.lane == "queue" for frame in frames):
                lost.append(frames)
                await anyio.sleep(2)
                sim.network.broker._remembered.clear()  # as a broker does that was started again
                raise TransportError("no reply")

        monkeypatch.setattr(SimulatedTransport, "send", send_without_reply)
        async with boss.job("w", name="report", payload=30) as asked:
            seen = []
            async for event in asked:
                seen.append((event.attempt, event.data))
                if len(seen) == 5:  # for less than a lease the other is ahead
                    sim.partition(event.data[0])
                    boss.create_task(_heal_in(sim, event.data[0], 4.0), "heal")
        owner = asked.response["by"]
        first = [event for event in seen if event[1][0] != owner]
        assert seen == [*first, *((seen[-1][0], [owner, number]) for number in range(30))]
        assert [data[1] for _, data in first] == list(range(len(first)))
        await anyio.sleep(30)
        assert [worker.active_jobs for worker in workers.values()] == [{}, {}]

    run(program)


async def _heal_in(sim: Simulation, label: str, seconds: float) -> None:
    await anyio.sleep(seconds)
    sim.heal(label)


def test_a_slow_network_makes_no_false_deaths_and_runs_nothing_twice() -> None:
    async def program(sim: Simulation) -> None:
        boss, workers = await _fleet(sim, "b", "c")
        await anyio.sleep(20)
        lives = {each.address for each in boss.registry.replicas("w")}
        async with anyio.create_task_group() as task_group:
            for number in range(40):
                task_group.start_soon(_ask, boss, number)
        await anyio.sleep(60)
        assert sum(len(worker.runs) for worker in workers.values()) == 40
        assert len(lives) == 2
        assert {each.address for each in boss.registry.replicas("w")} == lives
        assert sim.network.broker.statistics().redelivered == 0

    run(program, faults=Faults(delay=(2.0, 2.0)), ack_wait=8.0)


def test_a_lease_lasts_until_the_network_knows_that_the_job_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        boss, workers = await _fleet(sim, "b", "c")
        send = SimulatedTransport.send

        async def slowly(transport: SimulatedTransport, frames: Any) -> None:
            if any(frame.settles for frame in frames):
                await anyio.sleep(25)
            await send(transport, frames)

        monkeypatch.setattr(SimulatedTransport, "send", slowly)
        await boss.job("w", name="echo", payload=1)
        await anyio.sleep(30)
        assert sum(len(worker.runs) for worker in workers.values()) == 1
        assert sim.network.broker.statistics().redelivered == 0

    run(program)


async def _ask(boss: BaseWorker, payload: Any) -> None:
    assert await boss.job("w", name="echo", payload=payload) == payload


def test_g37_a_broker_that_comes_back_with_its_data_has_lost_no_job() -> None:
    async def program(sim: Simulation) -> None:
        boss, workers = await _fleet(sim, "b")
        async with anyio.create_task_group() as task_group:
            for number in range(20):
                task_group.start_soon(_ask, boss, number)
            await anyio.lowlevel.checkpoint()
            sim.network.stop_broker()
            await anyio.sleep(5)
            sim.network.start_broker()
        assert len({job_id for job_id, _ in workers["b"].runs}) == 20

    run(program)


def test_g37_a_broker_that_comes_back_empty_leaves_nobody_waiting_and_works_again() -> None:
    async def program(sim: Simulation) -> None:
        boss, workers = await _fleet(sim, "b")
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_restart_broker, sim)
            with pytest.raises(JobError, match="the network lost what it had stored") as caught:
                await boss.job("w", name="sleep", payload=1000.0)
        assert caught.value.status is JobStatus.FAILED
        assert caught.value.error is not None
        assert caught.value.error.retryable
        with anyio.fail_after(6):
            assert await boss.job("w", name="echo", payload=1) == 1
        await anyio.sleep(10)
        assert workers["b"].active_jobs == {}

    run(program)


async def _restart_broker(sim: Simulation) -> None:
    await anyio.sleep(5)
    sim.network.stop_broker()
    await anyio.sleep(3)
    sim.network.start_broker(empty=True)


def test_a_link_on_which_nothing_flows_for_longer_than_a_lease_loses_no_job() -> None:
    async def program(sim: Simulation) -> None:
        boss, _ = await _fleet(sim, "b")
        sim.black_hole("b")
        async with boss.job("w", name="echo", payload=5) as asked:
            await anyio.sleep(20)
            sim.heal("b")
        assert asked.response == 5

    run(program)


def test_g27_a_fleet_that_is_killed_and_started_again_works() -> None:
    async def program(sim: Simulation) -> None:
        boss, _ = await _fleet(sim, "b", "c")
        await boss.request_job("w", name="sleep", payload=100.0)
        for label in sim.alive():
            sim.crash(label)
        boss, workers = await _fleet(sim, "b", "c")
        assert await boss.job("w", name="echo", payload=5) == 5
        await anyio.sleep(20)
        assert [worker.active_jobs for worker in workers.values()] == [{}, {}]

    run(program)
