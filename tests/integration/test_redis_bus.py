"""`redis://`: the same program on several runners, over a real server that is killed, and in processes that are."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actors import BaseWorker, Client, Job, JobError, WorkerRunner, job
from bus import BusError, RedisBus, open_bus
from bus.brokers import RedisBroker
from bus.redis.transport import RedisTransport
from bus.transport.transport import Delivery, Outgoing, Settlement
from tests.support.processes import next_line, ready

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Meeting:
    """Goes on once all have come."""

    def __init__(self, missing: int) -> None:
        self.begun = anyio.Event()
        self.complete = anyio.Event()
        self._missing = missing

    def come(self) -> None:
        self.begun.set()
        self._missing -= 1
        if not self._missing:
            self.complete.set()


class Performer(BaseWorker):
    max_concurrency = 4

    def __init__(self, name: str, runs: Counter[Any] | None = None, meeting: Meeting | None = None) -> None:
        super().__init__(name)
        self.runs: Counter[Any] = Counter() if runs is None else runs
        self.meeting = meeting or Meeting(1)

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        await anyio.lowlevel.checkpoint()
        return job.payload

    @job(name="where")
    async def where(self, job: Job[Any]) -> str:
        self.runs[job.payload] += 1
        await anyio.lowlevel.checkpoint()
        return self.worker_runner.name

    @job(name="meet")
    async def meet(self, job: Job[Any]) -> str:
        self.meeting.come()
        await self.meeting.complete.wait()
        return self.worker_runner.name

    @job(name="stream")
    async def streams(self, job: Job[Any]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number


@asynccontextmanager
async def runners(url: str, **workers: BaseWorker) -> AsyncGenerator[None]:
    async with AsyncExitStack() as stack:
        for label, worker in workers.items():
            runner = WorkerRunner(label, open_bus(url), handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(worker)
            await stack.enter_async_context(runner)
        yield


async def test_g32_replicas_share_jobs_and_a_stream_arrives_in_order(redis_broker: RedisBroker) -> None:
    runs: Counter[int] = Counter()
    meeting = Meeting(8)
    replicas = {label: Performer("performer", runs, meeting) for label in ("left", "right")}
    async with (
        runners(redis_broker.url, **replicas),
        Client(redis_broker.url) as client,
    ):
        assert await client.request("performer", {"any": b"\xff"}, name="echo", timeout=60) == {"any": b"\xff"}
        answers = await client.gather("performer", range(200), name="where", max_concurrency=40, timeout=60)
        assert runs == Counter(range(200))
        assert not {*answers} - {"left", "right"}
        met = await client.gather("performer", [None] * 8, name="meet", timeout=60)
        assert Counter(met) == {"left": 4, "right": 4}, "each replica runs as many at once as it can"
        async with client.job("performer", name="stream", payload=2000, timeout=60) as streaming:
            seen = [event.data async for event in streaming if event.type == event.STREAM_DATA]
        assert seen == list(range(2000))


async def test_g37_nothing_is_lost_when_the_broker_is_killed_under_load(redis_broker: RedisBroker) -> None:
    runs: Counter[int] = Counter()
    crashes = {400: anyio.Event(), 900: anyio.Event()}

    async def crash(moment: anyio.Event) -> None:
        await moment.wait()
        await anyio.to_thread.run_sync(redis_broker.kill)
        await anyio.to_thread.run_sync(redis_broker.start)

    def payloads() -> Iterator[int]:
        for number in range(1500):
            if number in crashes:
                crashes[number].set()
            yield number

    async with (
        runners(redis_broker.url, left=Performer("performer", runs)),
        Client(redis_broker.url) as client,
        anyio.create_task_group() as tasks,
    ):
        for moment in crashes.values():
            tasks.start_soon(crash, moment)
        answers = await client.gather("performer", payloads(), name="where", max_concurrency=50, timeout=100)
    assert Counter(answers) == {"left": 1500}
    assert runs == Counter(range(1500)), "a job that was under way goes on and is not run again"


async def test_g37_a_broker_that_is_down_at_the_start_is_waited_for() -> None:
    broker = RedisBroker()
    bus = RedisBus(broker.url)
    told: list[str] = []
    away = anyio.Event()

    @bus.event_handler("on_disconnected")
    def on_disconnected(_bus: RedisBus) -> None:
        told.append("disconnected")
        away.set()

    @bus.event_handler("on_connected")
    def on_connected(_bus: RedisBus) -> None:
        told.append("connected")

    async def come() -> None:
        await away.wait()
        await anyio.to_thread.run_sync(broker.start)

    try:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(come)
                async with Client(bus), runners(broker.url, left=Performer("performer")):
                    assert told == ["disconnected", "connected"]
    finally:
        broker.close()


async def test_the_bus_works_again_on_a_server_that_came_back_empty(redis_broker: RedisBroker) -> None:
    async with runners(redis_broker.url, left=Performer("performer")), Client(redis_broker.url) as client:
        assert await client.request("performer", 1, name="echo", timeout=60) == 1
        other = RedisTransport(redis_broker.url)
        await other.open("other#1")
        await other._writer.checked([("FLUSHALL",)])
        await other.close()
        with anyio.fail_after(60):
            answer = None
            while answer != 2:  # what was on its way is gone with the server's memory
                answer = (await client.gather("performer", [2], name="echo", timeout=3))[0]


async def test_g37_who_waits_for_a_job_that_its_server_has_lost_is_told(redis_broker: RedisBroker) -> None:
    async with (
        runners(redis_broker.url, left=Performer("performer", meeting=Meeting(2))),
        Client(redis_broker.url) as client,
    ):
        assert await client.request("performer", 1, name="echo", timeout=60) == 1
        other = RedisTransport(redis_broker.url)
        await other.open("other#1")
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_flush, other)
            with anyio.fail_after(60), pytest.raises(JobError, match="the network lost what it had stored"):
                await client.request("performer", None, name="meet")
        await other.close()


@pytest.mark.parametrize("names", [("left",), ("left", "right")], ids=["to the same", "to another"])
async def test_g33_a_job_is_answered_although_its_server_forgets_that_it_was_claimed_and_gives_it_out_again(
    redis_broker: RedisBroker, names: tuple[str, ...]
) -> None:
    meeting = Meeting(3)
    answers: list[str] = []

    async def ask() -> None:
        answers.append(await client.request("performer", None, name="meet"))

    async with AsyncExitStack() as stack:
        for label in names:
            runner = WorkerRunner(label, RedisBus(redis_broker.url, ack_wait=2.0), handle_sigint=False)
            await runner.add_workers(Performer("performer", meeting=meeting))
            await stack.enter_async_context(runner)
        client = await stack.enter_async_context(Client(RedisBus(redis_broker.url, ack_wait=2.0)))
        other = RedisTransport(redis_broker.url)
        await other.open("other#1")
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await meeting.begun.wait()
                # As after a loss of power, before the server had written the claim to its disk, but not the job.
                await other._writer.checked([("XGROUP", "DESTROY", "actorbus:queue:performer", "actorbus")])
                await anyio.sleep(5)
                meeting.complete.set()
        await other.close()
    assert len(answers) == 1


async def _flush(transport: RedisTransport) -> None:
    await anyio.sleep(2)
    await transport._writer.checked([("FLUSHALL",)])


async def test_g33_a_job_whose_process_is_killed_is_done_by_another(redis_broker: RedisBroker) -> None:
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await client.request("performer", 1, name="do", job_id="j", timeout=60))

    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(RedisBus(redis_broker.url, ack_wait=2.0)))
            stuck = await stack.enter_async_context(ready("performer", redis_broker.url, "stuck"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                assert await next_line(stuck) == "begun j 1"
                healthy = await stack.enter_async_context(ready("performer", redis_broker.url, "healthy"))
                stuck.kill()
                assert await next_line(healthy) == "begun j 2"
    assert answers == [{"by": "healthy", "attempt": 2, "payload": 1}]


async def test_a_process_of_the_same_consumer_id_goes_on_with_what_its_last_life_claimed(
    redis_broker: RedisBroker,
) -> None:
    first = RedisTransport(redis_broker.url, ack_wait=1000.0, consumer_id="me")
    await first.open("runner#1")
    first.demand("work", 1)
    await first.send([Outgoing("queue", "work", "1", b"job")])
    assert [delivery.attempt for delivery in await first.receive()] == [1]
    for link in (first._reader, first._writer):  # it dies
        await link.close()
    second = RedisTransport(redis_broker.url, ack_wait=1000.0, consumer_id="me")
    await second.open("runner#2")
    second.demand("work", 1)
    assert [(delivery.body, delivery.attempt) for delivery in await second.receive()] == [(b"job", 2)]
    await second.close()


async def test_g45_a_node_that_serves_many_queues_hears_of_each(redis_broker: RedisBroker) -> None:
    sender, node = RedisTransport(redis_broker.url), RedisTransport(redis_broker.url, ack_wait=3.0)
    await sender.open("sender#1")
    await node.open("node#1")
    queues = [f"queue{number}" for number in range(50)]

    async def take(attempt: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for queue in queues:
            node.demand(queue, 5)
        while len(taken) < len(queues):
            taken += await node.receive()
        assert sorted((claim.queue, claim.attempt) for claim in taken) == sorted((queue, attempt) for queue in queues)
        return taken

    with anyio.fail_after(60):
        await node.receive()
        for turn in range(2):  # in order, so that each is one that was not used lately
            await sender.send([Outgoing("queue", queue, f"{queue}-{turn}", queue.encode()) for queue in queues])
            await node.settle([(claim, Settlement.ACK) for claim in await take(1)])
        assert len(node._queues.watched.polled) < len(queues)
        await sender.send([Outgoing("queue", queue, f"{queue}-last", queue.encode()) for queue in queues])
        await node.settle([(claim, Settlement.NAK) for claim in await take(1)])
        await take(2)
        await take(3)  # as their leases end
    await node.close()
    (keys,) = await sender._writer.checked([("KEYS", "actorbus:bells:*")])
    assert keys == []
    await sender.close()


async def test_g36_what_was_given_up_is_kept_with_the_history_of_its_claims(redis_broker: RedisBroker) -> None:
    transport = RedisTransport(redis_broker.url, namespace="mine")
    await transport.open("runner#1")
    await transport.send([Outgoing("queue", "work", "1", b"poison"), Outgoing("queue", "other", "2", b"worse")])
    transport.demand("other", 1)
    (delivery,) = await transport.receive()
    await transport.settle([(delivery, Settlement.TERM)])
    for how in (Settlement.NAK, Settlement.NAK, Settlement.TERM):
        transport.demand("work", 1)
        (delivery,) = await transport.receive()
        assert await transport.settle([(delivery, how)]) == [True]
    _, letter = await transport.dead_frames.oldest(10)
    assert [line.partition(" at ")[0] for line in letter.history] == [
        "attempt 1 on runner#1: given back",
        "attempt 2 on runner#1: given back",
        "attempt 3 on runner#1: given up",
    ]
    await transport.close()


async def test_a_server_that_keeps_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with RedisBroker(persistent=False) as broker:
        transport = RedisTransport(broker.url)
        await transport.open("runner#1")
        await transport.close()
    assert [record.getMessage() for record in caplog.records if "appendonly yes" in record.getMessage()]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_is_refused_by_name() -> None:
    with pytest.raises(BusError, match="needs asyncio"):
        await RedisBus("redis://127.0.0.1:1").start()


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(open_bus("redis://user:secret@127.0.0.1:1/0"))
    with pytest.raises(ValueError, match=r"^'http://\*\*\*@host/' is not the URL of a server"):
        RedisTransport("http://user:secret@host/")
