"""What a fleet guarantees, one scenario each, on the simulated network."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from actors import BaseWorker, Job, JobError, JobStatus, WorkerUnavailableError, job
from actors.testing import Faults, Simulation, SimulationError
from bus import TransportError, WorkerLostData, WorkerReadyData
from bus.simulation.network import SimulatedTransport
from tests.simulation.fleet import Worker, crash_in, run


class Watcher(BaseWorker):
    """Writes down who comes and goes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.news: list[str] = []
        self.lost = anyio.Event()

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.news.append(f"up {data.worker_name} {data.runner}")

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        self.news.append(f"down {data.worker_name} {data.runner}")
        self.lost.set()


def test_g27_a_killed_runner_is_forgotten_within_its_lease_and_watchers_are_told() -> None:
    async def program(sim: Simulation) -> None:
        watcher = Watcher("watcher")
        await sim.start("a", watcher)
        await watcher.watch_workers("w")
        await sim.start("b", Worker("w"))
        await anyio.sleep(1)
        sim.crash("b")
        died = sim.now
        await watcher.lost.wait()
        assert sim.now - died <= 6 + 2
        assert watcher.news == ["up w b", "down w b"]
        assert "w" not in watcher.registry

    run(program)


def test_g28_a_restarted_runner_is_a_new_incarnation_and_learns_everybody() -> None:
    async def program(sim: Simulation) -> None:
        watcher = Watcher("watcher")
        await sim.start("a", watcher)
        await watcher.watch_workers("old", "new")
        await sim.start("b", Worker("old"))
        await anyio.sleep(1)
        sim.crash("b")
        reborn = await sim.start("b", Worker("new"))
        await anyio.sleep(3)
        assert "old" not in watcher.registry
        assert watcher.news == ["up old b", "down old b", "up new b"]
        assert "watcher" in reborn.registry

    run(program)


def test_g32_each_job_goes_to_exactly_one_replica_and_control_messages_to_all() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        replicas = [Worker("w", limit=2), Worker("w", limit=2)]
        await sim.start("b", replicas[0])
        await sim.start("c", replicas[1])
        await anyio.sleep(3)
        async with anyio.create_task_group() as task_group:
            for _ in range(12):
                task_group.start_soon(_ask, boss, "sleep", 1.0)
        assert sorted(len(replica.runs) for replica in replicas) == [6, 6]
        await boss.deactivate_worker("w")
        await anyio.sleep(1)
        assert [replica.active for replica in replicas] == [False, False]

    run(program)


async def _ask(boss: BaseWorker, name: str, payload: Any) -> None:
    await boss.job("w", name=name, payload=payload)


def test_g33_a_job_whose_performer_dies_is_done_by_another_with_the_next_attempt() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        async with boss.job("w", name="sleep", payload=3.0) as asked:
            await anyio.sleep(1)
            sim.crash("b")
            successor = Worker("w")
            await sim.start("c", successor)
        assert asked.response == {"by": "c"}
        assert asked.results["w"].attempt == 2
        assert successor.runs == [(asked.job_id, 2)]

    run(program)


def test_g34_a_job_longer_than_its_lease_runs_once() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        replicas = [Worker("w"), Worker("w")]
        await sim.start("b", replicas[0])
        await sim.start("c", replicas[1])
        await boss.job("w", name="sleep", payload=100.0)
        assert len(replicas[0].runs) + len(replicas[1].runs) == 1

    run(program)


@pytest.mark.parametrize("fenced_ack", [True, False])
def test_g35_who_has_lost_its_lease_is_stopped_and_its_answer_ignored(fenced_ack: bool) -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        zombie, owner = Worker("w"), Worker("w")
        await sim.start("b", zombie)
        async with boss.job("w", name="sleep", payload=25.0) as asked:
            await anyio.sleep(1)
            await sim.start("c", owner)
            sim.partition("b")
            await anyio.sleep(15)
            assert zombie.cancelled == [asked.job_id]
            sim.heal("b")
        assert asked.response == {"by": "c"}
        assert asked.results["w"].attempt == 2
        assert owner.runs == [(asked.job_id, 2)]
        assert sim.bus("b").network_statistics().claims.refused == 1
        await anyio.sleep(5)
        boss_runner = sim.runner("a")
        assert boss_runner is not None
        assert boss_runner.statistics().late_answers == 2  # signs of life, from while its lease lasted

    run(program, fenced_ack=fenced_ack)


def test_g36_a_job_that_kills_each_performer_is_given_up() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_kill_for_ever, sim, "b")
            with pytest.raises(JobError) as caught:
                await boss.job("w", name="sleep", payload=1000.0)
            task_group.cancel_scope.cancel()
        assert caught.value.status is JobStatus.FAILED
        assert caught.value.error is not None
        assert caught.value.error.type == "DeadLettered"
        assert sim.network.broker.statistics().dead_letters == 1

    run(program)


async def _kill_for_ever(sim: Simulation, label: str) -> None:
    while True:
        await anyio.sleep(3)
        sim.crash(label)
        await sim.start(label, Worker("w"))
        await anyio.sleep(9)


def test_g39_a_request_that_comes_twice_runs_once() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        worker = Worker("w")
        await sim.start("b", worker)
        await anyio.sleep(5)
        for number in range(100):
            assert await boss.job("w", name="echo", payload=number) == number
        assert len(worker.runs) == len(set(worker.runs)) == 100

    run(program, faults=Faults(drop=0.2, duplicate=0.5, timeout=0.5, delay=(0.0, 0.05)))


def test_g39_a_job_whose_acknowledgement_is_lost_is_answered_again_and_not_run_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = BaseWorker("boss"), Worker("w")
        await sim.start("a", boss)
        await sim.start("b", worker)

        send = SimulatedTransport.send

        async def send_without_acknowledging(transport: SimulatedTransport, frames: Any) -> None:
            await send(transport, [replace(frame, settles=None) for frame in frames])

        with monkeypatch.context() as patch:
            patch.setattr(SimulatedTransport, "send", send_without_acknowledging)
            assert await boss.job("w", name="echo", payload=1) == 1
            await anyio.sleep(5)
        await anyio.sleep(30)  # its lease has ended, so the broker gives it out again
        assert len(worker.runs) == 1
        assert sim.bus("b").network_statistics().claims.repeated == 1
        assert sim.network.broker.statistics().claimed == 0

    run(program)


def test_a_request_whose_acceptance_is_lost_is_sent_again_and_stored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        boss, workers = BaseWorker("boss"), [Worker("w"), Worker("w")]
        await sim.start("a", boss)
        await sim.start("b", workers[0])
        await sim.start("c", workers[1])
        await anyio.sleep(3)
        send = SimulatedTransport.send
        lost = 0

        async def send_without_reply(transport: SimulatedTransport, frames: Any) -> None:
            nonlocal lost
            await send(transport, frames)
            if lost < 3 and any(frame.lane == "queue" for frame in frames):
                lost += 1
                raise TransportError("no reply")

        monkeypatch.setattr(SimulatedTransport, "send", send_without_reply)
        await boss.job("w", name="sleep", payload=5.0)
        await anyio.sleep(30)
        assert lost == 3
        assert [len(worker.runs) for worker in workers] in ([1, 0], [0, 1])

    run(program)


def test_g18_a_job_that_is_cancelled_in_its_queue_never_runs() -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = BaseWorker("boss"), Worker("w", limit=1)
        await sim.start("a", boss)
        await sim.start("b", worker)
        await anyio.sleep(3)
        await boss.request_job("w", name="sleep", payload=10.0)
        await anyio.sleep(1)
        waiting = await boss.create_job_group_and_request_job(["w"], name="sleep", payload=1.0)
        await anyio.sleep(1)
        await boss.cancel_job_group(waiting.job_id)
        await anyio.sleep(30)
        assert [run[0] for run in worker.runs] == [run[0] for run in worker.runs if run[0] != waiting.job_id]
        assert len(worker.runs) == 1

    run(program)


def test_g5_the_only_performer_dies_and_the_requester_is_told() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        asked_at = sim.now
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(crash_in, sim, "b", 5.0)
            with pytest.raises(WorkerUnavailableError, match="nobody served 'w'"):
                await boss.job("w", name="sleep", payload=500.0)
        assert sim.now - asked_at <= 5 + 6 + 2 + 30

    run(program)


def test_g14_g24_a_stream_over_a_bad_network_is_whole_and_in_order_with_little_in_flight() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        async with boss.job("w", name="count", payload=1500) as asked:
            seen = [event.data async for event in asked if event.type == event.STREAM_DATA]
        assert seen == list(range(1500))

    run(program, faults=Faults(drop=0.1, duplicate=0.3, reorder=0.3, timeout=0.5, delay=(0.0, 0.1)))


def test_g5_nobody_serves_the_name_and_the_requester_is_told() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("reviewer"))
        await anyio.sleep(3)
        asked_at = sim.now
        with pytest.raises(WorkerUnavailableError, match="did you mean 'reviewer'"):
            await boss.job("reviwer", name="echo")
        assert sim.now - asked_at == pytest.approx(30, abs=0.1)

    run(program)


def test_g5_a_job_waits_in_its_queue_until_somebody_serves_the_name() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        async with boss.job("w", name="echo", payload="late") as asked:
            await anyio.sleep(20)
            await sim.start("b", Worker("w"))
        assert asked.response == "late"

    run(program)


def test_g38_a_deadline_passes_while_the_requester_is_cut_off_and_it_is_told() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        worker = Worker("w")
        await sim.start("b", worker)
        await anyio.sleep(3)
        sim.partition("a")
        asked_at = sim.now
        with pytest.raises(TimeoutError):
            await boss.job("w", name="echo", timeout=4.0)
        assert sim.now - asked_at == pytest.approx(4, abs=0.01)
        sim.heal("a")
        await anyio.sleep(30)
        assert worker.runs == []

    run(program)


@pytest.mark.parametrize(("away", "outcome"), [(4.0, "it is done"), (20.0, "the runner of its requester is gone")])
def test_a_requester_that_was_cut_off_for_longer_than_a_lease_is_told_that_its_job_was_cancelled(
    away: float, outcome: str
) -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        await anyio.sleep(3)
        told: list[str] = []

        async def ask() -> None:
            try:
                await boss.job("w", name="sleep", payload=60.0)
                told.append("it is done")
            except JobError as error:
                told.append(str(error.error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(5)
            sim.partition("a")
            await anyio.sleep(away)
            sim.heal("a")
        assert len(told) == 1
        assert outcome in told[0]

    run(program)


def test_the_jobs_of_a_requester_that_died_are_cancelled() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        worker = Worker("w")
        await sim.start("b", worker)
        await boss.request_job("w", name="sleep", payload=500.0)
        await anyio.sleep(10)
        sim.crash("a")
        await anyio.sleep(6 + 2 + 2)
        assert len(worker.cancelled) == 1
        assert worker.active_jobs == {}

    run(program)


def test_g20_cancelling_a_job_cancels_what_it_asked_for_on_other_runners() -> None:
    class Parent(BaseWorker):
        @job(name="nest")
        async def nest(self, job: Job[Any]) -> Any:
            return await self.job("w", name="sleep", payload=500.0)

    async def program(sim: Simulation) -> None:
        boss, worker = BaseWorker("boss"), Worker("w")
        await sim.start("a", boss)
        await sim.start("b", Parent("parent"))
        await sim.start("c", worker)
        with anyio.move_on_after(5):
            await boss.job("parent", name="nest")
        await anyio.sleep(1)
        assert len(worker.cancelled) == 1

    run(program)


def test_g7_a_runner_that_ends_drains_what_runs_and_hands_back_what_waits() -> None:
    async def program(sim: Simulation) -> None:
        boss, first, second = BaseWorker("boss"), Worker("w", limit=1), Worker("w", limit=10)
        await sim.start("a", boss)
        await sim.start("b", first)
        answers: list[Any] = []

        async def ask(seconds: float) -> None:
            answers.append(await boss.job("w", name="sleep", payload=seconds))

        async with anyio.create_task_group() as task_group:
            for _ in range(4):
                task_group.start_soon(ask, 5.0)
            await anyio.sleep(1)
            await sim.start("c", second)
            await sim.end("b")
        assert [answer["by"] for answer in answers].count("b") == 1
        assert len(first.runs) == 1
        assert len(second.runs) == 3

    run(program)


def test_a_program_that_waits_for_ever_is_found_out() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        await boss.job("w", name="sleep", payload=1e6)

    with pytest.raises(SimulationError, match="JobGroup"):
        run(program, limit=100.0)
