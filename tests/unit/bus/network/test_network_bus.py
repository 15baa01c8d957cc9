"""`memory://name`: several buses of one process on one network, with real queues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Client, Job, WorkerRunner, job
from bus import (
    BusAddWorkerMessage,
    BusDataMessage,
    BusError,
    BusMessage,
    NetworkBus,
    TransportError,
    open_bus,
    register_message,
)
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport

pytestmark = pytest.mark.anyio


@register_message
class Greeting(BusDataMessage):
    text: str = ""


class Replica(BaseWorker):
    max_concurrency = 2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.greetings: list[str] = []
        self.greeted = anyio.Event()

    @job(name="where")
    async def where(self, job: Job[Any]) -> str:
        await anyio.lowlevel.checkpoint()
        return self.worker_runner.name

    @job(name="stream")
    async def streams(self, job: Job[Any]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Greeting):
            self.greetings.append(message.text)
            self.greeted.set()


async def test_g32_two_runners_serve_one_name_and_a_client_reaches_both() -> None:
    url = "memory://two-replicas"
    async with AsyncExitStack() as stack:
        for label in ("left", "right"):
            runner = WorkerRunner(label, open_bus(url), handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(Replica("replica"))
            await stack.enter_async_context(runner)
        client = await stack.enter_async_context(Client(url))
        answers = await client.gather("replica", range(40), name="where", max_concurrency=40, timeout=60)
        assert sorted(set(answers)) == ["left", "right"]
        assert len(answers) == 40
        async with client.job("replica", name="stream", payload=1000, timeout=60) as streaming:
            seen = [event.data async for event in streaming if event.type == event.STREAM_DATA]
        assert seen == list(range(1000))


async def test_messages_of_users_reach_every_replica_as_equal_copies() -> None:
    url = "memory://messages"
    replicas = [Replica("replica"), Replica("replica")]
    async with AsyncExitStack() as stack:
        for label, replica in zip(("left", "right"), replicas, strict=True):
            runner = WorkerRunner(label, open_bus(url), handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(replica)
            await stack.enter_async_context(runner)
        boss = BaseWorker("boss")
        runner = WorkerRunner("third", open_bus(url), handle_sigint=False, handle_sigterm=False)
        await runner.add_workers(boss)
        await stack.enter_async_context(runner)
        known = anyio.Event()

        @boss.event_handler("on_worker_ready")
        async def on_worker_ready(_boss: BaseWorker, _data: object) -> None:
            if len(boss.registry.replicas("replica")) == 2:
                known.set()

        await boss.watch_workers("replica")
        with anyio.fail_after(60):
            await known.wait()
            await boss.send_bus_message(Greeting(source="boss", target="replica", text="hello"))
            for replica in replicas:
                await replica.greeted.wait()
        assert [replica.greetings for replica in replicas] == [["hello"], ["hello"]]


async def test_g43_what_has_both_ends_here_does_not_travel() -> None:
    boss, replica = BaseWorker("boss"), Replica("replica")
    bus = open_bus("memory://at-home")
    runner = WorkerRunner("home", bus, handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(boss, replica)
    async with runner:
        before = bus.network_statistics().outbox.sent  # type: ignore[attr-defined]
        for _ in range(50):
            assert await boss.job("replica", name="where", timeout=60) == "home"
        assert bus.network_statistics().outbox.sent - before < 10  # type: ignore[attr-defined]


async def test_a_bus_of_a_network_belongs_to_one_runner() -> None:
    bus = open_bus("memory://one-runner")
    async with WorkerRunner("first", bus, handle_sigint=False, handle_sigterm=False):
        with pytest.raises(BusError, match="give each runner a new bus"):
            await WorkerRunner("second", bus, handle_sigint=False, handle_sigterm=False).run()


async def test_g28_a_bus_that_was_stopped_starts_again_as_another_life() -> None:
    url = "memory://again"
    bus, lives = open_bus(url), []
    async with Client(url) as client:
        for _ in range(2):
            runner = WorkerRunner("home", bus, handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(Replica("replica"))
            with anyio.fail_after(60):
                async with runner:
                    lives.append(bus.address)
                    while [each.address for each in client.workers()] != [bus.address]:
                        await anyio.lowlevel.checkpoint()
                    assert await client.request("replica", name="where") == "home"
            assert bus.network_statistics().peers == 1  # type: ignore[attr-defined]  # as it was when it stopped
    assert len(set(lives)) == 2


class Unreachable(MemoryTransport):
    def __init__(self) -> None:
        super().__init__(MemoryBroker())
        self.tried = anyio.Event()

    async def open(self, node: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.tried.set()
        raise TransportError(f"{node} cannot get there")


async def test_a_bus_that_is_given_up_while_it_connects_is_not_started_and_leaves_nothing_in_its_registry() -> None:
    transport = Unreachable()
    bus = NetworkBus(transport)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.start)
            await transport.tried.wait()
            bus.give_up()
    assert not bus.started
    assert bus.network_statistics().connection.last_error.endswith("cannot get there")
    assert bus.registry._listeners == []


async def test_a_worker_object_is_added_here_and_does_not_travel() -> None:
    boss, added = BaseWorker("boss"), Replica("added")
    runner = WorkerRunner("home", open_bus("memory://objects"), handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(boss)
    async with runner:
        await boss.send_bus_message(BusAddWorkerMessage(source="boss", worker=added))
        with anyio.fail_after(60):
            assert await boss.job("added", name="where") == "home"
