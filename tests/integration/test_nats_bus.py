"""Programs on several runners over a real NATS server, which is killed under them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors import BaseWorker, Client, Job, WorkerRunner, job
from bus import BusError, TransportError, open_bus
from bus.brokers import NatsBroker, free_port
from bus.nats.bus import NatsBus
from bus.nats.transport import NatsTransport
from tests.integration.programs.fleet_worker import QUICK, Hanging
from tests.support.processes import next_line, ready

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LONGEST_WAIT = 60.0
KILLS = 5

namespaces = itertools.count()


class Replica(BaseWorker):
    max_concurrency = 8
    enough = False

    def __init__(self) -> None:
        super().__init__("replica")
        self.done: Counter[int] = Counter()

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.done[job.payload] += 1
        return job.payload

    @job(name="where")
    async def where(self, job: Job[Any]) -> str:
        await anyio.lowlevel.checkpoint()
        return self.worker_runner.name

    @job(name="stream")
    async def streams(self, job: Job[Any]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number

    @job(name="endless")
    async def endless(self) -> AsyncIterator[int]:
        for number in itertools.count():
            if Replica.enough:
                return
            yield number


@pytest.fixture(scope="module")
def server() -> Iterator[NatsBroker]:
    with NatsBroker() as server:
        yield server


@pytest.fixture
def namespace() -> str:
    return f"program{next(namespaces)}"


@asynccontextmanager
async def fleet(server: NatsBroker, namespace: str, *labels: str) -> AsyncIterator[tuple[Client, list[Replica]]]:
    """A client, and a runner with a replica for each label."""
    replicas = [Replica() for _ in labels]
    async with AsyncExitStack() as stack:
        for label, replica in zip(labels, replicas, strict=True):
            bus = open_bus(server.url, namespace=namespace, max_deliver=50, **QUICK)  # each death costs a delivery
            runner = WorkerRunner(label, bus, handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(replica)
            await stack.enter_async_context(runner)
        yield await stack.enter_async_context(Client(open_bus(server.url, namespace=namespace, **QUICK))), replicas


async def test_g32_a_client_reaches_both_replicas_and_reads_a_stream(server: NatsBroker, namespace: str) -> None:
    with anyio.fail_after(LONGEST_WAIT):
        async with fleet(server, namespace, "left", "right") as (client, _):
            assert await client.job("replica", name="echo", payload=1) == 1
            answers = await client.gather("replica", range(60), name="where", max_concurrency=60, timeout=60)
            assert sorted(set(answers)) == ["left", "right"]
            async with client.job("replica", name="stream", payload=2000, timeout=60) as streaming:
                seen = [event.data async for event in streaming if event.type == event.STREAM_DATA]
            assert seen == list(range(2000))


async def test_g37_a_server_killed_under_load_loses_nothing(namespace: str) -> None:
    with NatsBroker() as server, anyio.fail_after(LONGEST_WAIT):
        async with fleet(server, namespace, "left", "right") as (client, replicas):
            asked = 0
            answers: list[Any] = []
            chunks: defaultdict[int, list[int]] = defaultdict(list)

            def payloads() -> Iterator[int]:
                nonlocal asked
                while not Replica.enough:
                    asked += 1
                    yield asked

            async def ask() -> None:
                answers.extend(await client.gather("replica", payloads(), name="echo", max_concurrency=50, timeout=60))

            async def read() -> None:
                async with client.job("replica", name="endless", timeout=60) as streaming:
                    async for event in streaming:
                        if event.type == event.STREAM_DATA:
                            chunks[event.attempt].append(event.data)

            Replica.enough = False
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                tasks.start_soon(read)
                for kill in range(1, KILLS + 1):
                    while asked < 100 * kill:
                        await client.job("replica", name="echo", payload=0, timeout=60)
                    await anyio.to_thread.run_sync(server.restart)
                await client.job("replica", name="echo", payload=0, timeout=60)
                Replica.enough = True
            assert answers == list(range(1, asked + 1))
            # The server forgets what it gave out just before it is killed: the stream then begins again.
            assert all(seen == list(range(len(seen))) for seen in chunks.values())
            assert set(replicas[0].done + replicas[1].done) == set(range(asked + 1))
            assert all(replica.bus._transport.statistics().connections > 1 for replica in replicas)  # type: ignore[attr-defined]


async def test_a_server_that_comes_back_empty_works_again(namespace: str) -> None:
    with NatsBroker() as server, anyio.fail_after(LONGEST_WAIT):
        async with fleet(server, namespace, "only") as (client, _):
            assert await client.job("replica", name="echo", payload=1) == 1
            await anyio.to_thread.run_sync(server.kill)
            server.wipe()
            await anyio.to_thread.run_sync(server.start)
            assert await client.job("replica", name="echo", payload=2, timeout=60) == 2


async def test_g33_a_killed_process_leaves_its_job_to_another(server: NatsBroker) -> None:
    async with ready("fleet_worker", "victim", server.url) as victim, Client(open_bus(server.url, **QUICK)) as client:
        with anyio.fail_after(LONGEST_WAIT):
            async with client.job("hanging", name="hang", timeout=60) as asked:
                assert await next_line(victim) == "started 1"
                heir = WorkerRunner("heir", open_bus(server.url, **QUICK), handle_sigint=False, handle_sigterm=False)
                await heir.add_workers(Hanging("hanging"))
                async with heir:
                    victim.kill()
                    async for _ in asked:
                        pass
                    assert asked.response == ["heir", 2]


async def test_a_server_that_is_not_there_is_waited_for(namespace: str) -> None:
    server = NatsBroker()
    tried = anyio.Event()
    bus = NatsBus(server.url, namespace=namespace)

    @bus.event_handler("on_disconnected")
    async def on_disconnected(_bus: object) -> None:
        tried.set()

    runner = WorkerRunner("early", bus, handle_sigint=False, handle_sigterm=False)
    replica = Replica()
    await runner.add_workers(replica)
    try:
        with anyio.fail_after(LONGEST_WAIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.run)
                await tried.wait()
                await anyio.to_thread.run_sync(server.start)
                async with Client(NatsBus(server.url, namespace=namespace)) as client:
                    assert await client.job("replica", name="where", timeout=60) == "early"
                await runner.end()
    finally:
        server.close()


async def test_errors_say_what_to_do_and_no_secret() -> None:
    port = free_port()
    transport = NatsTransport(f"nats://user:secret@127.0.0.1:{port}")
    with pytest.raises(TransportError, match=rf"connecting failed at nats://\*\*\*@127.0.0.1:{port}") as refused:
        await transport.open("node#1")
    assert "secret" not in str(refused.value) + repr(transport)
    with NatsBroker("max_payload: 65536") as small:
        with pytest.raises(BusError, match="raise its max_payload, or lower max_message_bytes"):
            await NatsTransport(small.url).open("node#1")
        with pytest.raises(BusError, match="speaks no TLS"):
            await NatsTransport(small.url.replace("nats", "tls")).open("node#1")
