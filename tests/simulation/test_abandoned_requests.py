"""Jobs that were given up while nobody had them never run; those that are still waited for do, in the time left."""

from __future__ import annotations

from typing import Any, ClassVar

import anyio
import pytest

from actors import BaseWorker, Job, JobError, JobStatus, WorkerUnavailableError, job
from actors.testing import Faults, Simulation
from bus import BusJobRequestMessage, BusMessage, BusSubscriber
from tests.simulation.fleet import run


class Worker(BaseWorker):
    """Does what it is told, and counts."""

    def __init__(self, name: str, *, limit: int = 16) -> None:
        super().__init__(name)
        self.max_concurrency = limit
        self.runs: list[Any] = []
        self.left: list[float | None] = []

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs.append(job.payload)
        self.left.append(job.remaining)
        return job.payload

    @job(name="sleep")
    async def sleep(self, job: Job[Any]) -> None:
        self.runs.append(job.payload)
        await anyio.sleep(job.payload)


async def _boss(sim: Simulation) -> BaseWorker:
    boss = BaseWorker("boss")
    await sim.start("a", boss)
    await anyio.sleep(3)
    return boss


@pytest.mark.parametrize("faults", [Faults(), Faults(drop=0.2, duplicate=0.3, delay=(0.0, 0.1), timeout=0.5)])
@pytest.mark.parametrize("timeout", [5.0, None], ids=["at its deadline", "at the ready_timeout"])
def test_g5_g6_what_was_given_up_before_anybody_came_does_not_run(timeout: float | None, faults: Faults) -> None:
    async def program(sim: Simulation) -> None:
        boss = await _boss(sim)
        with pytest.raises((TimeoutError, WorkerUnavailableError)):
            await boss.job("w", name="echo", payload=1, timeout=timeout)
        await anyio.sleep(10)
        worker = Worker("w")
        await sim.start("b", worker)
        await anyio.sleep(60)
        assert worker.runs == []
        assert sim.network.broker.statistics().ready == sim.network.broker.statistics().claimed == 0
        assert await boss.job("w", name="echo", payload=2) == 2

    run(program, faults=faults)


@pytest.mark.parametrize("faults", [Faults(), Faults(drop=0.2, duplicate=0.3, delay=(0.0, 0.1), timeout=0.5)])
def test_g46_what_was_given_up_leaves_the_queue_of_a_name_that_nobody_serves(faults: Faults) -> None:
    async def program(sim: Simulation) -> None:
        boss, other = await _boss(sim), BaseWorker("other")
        await sim.start("o", other)
        got: list[Any] = []

        async def wait_for(number: int) -> None:
            got.append(await other.job("w", name="echo", payload=number, job_id="same"))

        async def give_up(number: int) -> None:
            with pytest.raises((TimeoutError, WorkerUnavailableError)):
                await boss.job("w", name="echo", payload=number, timeout=5.0)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(give_up, number)
            with pytest.raises((TimeoutError, WorkerUnavailableError)):
                await boss.job("w", name="echo", payload=0, job_id="same", timeout=4.0)
            tasks.start_soon(wait_for, 1000)
            await anyio.sleep(100)
            assert sim.network.broker.statistics().ready == 1
            assert sim.bus("a").network_statistics().claims.given_up == 0
            worker = Worker("w")
            await sim.start("b", worker)
        assert got == worker.runs == [1000]

    run(program, faults=faults, ready_timeout=200.0)


@pytest.mark.parametrize("how", ["given up before", "given up by that"])
def test_g46_a_runner_that_ends_leaves_nothing_in_the_queue_of_a_name_that_nobody_serves(how: str) -> None:
    async def program(sim: Simulation) -> None:
        boss = await _boss(sim)
        await boss.request_job("w", name="echo", payload=1)
        if how == "given up before":
            with pytest.raises(TimeoutError):
                await boss.job("w", name="echo", payload=1, timeout=0.5)
        else:
            await anyio.sleep(1)
        assert sim.network.broker.statistics().ready > 0
        await sim.end("a")
        assert sim.network.broker.statistics().ready == 0

    run(program, faults=Faults(delay=(0.0, 0.02)))


def test_g38_a_runner_ends_although_the_network_is_not_there_to_take_back_what_was_given_up() -> None:
    async def program(sim: Simulation) -> None:
        boss = await _boss(sim)
        await boss.request_job("w", name="echo", payload=1)
        await anyio.sleep(1)
        sim.partition("a")
        with anyio.fail_after(30):
            await sim.end("a")

    run(program)


def test_g5_what_was_given_up_after_its_performer_had_died_does_not_run_again() -> None:
    async def program(sim: Simulation) -> None:
        boss = await _boss(sim)
        await sim.start("b", Worker("w"))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_crash_in, sim, "b", 5.0)
            with pytest.raises(WorkerUnavailableError):
                await boss.job("w", name="sleep", payload=300.0)
        worker = Worker("w")
        await sim.start("c", worker)
        await anyio.sleep(60)
        assert worker.runs == []

    run(program)


async def _crash_in(sim: Simulation, label: str, seconds: float) -> None:
    await anyio.sleep(seconds)
    sim.crash(label)


def test_g6_of_many_jobs_that_were_given_up_in_their_queue_none_runs() -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = await _boss(sim), Worker("w", limit=1)
        await sim.start("b", worker)
        await boss.job("w", name="echo", payload="known")
        await boss.request_job("w", name="sleep", payload=100.0)
        await anyio.sleep(1)
        for number in range(1500):  # more than the cancellations that are remembered
            await boss.request_job("w", name="echo", payload=number, timeout=20.0)
        await anyio.sleep(200)
        assert worker.runs == ["known", 100.0]
        assert sim.network.broker.statistics().ready == 0

    run(program)


def test_g6_a_job_that_is_still_waited_for_runs_in_the_time_that_is_left() -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = await _boss(sim), Worker("w")
        async with boss.job("w", name="echo", payload="late", timeout=60.0) as asked:
            await anyio.sleep(20)
            await sim.start("b", worker)
        assert asked.response == "late"
        assert worker.left == [pytest.approx(40.0, abs=1.0)]

    run(program)


def test_a_requester_is_asked_once_whether_it_waits_and_then_no_more() -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = await _boss(sim), Worker("w")
        await sim.start("b", worker)
        await anyio.sleep(3)
        for number in range(10):
            assert await boss.job("w", name="echo", payload=number) == number
        asked = [
            event for _, label, event, detail in sim.trace if label == "b" and event == "send" and "inbox:a" in detail
        ]
        assert len(asked) <= 10 + 1 + 2  # the answers, one question, and what the runners tell each other

    run(program)


def test_g44_a_requester_that_cannot_be_asked_is_served_all_the_same() -> None:
    class Bare(BusSubscriber):
        heard: ClassVar[list[BusMessage]] = []

        @property
        def name(self) -> str:
            return "bare"

        async def on_bus_message(self, message: BusMessage) -> None:
            self.heard.append(message)

    async def program(sim: Simulation) -> None:
        await _boss(sim)
        await sim.start("b", Worker("w"))
        bare = Bare()
        await sim.bus("a").subscribe(bare)
        await anyio.sleep(3)
        await sim.bus("a").send(BusJobRequestMessage(source="bare", target="w", job_id="j", job_name="echo", payload=1))
        await anyio.sleep(40)
        assert [message.response for message in bare.heard if hasattr(message, "response")] == [1]

    run(program)


def test_g39_a_job_id_that_is_used_again_gets_the_answer_of_its_job() -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = await _boss(sim), Worker("w")
        await sim.start("b", worker)
        for payload in range(3):
            assert await boss.job("w", name="echo", payload=payload, job_id="nightly") == 0
        assert worker.runs == [0]

    run(program)


def test_a_job_id_that_is_still_in_use_at_the_performer_is_refused() -> None:
    async def program(sim: Simulation) -> None:
        class Stubborn(BaseWorker):
            @job(name="stay")
            async def stay(self, job: Job[Any]) -> None:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(10)

        boss = await _boss(sim)
        await sim.start("b", Stubborn("w"))
        with pytest.raises(TimeoutError):
            await boss.job("w", name="stay", job_id="nightly", timeout=3.0)
        with pytest.raises(JobError, match="'nightly' is in use") as caught:
            await boss.job("w", name="stay", job_id="nightly")
        assert caught.value.status is JobStatus.FAILED

    run(program, cancel_grace=5.0)
