"""Jobs asked for at most once: they run once or not at all, and whoever waits is told, whatever gets lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Job, JobError, JobGroupError, JobStatus, WorkerRunner, job
from actors.testing import Simulation
from bus import BusJobRequestMessage, NetworkBus, Outgoing
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.simulation.network import SimulatedTransport
from bus.wire.codec import decode_header, encode
from tests.simulation import fleet
from tests.simulation.fleet import error_of, lose, nothing_left, pair
from tests.support.running import session_of

HEARTBEAT, LEASE = 2.0, 6.0
SOON = LEASE + 3 * HEARTBEAT
"""Seconds after which whoever waits for a lost job has been told: its lease, and three beats."""


class Worker(BaseWorker):
    """Does what it is told, and writes down what it began and what was cancelled."""

    def __init__(self, name: str = "w", *, limit: int = 16, room: int = 1000, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.max_concurrency = limit
        self.mailbox_size = room
        self.runs: list[Any] = []
        self.stopped: list[Any] = []

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs.append(job.payload)
        return [job.payload, self.worker_runner.name]

    @job(name="sleep")
    async def sleep(self, job: Job[Any]) -> Any:
        self.runs.append(job.payload)
        try:
            await anyio.sleep(job.payload)
        except BaseException:
            self.stopped.append(job.payload)
            raise
        return self.worker_runner.name

    @job(name="count")
    async def count(self, job: Job[Any]) -> AsyncIterator[int]:
        self.runs.append(job.payload)
        for number in range(job.payload):
            yield number


run = partial(fleet.run, delivery="at_most_once")


def test_g44_a_job_goes_to_one_replica_and_the_broker_stores_nothing_of_it() -> None:
    async def program(sim: Simulation) -> None:
        workers = [Worker(), Worker()]
        boss = await pair(sim, *workers)
        before = len(sim.trace)
        answers = [await boss.job("w", name="echo", payload=number) for number in range(10)]
        assert [answer[0] for answer in answers] == list(range(10))
        assert [len(worker.runs) for worker in workers] == [5, 5]
        sent = " ".join(what for _, _, event, what in sim.trace[before:] if event == "send")
        assert "queue:" not in sent
        assert "inbox:" not in sent
        nothing_left(sim)

    run(program)


def test_a_job_that_says_at_least_once_goes_by_the_queue_all_the_same() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker())
        assert await boss.job("w", name="echo", payload=1, delivery="at_least_once") == [1, "b"]
        assert any("queue:w" in what for _, _, event, what in sim.trace if event == "send")

    run(program)


def test_a_delivery_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="delivery must be 'at_least_once' or 'at_most_once', not 'exactly_once'"):
        NetworkBus(MemoryTransport(MemoryBroker()), delivery="exactly_once")  # type: ignore[arg-type]


def test_g43_a_job_for_a_worker_of_this_process_does_not_travel() -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = BaseWorker("boss"), Worker()
        await sim.start("home", boss, worker)
        await anyio.sleep(3)
        before = len(sim.trace)
        assert await boss.job("w", name="echo", payload=1) == [1, "home"]
        assert not [event for _, _, event, _ in sim.trace[before:] if event in {"tell", "send"}]

    run(program)


def test_a_job_whose_performer_is_killed_is_lost_and_nobody_else_runs_it() -> None:
    async def program(sim: Simulation) -> None:
        workers = [Worker(), Worker()]
        boss = await pair(sim, *workers)

        async def ask() -> None:
            async with boss.job("w", name="sleep", payload=500.0):
                await anyio.sleep(1)
                sim.crash("b" if workers[0].runs else "c")

        asked = sim.now
        with pytest.raises(JobError) as failure:
            await ask()
        assert failure.value.status is JobStatus.FAILED
        assert error_of(failure) == "JobLost"
        assert "may or may not have run" in str(failure.value)
        assert sim.now - asked <= 1 + SOON
        await anyio.sleep(60)
        assert sum(len(worker.runs) for worker in workers) == 1
        nothing_left(sim)

    run(program)


def test_a_request_that_is_lost_is_told_and_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        lost = lose(monkeypatch, "a", lambda kind, _: kind == "BusJobRequestMessage", 1)
        asked = sim.now
        with pytest.raises(JobError) as failure:
            await boss.job("w", name="echo", payload=1)
        assert (lost, error_of(failure)) == (["BusJobRequestMessage"], "JobLost")
        assert sim.now - asked <= SOON
        assert worker.runs == []
        nothing_left(sim)

    run(program)


def test_an_answer_that_is_lost_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        lost = lose(monkeypatch, "b", lambda kind, _: kind == "BusJobResponseMessage", 1)
        assert await boss.job("w", name="echo", payload=1) == [1, "b"]
        assert lost
        assert worker.runs == [1]
        nothing_left(sim)

    run(program)


def test_a_performer_that_has_forgotten_a_job_is_not_asked_to_do_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        workers = [Worker(), Worker()]
        boss = await pair(sim, *workers)
        monkeypatch.setattr("bus.delivery.claims.MAX_REMEMBERED", 0)
        lose(monkeypatch, "b", lambda kind, _: kind == "BusJobResponseMessage", 1)
        lose(monkeypatch, "c", lambda kind, _: kind == "BusJobResponseMessage", 1)
        with pytest.raises(JobError) as failure:
            await boss.job("w", name="echo", payload=1)
        assert error_of(failure) == "JobLost"
        assert [*workers[0].runs, *workers[1].runs] == [1]

    run(program)


def test_a_job_of_which_one_event_is_lost_is_lost_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        lose(monkeypatch, "b", lambda kind, number: kind == "BusJobStreamDataMessage" and number == 100)
        seen: list[Any] = []
        began = sim.now
        with pytest.raises(JobError) as failure:
            async with boss.job("w", name="count", payload=10_000) as stream:
                seen += [event.data async for event in stream if event.type == event.STREAM_DATA]
        assert seen == list(range(99))
        assert error_of(failure) == "JobLost"
        assert sim.now - began <= SOON
        await anyio.sleep(5)
        assert worker.active_jobs == {}
        nothing_left(sim)

    run(program)


def test_a_job_whose_last_events_are_all_lost_does_not_wait_for_credit_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker())
        lose(monkeypatch, "b", lambda kind, _: kind != "BusJobRunningMessage")
        began = sim.now
        with pytest.raises(JobError) as failure:
            await boss.job("w", name="count", payload=10_000)
        assert error_of(failure) == "JobLost"
        assert sim.now - began <= 2 * LEASE + 3 * HEARTBEAT
        await anyio.sleep(5)
        nothing_left(sim)

    run(program)


def test_g24_a_stream_of_many_windows_arrives_whole() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker())
        async with boss.job("w", name="count", payload=3000) as stream:
            seen = [event.data async for event in stream if event.type == event.STREAM_DATA]
        assert seen == list(range(3000))
        nothing_left(sim)

    run(program)


def test_a_long_job_that_says_nothing_is_asked_about_and_completes() -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        before = len(sim.trace)
        assert await boss.job("w", name="sleep", payload=50.0) == "b"
        inquiries = [what for _, label, event, what in sim.trace[before:] if (label, event) == ("a", "send")]
        assert any("inbox:b#" in what for what in inquiries)
        assert worker.runs == [50.0]

    run(program, ack_wait=300.0)


def test_a_job_for_a_name_nobody_serves_waits_in_its_requester_and_within_its_deadline() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim)
        with pytest.raises(JobError) as failure:
            await boss.job("w", name="echo", payload=1, timeout=5)
        assert error_of(failure) == "JobTimeoutError"
        worker = Worker()

        async def ask() -> None:
            async with boss.job("w", name="sleep", payload=20.0, timeout=15):
                assert sim.bus("a").network_statistics().direct.parked == 1
                await anyio.sleep(5)
                await sim.start("b", worker)

        with pytest.raises(JobError) as failure:
            await ask()
        assert error_of(failure) == "JobTimeoutError"
        await anyio.sleep(5)
        assert worker.stopped == [20.0]
        assert await boss.job("w", name="echo", payload=2) == [2, "b"]
        nothing_left(sim)

    run(program)


def test_a_job_that_waits_for_its_name_fails_after_the_ready_timeout_and_leaves_nothing() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim)
        with pytest.raises(JobError) as failure:
            await boss.job("w", name="echo")
        assert error_of(failure) == "WorkerUnavailableError"
        nothing_left(sim)

    run(program)


def test_what_a_performer_that_ends_has_not_begun_another_does() -> None:
    async def program(sim: Simulation) -> None:
        first, second = Worker(limit=1), Worker(limit=1)
        boss = await pair(sim, first)
        async with boss.job_group("w", name="sleep", payload=3.0):
            await anyio.sleep(1)
            async with anyio.create_task_group() as tasks:
                answers: list[Any] = []

                async def ask(number: int) -> None:
                    answers.append(await boss.job("w", name="echo", payload=number))

                for number in range(5):
                    tasks.start_soon(ask, number)
                await anyio.sleep(1)
                await sim.start("c", second)
                await sim.end("b")
        assert sorted(answers) == [[number, "c"] for number in range(5)]
        assert first.runs == [3.0]
        nothing_left(sim)

    run(program, drain_timeout=10.0)


def test_a_job_that_comes_back_to_who_had_it_before_it_began_is_answered_and_its_events_are_of_one_attempt() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker(limit=1), Worker(limit=1))
        first, second = sim.runner("b"), sim.runner("c")
        assert first is not None
        assert second is not None

        async def keep_busy() -> None:
            with suppress(JobError):
                await boss.job("w", name="sleep", payload=300.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_busy)
            tasks.start_soon(keep_busy)
            await anyio.sleep(1)
            async with boss.job("w", name="count", payload=5) as stream:
                await anyio.sleep(5)  # who has it says so now and then
                for runner in (first, second) if _waits(first) else (second, first):
                    assert _waits(runner)
                    await runner.remove_worker("w")
                    await runner.add_workers(Worker())
                    await anyio.sleep(5)
                seen = [(event.attempt, event.data) async for event in stream if event.type == event.STREAM_DATA]
        assert [data for _, data in seen] == list(range(5))
        assert {attempt for attempt, _ in seen} == {stream.results["w"].attempt}
        nothing_left(sim)

    run(program, ack_wait=6.0, drain_timeout=1.0)


def _waits(runner: WorkerRunner) -> bool:
    worker = runner.get_worker("w")
    return worker is not None and any(request.job_name == "count" for request in worker.active_jobs.values())


def test_an_inactive_replica_is_not_asked() -> None:
    async def program(sim: Simulation) -> None:
        asleep, awake = Worker(active=False), Worker()
        boss = await pair(sim, asleep, awake)
        assert [await boss.job("w", name="echo", payload=n) for n in range(4)] == [[n, "c"] for n in range(4)]
        await boss.deactivate_worker("w")
        await anyio.sleep(1)
        async with boss.job("w", name="echo", payload=9) as asked:
            await anyio.sleep(1)
            assert sim.bus("a").network_statistics().direct.parked == 1
            await boss.activate_worker("w")
        assert asked.response[0] == 9
        nothing_left(sim)

    run(program)


def test_g25_more_jobs_than_a_performer_has_room_for_wait_and_all_complete() -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker(limit=1, room=2)
        boss = await pair(sim, worker)
        answers: list[Any] = []

        async def ask(number: int) -> None:
            answers.append(await boss.job("w", name="echo", payload=number))

        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(ask, number)
        assert sorted(answers) == [[number, "b"] for number in range(60)]
        assert sorted(worker.runs) == list(range(60))
        nothing_left(sim)

    run(program)


class Relay(Worker):
    """Asks another worker, inside whose job it is asked again."""

    @job(name="relay")
    async def relay(self, job: Job[Any]) -> Any:
        return await self.job("back", name="back")


class Back(BaseWorker):
    @job(name="back")
    async def back(self, job: Job[Any]) -> Any:
        await anyio.sleep(5)
        return await self.job("w", name="echo", payload="inside")


def test_g22_a_job_asked_inside_one_of_the_same_worker_does_not_line_up_behind_those_that_wait_for_that() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Relay(limit=1, room=1))
        runner = sim.runner("a")
        assert runner is not None
        await runner.add_workers(Back("back"))
        await anyio.sleep(3)
        async with anyio.create_task_group() as tasks:
            relayed: list[Any] = []

            async def ask() -> None:
                relayed.append(await boss.job("w", name="relay", timeout=20))

            tasks.start_soon(ask)
            await anyio.sleep(1)
            for number in range(50):
                tasks.start_soon(_one, boss, number)
        assert relayed == [["inside", "b"]]
        nothing_left(sim)

    run(program)


async def _one(boss: BaseWorker, number: int) -> None:
    await boss.job("w", name="echo", payload=number, timeout=60)


def test_g25_a_worker_that_refuses_says_so() -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker(limit=1, room=1)
        worker.when_full = "refuse"
        boss = await pair(sim, worker)
        async with boss.job("w", name="sleep", payload=3.0), boss.job("w", name="sleep", payload=1.0):
            await anyio.sleep(1)
            with pytest.raises(JobError) as failure:
                await boss.job("w", name="echo", payload=1)
        assert error_of(failure) == "MailboxFullError"
        assert worker.runs == [3.0, 1.0]
        nothing_left(sim)

    run(program)


def test_a_cancellation_reaches_the_performer_and_no_other_replica() -> None:
    async def program(sim: Simulation) -> None:
        workers = [Worker(), Worker()]
        boss = await pair(sim, *workers)
        with anyio.move_on_after(2):
            await boss.job("w", name="sleep", payload=100.0)
        await anyio.sleep(2)
        assert [*workers[0].stopped, *workers[1].stopped] == [100.0]
        assert sum(len(session_of(bus).leases.claims._forbidden) for bus in map(sim.bus, "bc")) == 0
        nothing_left(sim)

    run(program)


def test_g18_a_cancellation_that_overtakes_its_request_keeps_it_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        tell = SimulatedTransport.tell

        async def slow(transport: SimulatedTransport, frames: Sequence[Outgoing]) -> None:
            await anyio.sleep(3)
            await tell(transport, frames)

        monkeypatch.setattr(SimulatedTransport, "tell", slow)
        with anyio.move_on_after(1):
            await boss.job("w", name="echo", payload=1)
        await anyio.sleep(20)
        assert worker.runs == []
        nothing_left(sim)

    run(program)


def test_a_performer_is_cut_off_and_its_job_is_lost_and_stopped_when_it_is_back() -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)

        async def ask() -> None:
            async with boss.job("w", name="sleep", payload=500.0):
                await anyio.sleep(1)
                sim.partition("b")

        with pytest.raises(JobError) as failure:
            await ask()
        assert error_of(failure) == "JobLost"
        sim.heal("b")
        await anyio.sleep(60)
        assert worker.stopped == [500.0]
        assert await boss.job("w", name="echo", payload=1) == [1, "b"]
        nothing_left(sim)

    run(program)


def test_a_requester_that_is_cut_off_for_a_moment_gets_its_answer() -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        async with boss.job("w", name="sleep", payload=4.0) as asked:
            await anyio.sleep(1)
            sim.partition("a")
            await anyio.sleep(15)
            sim.heal("a")
        assert asked.response == "b"
        assert worker.runs == [4.0]
        nothing_left(sim)

    run(program)


def test_a_request_waits_while_there_is_no_connection_and_runs_once() -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker()
        boss = await pair(sim, worker)
        sim.partition("a")
        await anyio.sleep(1)
        sim.bus("a")._transport._unheard = True  # type: ignore[attr-defined]  # the link is known to be down
        async with boss.job("w", name="echo", payload=1) as asked:
            await anyio.sleep(3)
            sim.heal("a")
        assert asked.response == [1, "b"]
        assert worker.runs == [1]
        nothing_left(sim)

    run(program)


def test_a_group_has_members_here_and_elsewhere_and_the_loss_of_one_ends_the_others() -> None:
    async def program(sim: Simulation) -> None:
        here, there = Worker("here"), Worker("there")
        boss = await pair(sim, there)
        runner = sim.runner("a")
        assert runner is not None
        await runner.add_workers(here)
        async with boss.job_group("here", "there", name="echo", payload=1) as group:
            pass
        assert group.responses == {"here": [1, "a"], "there": [1, "b"]}

        async def ask() -> None:
            async with boss.job_group("here", "there", name="sleep", payload=99.0):
                await anyio.sleep(1)
                sim.crash("b")

        with pytest.raises(JobGroupError) as failure:
            await ask()
        statuses = {name: result.status for name, result in failure.value.results.items()}
        assert statuses == {"here": JobStatus.CANCELLED, "there": JobStatus.FAILED}
        await anyio.sleep(1)
        assert here.stopped == [99.0]
        nothing_left(sim)

    run(program)


def test_g40_a_request_that_cannot_be_read_is_answered() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker())
        bus = sim.bus("a")
        outbox = session_of(bus)._direct_outbox
        put = outbox.put

        def spoil(frame: Outgoing, *, bounded: bool = False) -> None:
            request = BusJobRequestMessage(source="boss", target="w", job_id="mine", job_name="echo")
            whole = encode(request, id=frame.id, origin=bus.address, destination=frame.to)
            _, body = decode_header(whole)
            put(Outgoing("direct", frame.to, frame.id, whole[: len(whole) - len(body)] + b"\xc1" * 4), bounded=bounded)

        outbox.put = spoil  # type: ignore[method-assign]
        with pytest.raises(JobError) as failure:
            await boss.job("w", name="echo", payload=1, job_id="mine")
        assert error_of(failure) == "DecodeError"
        assert sim.bus("b").network_statistics().refused.total == 1
        nothing_left(sim)

    run(program)


def test_g46_nothing_is_left_of_a_thousand_jobs() -> None:
    async def program(sim: Simulation) -> None:
        boss = await pair(sim, Worker(), Worker())
        for number in range(1000):
            await boss.job("w", name="echo", payload=number)
        nothing_left(sim)

    run(program)
