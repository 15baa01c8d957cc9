"""Leases that are lost, and the job that comes again for it: it is answered once, and truly."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from msgspec.structs import replace

from actors import BaseWorker, Client, Job, JobError, WorkerRunner, job
from actors.client.client import runner_of
from actors.worker.verbs import core_of
from bus import BusJobRunningMessage, JobStatus
from bus.errors import TransportError
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.network.bus import NetworkBus
from bus.transport.transport import Delivery, Outgoing, Settlement
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


class LosesAcks(MemoryTransport):
    """Its acknowledgements of first deliveries are lost on the way."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.repeated = anyio.Event()

    async def send(self, frames: Sequence[Outgoing]) -> None:
        await super().send([replace(frame, settles=None) for frame in frames])

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        settled = iter(await super().settle([each for each in settlements if each[0].attempt > 1]))
        return [delivery.attempt == 1 or next(settled) for delivery, _ in settlements]

    async def receive(self) -> Sequence[Delivery]:
        deliveries = await super().receive()
        if any(delivery.attempt > 1 for delivery in deliveries):
            self.repeated.set()
        return deliveries


class Once(BaseWorker):
    max_concurrency = 1

    def __init__(self) -> None:
        super().__init__("once")
        self.ran = 0

    @job(name="count")
    async def count(self, job: Job[Any]) -> int:
        self.ran += 1
        return self.ran


async def test_g39_a_job_that_comes_again_is_answered_from_memory_and_another_is_claimed_in_its_place() -> None:
    broker = MemoryBroker(ack_wait=1.0)
    transport, worker = LosesAcks(broker), Once()
    async with served(broker, transport, worker) as client:
        with anyio.fail_after(60):
            for number in (1, 2, 3):
                assert await client.job("once", name="count", timeout=60) == number
                await transport.repeated.wait()
                transport.repeated = anyio.Event()
        assert worker.ran == 3


class CannotSend(LosesAcks):
    """While it is cut off for what it sends, it still ends claims, as a network does whose ways fail one by one."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.cut = False
        self.settled: list[int] = []

    async def send(self, frames: Sequence[Outgoing]) -> None:
        if self.cut and any(frame.lane == "inbox" for frame in frames):
            raise TransportError("cut off")
        await super().send(frames)

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        self.settled += [delivery.attempt for delivery, _ in settlements]
        return await super().settle(settlements)


class Cutting(Once):
    @job(name="count")
    async def count(self, job: Job[Any]) -> int:
        self.ran += 1
        transport: Any = self.bus._transport  # type: ignore[attr-defined]
        transport.cut = True
        return self.ran


@asynccontextmanager
async def served(broker: MemoryBroker, transport: MemoryTransport, worker: BaseWorker) -> AsyncGenerator[Client]:
    """Somebody who asks a worker of another runner, which reads by `transport`."""
    runner = WorkerRunner("only", NetworkBus(transport), handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    async with Client(NetworkBus(MemoryTransport(broker))) as client, runner:
        yield client


def asked(client: Client, tasks: TaskGroup) -> list[Any]:
    """Ask for the job: its answer comes into the list, or its error."""
    answers: list[Any] = []

    async def ask() -> None:
        try:
            answers.append(await client.job("once", name="count", timeout=60))
        except JobError as failed:
            answers.append(failed)

    tasks.start_soon(ask)
    return answers


async def comes_again(transport: LosesAcks, broker: MemoryBroker) -> None:
    """The job that is claimed is delivered again, to the same node."""
    transport.repeated = anyio.Event()
    lose_lease(broker)
    transport.demand("once", 1)
    await transport.repeated.wait()


def another_had_it(client: Client, attempt: int = 2) -> None:
    """Between the first claim and the second another runner had the job, and has died: the requester had heard it."""
    (group,) = core_of(client._worker).groups.values()
    running = BusJobRunningMessage(
        source="once", target=client._worker.name, origin="other#1", job_id=group.job_id, attempt=attempt
    )
    assert group.still_running(running)


def lose_lease(broker: MemoryBroker) -> None:
    """End the claim there is, as if nobody had renewed it."""
    (claimed,) = (delivery for node in broker._nodes.values() for delivery in node.claims)
    broker._queues.give_back([claimed], anyio.current_time())


@pytest.mark.parametrize("elsewhere", [False, True], ids=["at once", "after another had it"])
async def test_g33_a_job_that_comes_again_is_not_done_with_before_its_remembered_answer_is_safe(
    elsewhere: bool,
) -> None:
    """Else it is lost with its performer, if that dies before it can send the answer."""
    broker = MemoryBroker(ack_wait=1.0)
    transport, worker = CannotSend(broker), Cutting()
    async with served(broker, transport, worker) as client:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as asking:
                answers = asked(client, asking)
                while not worker.ran:
                    await anyio.lowlevel.checkpoint()
                lose_lease(broker)
                await transport.repeated.wait()
                await anyio.wait_all_tasks_blocked()
                assert transport.settled == []
                assert broker.statistics().claimed == 1
                if elsewhere:
                    another_had_it(client)
                transport.cut = False
        assert answers == [1]
        assert worker.ran == 1


class Held(Once):
    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()

    @job(name="count")
    async def count(self, job: Job[Any]) -> int:
        self.ran += 1
        await self.gate.wait()
        return self.ran


async def answer_of_one_that_comes_again(worker: Held, *, elsewhere: bool) -> Any:
    """Ask `worker`, to which the job comes again while it runs, and if `elsewhere` after another has had it."""
    broker = MemoryBroker(ack_wait=30.0)
    transport = LosesAcks(broker)
    async with served(broker, transport, worker) as client:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as asking:
                answers = asked(client, asking)
                while not worker.ran:
                    await anyio.lowlevel.checkpoint()
                await comes_again(transport, broker)
                await anyio.wait_all_tasks_blocked()
                if elsewhere:
                    another_had_it(client)
                worker.gate.set()
    assert worker.ran == 1
    (answer,) = answers
    return answer


each_place = pytest.mark.parametrize("elsewhere", [False, True], ids=["at once", "after another had it"])


@each_place
async def test_g33_the_answer_to_a_job_that_came_again_while_it_ran_reaches_its_requester(elsewhere: bool) -> None:
    assert await answer_of_one_that_comes_again(Held(), elsewhere=elsewhere) == 1


class Streams(Held):
    @job(name="count")
    async def count(self, job: Job[Any]) -> int:
        self.ran += 1
        await job.stream("chunk")
        await self.gate.wait()
        return self.ran


@each_place
async def test_g33_a_stream_that_its_requester_left_in_the_middle_does_not_count_as_complete(elsewhere: bool) -> None:
    answer = await answer_of_one_that_comes_again(Streams(), elsewhere=elsewhere)
    assert (answer.error.type if elsewhere else answer) == ("AnswerForgotten" if elsewhere else 1)


@pytest.mark.parametrize("attempt", [1, 2])
async def test_g33_who_has_a_job_that_its_requester_hears_from_another_is_not_told_to_stop(attempt: int) -> None:
    """It may be given the job again: "cancelled" would be no true outcome, for nobody has cancelled it."""
    broker = MemoryBroker(ack_wait=1.0)
    transport, worker = LosesAcks(broker), Held()
    async with served(broker, transport, worker) as client:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as asking:
                answers = asked(client, asking)
                while not worker.ran:
                    await anyio.lowlevel.checkpoint()
                another_had_it(client, attempt)
                while runner_of(client).statistics().late_answers < 2:  # "I have it", said at each third of a lease
                    await anyio.lowlevel.checkpoint()
                await comes_again(transport, broker)
                worker.gate.set()
        assert answers == [1]
        assert worker.ran == 1


@virtual_time()
async def test_g33_a_job_whose_lease_is_lost_before_it_may_begin_is_claimed_again() -> None:
    """It takes a slot while its requester is asked whether it still waits, and no handler ends to free that."""
    broker = MemoryBroker(ack_wait=1.0)
    transport, worker = CannotSend(broker), Once()
    async with served(broker, transport, worker) as client:
        transport.cut = True  # the requester is not asked
        with anyio.fail_after(60):
            async with anyio.create_task_group() as asking:
                answers = asked(client, asking)
                await anyio.sleep(1)
                assert worker.bus.network_statistics().claims.waiting == 1  # type: ignore[attr-defined]
                lose_lease(broker)
                await anyio.sleep(1)
                transport.cut = False
        assert answers == [1]


class LayUnread(MemoryTransport):
    """What it was given first has lain there for a whole lease."""

    async def receive(self) -> Sequence[Delivery]:
        over = anyio.current_time() - self.ack_wait
        deliveries = await super().receive()
        return [replace(each, since=over if each.attempt == 1 else 0.0) for each in deliveries]


async def test_g35_a_job_whose_lease_ended_while_it_lay_unread_is_not_begun_under_it() -> None:
    broker = MemoryBroker(ack_wait=1.0)
    async with served(broker, LayUnread(broker), Tells("once")) as client:
        with anyio.fail_after(60):
            assert await client.job("once", name="tell", timeout=60) == 2


class Tells(BaseWorker):
    @job(name="tell")
    async def tell(self, job: Job[Any]) -> int:
        return job.attempt


class LosesLease(LosesAcks):
    """It learns that the lease of a first delivery is lost when it wants to renew it."""

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        kept = await super().extend(deliveries)
        return [ours and each.attempt > 1 for ours, each in zip(kept, deliveries, strict=True)]


class SlowToStop(Once):
    def __init__(self) -> None:
        super().__init__()
        self.stopping, self.gate = anyio.Event(), anyio.Event()

    @job(name="count")
    async def count(self, job: Job[Any]) -> int:
        self.ran += 1
        if job.attempt == 1:
            try:
                await anyio.sleep_forever()
            finally:
                self.stopping.set()
                with anyio.CancelScope(shield=True):
                    await self.gate.wait()
        return job.attempt


@pytest.mark.parametrize("cancelled", [False, True], ids=["wanted", "cancelled"])
async def test_g33_a_job_that_comes_again_while_its_handler_is_being_stopped_runs_after_that(cancelled: bool) -> None:
    """Its lease was lost, so it was stopped, and then the same process is given it."""
    broker = MemoryBroker(ack_wait=1.0)
    transport, worker = LosesLease(broker), SlowToStop()
    worker.max_concurrency = 2
    async with served(broker, transport, worker) as client:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as asking:
                answers = asked(client, asking)
                await worker.stopping.wait()
                lose_lease(broker)
                await transport.repeated.wait()
                await anyio.wait_all_tasks_blocked()
                assert worker.ran == 1
                if cancelled:
                    (group,) = core_of(client._worker).groups.values()
                    group.cancel()
                    await anyio.wait_all_tasks_blocked()
                worker.gate.set()
            await worker.worker_runner.end()
        (answer,) = answers
        assert (answer.status if cancelled else answer) == (JobStatus.CANCELLED if cancelled else 2)
        assert worker.ran == (1 if cancelled else 2)
