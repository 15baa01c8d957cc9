"""What a fleet does with lost acknowledgements, frames it cannot read, lives that end twice: one scenario each."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import msgspec
import pytest

from actors import BaseWorker, Job, JobError, JobGroupError, JobStatus, WorkerRunner, WorkerUnavailableError, job
from actors.requester.flow import Member
from actors.testing import Faults, Simulation
from bus import BusJobRequestMessage, BusJobUpdateMessage, EncodeError, NetworkBus, TransportError
from bus.memory.queues import Entry, Node, Queues
from bus.simulation.network import SimulatedTransport
from bus.transport.transport import Delivery, Outgoing
from bus.wire.codec import encode
from bus.wire.known import own_type
from tests.simulation import fleet
from tests.simulation.fleet import crash_in, run


class Worker(fleet.Worker):
    """It also speaks while it works."""

    @job(name="report")
    async def report(self, job: Job[Any]) -> Any:
        self.runs.append((job.id, job.attempt))
        await job.update("on it")
        return "done"


async def _pair(sim: Simulation, worker: BaseWorker) -> BaseWorker:
    boss = BaseWorker("boss")
    await sim.start("a", boss)
    await sim.start("b", worker)
    await anyio.sleep(3)
    return boss


def test_an_acknowledgement_that_is_lost_does_not_cost_a_worker_its_only_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Worker("w", limit=1))
        settle = SimulatedTransport.settle

        async def cut(transport: SimulatedTransport, settlements: Any) -> Any:
            monkeypatch.setattr(SimulatedTransport, "settle", settle)
            sim.partition("b")
            return await settle(transport, settlements)

        async with boss.job("w", name="sleep", payload=2.0):
            monkeypatch.setattr(SimulatedTransport, "settle", cut)
        await anyio.sleep(12)
        sim.heal("b")
        await anyio.sleep(30)
        assert await boss.job("w", name="echo", payload=2) == 2

    run(program)


def _garbage(_sim: Simulation) -> bytes:
    return b"garbage"


def _misplaced(sim: Simulation) -> bytes:
    request = BusJobRequestMessage(source="boss", target="nobody", job_id="j", job_name="echo")
    return encode(request, id="z", origin=sim.bus("a").address)


@pytest.mark.parametrize("frame", [_garbage, _misplaced])
def test_a_frame_that_does_not_belong_in_a_queue_is_thrown_out_and_the_next_job_runs(frame: Any) -> None:
    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Worker("w", limit=1))
        await sim.bus("a")._transport.send([Outgoing("queue", "w", "bad", frame(sim))])
        with anyio.fail_after(10):
            await anyio.sleep(5)
            assert await boss.job("w", name="echo", payload=2) == 2
        assert sim.bus("b").network_statistics().refused.total == 1
        assert sim.network.broker.statistics().dead_letters == 1

    run(program)


def test_g24_an_update_too_big_to_travel_leaves_no_hole_in_the_order() -> None:
    class Reporter(BaseWorker):
        @job(name="report")
        async def report(self, job: Job[Any]) -> Any:
            with pytest.raises(EncodeError):
                await job.update("x" * 2_000_000)
            await job.update("small")
            return "done"

    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Reporter("w"))
        async with boss.job("w", name="report") as asked:
            seen = [event.data async for event in asked]
        assert seen == ["small"]
        assert asked.response == "done"

    run(program)


def test_g5_a_request_that_its_performer_cannot_read_is_answered_with_an_error() -> None:
    class Unfit(msgspec.Struct):
        x: int = "text"  # type: ignore[assignment]  # it is refused when it arrives

    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Worker("w"))
        with pytest.raises(JobError, match="tagged 'Unfit request' does not fit") as caught:
            await boss.job("w", name="echo", payload=Unfit())
        assert caught.value.status is JobStatus.ERROR
        assert await boss.job("w", name="echo", payload=2) == 2

    own_type(Unfit, "Unfit request")
    run(program)


def test_g5_an_answer_that_its_requester_cannot_read_ends_the_job_with_an_error() -> None:
    class Unfit(msgspec.Struct):
        x: int = "text"  # type: ignore[assignment]  # it is refused when it arrives

    class Riddle(BaseWorker):
        @job(name="riddle")
        async def riddle(self, job: Job[Any]) -> Any:
            await job.update("soon")
            return Unfit()

    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Riddle("w"))
        with pytest.raises(JobError, match="tagged 'Unfit answer' does not fit") as caught:
            await boss.job("w", name="riddle")
        assert caught.value.status is JobStatus.ERROR

    own_type(Unfit, "Unfit answer")
    run(program)


def test_g39_a_job_asked_for_again_under_its_id_runs_once() -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker("w")
        boss = await _pair(sim, worker)
        for _ in range(2):
            with anyio.fail_after(5):
                assert await boss.job("w", name="report", job_id="nightly") == "done"
        assert worker.runs == [("nightly", 1)]

    run(program)


def test_two_requesters_of_one_runner_may_choose_the_same_job_id() -> None:
    async def program(sim: Simulation) -> None:
        first, second = BaseWorker("first"), BaseWorker("second")
        await sim.start("a", first, second)
        await sim.start("b", Worker("w"))
        await anyio.sleep(3)
        for number, boss in enumerate((first, second)):
            with anyio.fail_after(5):
                assert await boss.job("w", name="echo", payload=number, job_id="nightly") == number

    run(program)


def test_g5_the_only_active_replica_dies_and_the_requester_beside_an_inactive_one_is_told() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss, Worker("w", active=False))
        await sim.start("b", Worker("w"))
        await anyio.sleep(3)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(crash_in, sim, "b", 5.0)
            with anyio.fail_after(5 + 8 + 2 * 30), pytest.raises(WorkerUnavailableError):
                await boss.job("w", name="sleep", payload=50.0)

    run(program)


def test_g5_a_performer_whose_beats_are_lost_dies_and_the_requester_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Worker("w"))
        carry = SimulatedTransport._carry

        def carry_no_beats(transport: SimulatedTransport, delivery: Delivery) -> None:
            if not (transport.label == "a" and delivery.lane == "everyone" and b"b#" in delivery.body):
                carry(transport, delivery)

        group = await boss.create_job_group_and_request_job(["w"], name="sleep", payload=400.0)
        await anyio.sleep(5)
        monkeypatch.setattr(SimulatedTransport, "_carry", carry_no_beats)
        await anyio.sleep(100)
        assert "w" in boss.registry, "it says that it lives when it is asked"
        assert not group.is_done
        sim.crash("b")
        with anyio.fail_after(3 * 30), pytest.raises(JobGroupError, match="nobody served 'w'"):
            await group.wait()

    run(program)


def test_g28_a_life_that_comes_back_after_its_successor_does_not_bury_that() -> None:
    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Worker("w"))
        sim.partition("b")
        await anyio.sleep(10)
        bus = NetworkBus(sim.network.transport("b again"), rng=Random(9))
        successor = WorkerRunner("b", bus, handle_sigint=False, handle_sigterm=False, rng=Random(8))
        await successor.add_workers(Worker("w"))
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(lambda: successor.run(auto_end=False))
            await anyio.sleep(5)
            assert [each.address for each in boss.registry.replicas("w")] == [bus.address]
            sim.heal("b")
            await anyio.sleep(5)
            sim.crash("b")
            await anyio.sleep(60)
            assert [each.address for each in boss.registry.replicas("w")] == [bus.address]
            await successor.end()

    run(program)


def test_g18_a_job_whose_requester_was_removed_while_it_was_queued_is_stopped() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss, Worker("other"))
        await boss.request_job("w", name="sleep", payload=100_000.0)
        await anyio.sleep(1)
        await boss.worker_runner.remove_worker("boss")
        worker = Worker("w")
        await sim.start("b", worker)
        await anyio.sleep(30)
        assert worker.active_jobs == {}

    run(program)


def test_a_member_that_was_given_up_in_a_group_that_goes_on_does_not_run() -> None:
    async def program(sim: Simulation) -> None:
        late, other = Worker("late"), Worker("other")
        boss = await _pair(sim, other)
        await boss.request_job_group("late", "other", name="sleep", payload=500.0, cancel_on_error=False)
        await anyio.sleep(35)
        await sim.start("c", late)
        await anyio.sleep(20)
        assert late.runs == []
        assert late.active_jobs == {}
        assert len(other.active_jobs) == 1

    run(program)


def test_g35_who_cannot_renew_its_lease_sends_nothing_any_more_once_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Talker(BaseWorker):
        max_concurrency = 1

        @job(name="talk")
        async def talk(self, job: Job[Any]) -> Any:
            for number in range(8):
                await anyio.sleep(4)
                await job.update([job.attempt, number])
            return job.attempt

    async def program(sim: Simulation) -> None:
        extend = SimulatedTransport.extend

        async def stuck(transport: SimulatedTransport, deliveries: Any) -> Any:
            if transport.label == "b":
                await anyio.sleep(100)
            return await extend(transport, deliveries)

        monkeypatch.setattr(SimulatedTransport, "extend", stuck)
        boss = await _pair(sim, Talker("w"))
        async with boss.job("w", name="talk") as asked:
            await anyio.sleep(5)
            await sim.start("c", Talker("w"))
            seen = [event.data async for event in asked]
        assert seen == [[1, 0], [1, 1], *([2, number] for number in range(8))]
        assert asked.response == 2
        assert sim.bus("b").network_statistics().claims.refused > 0
        assert sim.runner("b").get_worker("w").active_jobs == {}  # type: ignore[union-attr]  # both live

    run(program)


class Teller(BaseWorker):
    """Tells of its progress, which attempt it is and where."""

    max_concurrency = 1

    @job(name="tell")
    async def tell(self, job: Job[Any]) -> Any:
        for number in range(5):
            await job.update([self.worker_runner.name, number])
            await anyio.sleep(4)
        return self.worker_runner.name


def _forget_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the broker give out every job as if for the first time, as one does that was killed before it wrote down."""
    claim = Queues._claim

    def forgetful(queues: Queues, entry: Entry, node: Node, now: float) -> None:
        entry.attempt = 0
        claim(queues, entry, node, now)

    monkeypatch.setattr(Queues, "_claim", forgetful)


@pytest.mark.parametrize("heir", ["b", "c"])
def test_g14_a_number_given_out_twice_is_one_attempt_after_the_other(
    heir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Teller("w"))
        async with boss.job("w", name="tell") as asked:
            await anyio.sleep(9)
            if heir != "b":
                await sim.start(heir, Teller("w"))
            sim.partition("b")
            await anyio.sleep(15)
            sim.heal("b")
            seen = [(event.attempt, *event.data) async for event in asked]
        assert seen[:-5] == [(1, "b", number) for number in range(len(seen) - 5)]
        assert seen[-5:] == [(2, heir, number) for number in range(5)]
        assert asked.response == heir

    _forget_deliveries(monkeypatch)
    run(program)


def test_g12_who_had_the_number_of_another_attempt_is_not_listened_to_any_more() -> None:
    def told(origin: str, sequence: int, attempt: int = 1) -> BusJobUpdateMessage:
        return BusJobUpdateMessage(source="w", job_id="j", origin=origin, sequence=sequence, attempt=attempt)

    member = Member("w")
    heard = [("b", 0, 1), ("b", 1, 1), ("c", 0, 1), ("b", 2, 1), ("c", 1, 1), ("b", 0, 2), ("c", 2, 1)]
    taken = [message for message in heard if list(member.in_order(told(*message)) or ())]
    assert taken == [("b", 0, 1), ("b", 1, 1), ("c", 0, 1), ("c", 1, 1), ("b", 0, 2)]


def test_g37_a_network_that_loses_everything_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(_transport: SimulatedTransport, _frames: Any) -> None:
        raise TransportError("down")

    async def program(sim: Simulation) -> None:
        distant, own = Worker("w", limit=2), Worker("own", limit=1)
        boss = await _pair(sim, distant)
        await sim.runner("a").add_workers(own)  # type: ignore[union-attr]  # it lives
        told: dict[str, Any] = {}

        async def ask(job_id: str, name: str, seconds: float, **options: Any) -> None:
            try:
                told[job_id] = await boss.job(name, name="sleep", payload=seconds, job_id=job_id, **options)
            except JobError as error:
                told[job_id] = error

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(ask, f"{number}", "w", 40.0)
            tasks.start_soon(ask, "here", "own", 40.0)
            tasks.start_soon(ask, "nowhere", "nobody", 40.0)
            await anyio.sleep(2)
            with monkeypatch.context() as patch:
                patch.setattr(SimulatedTransport, "send", down)
                tasks.start_soon(ask, "unsent", "w", 1.0)
                await anyio.sleep(1)
                sim.network.stop_broker()
                sim.network.start_broker(empty=True)
                await anyio.sleep(3)
            await anyio.sleep(5)
            assert told.pop("unsent") == {"by": "b"}
            assert sorted(told) == ["0", "1", "2", "3", "nowhere"]
            assert {error.error.type for error in told.values()} == {"DataLostError"}
            assert all(error.status is JobStatus.FAILED and error.error.retryable for error in told.values())
            assert distant.active_jobs == {}
            assert await boss.job("w", name="echo", payload=2, timeout=5) == 2
        assert told["here"] == {"by": "a"}
        assert len(distant.runs) == 4

    run(program)


def test_g37_jobs_that_a_network_does_not_store_are_not_lost_with_it() -> None:
    async def program(sim: Simulation) -> None:
        boss = await _pair(sim, Worker("w"))
        async with boss.job("w", name="sleep", payload=20.0, delivery="at_most_once") as asked:
            await anyio.sleep(2)
            sim.network.stop_broker()
            sim.network.start_broker(empty=True)
        assert asked.response == {"by": "b"}

    run(program)


def test_g34_over_a_slow_network_answers_are_settled_although_something_always_waits_to_be_sent() -> None:
    async def program(sim: Simulation) -> None:
        worker, other = Worker("w"), Worker("w")
        boss = await _pair(sim, worker)
        await sim.start("c", other)
        await anyio.sleep(10)
        async with boss.job("w", name="report"):
            pass
        await anyio.sleep(60)
        assert len(worker.runs + other.runs) == 1

    Simulation(1, faults=Faults(delay=(2.0, 2.1)), limit=2000.0).run(program)


def test_g35_a_job_that_lay_unread_in_a_process_for_longer_than_its_lease_is_not_begun_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(sim: Simulation) -> None:
        receive = SimulatedTransport.receive

        async def slowly(transport: SimulatedTransport) -> Any:
            batch = await receive(transport)
            if late.runs and transport.label == "b" and any(delivery.lane == "queue" for delivery in batch):
                await anyio.sleep(15)
            return batch

        monkeypatch.setattr(SimulatedTransport, "receive", slowly)
        late, heir = Worker("w"), Worker("w")
        boss = await _pair(sim, late)
        assert await boss.job("w", name="echo", payload=1) == 1
        async with boss.job("w", name="sleep", payload=30.0) as asked:
            await anyio.sleep(1)
            await sim.start("c", heir)
        assert asked.response == {"by": "c"}
        assert (len(late.runs), heir.runs) == (1, [(asked.job_id, 2)])
        assert await boss.job("w", name="echo", payload=2) == 2

    run(program)


def test_a_renewal_that_fails_because_the_bus_stops_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        close, closing = SimulatedTransport.close, anyio.Event()

        async def renew(_transport: SimulatedTransport, _deliveries: Any) -> Any:
            await closing.wait()
            raise TransportError("closed")

        async def close_under_it(transport: SimulatedTransport) -> None:
            closing.set()
            await close(transport)

        boss = await _pair(sim, Worker("w"))
        monkeypatch.setattr(SimulatedTransport, "extend", renew)
        async with boss.job("w", name="sleep", payload=5.0):
            pass
        monkeypatch.setattr(SimulatedTransport, "close", close_under_it)
        await sim.end("b")

    run(program)
