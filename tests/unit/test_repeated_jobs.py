"""What a runner does with a job that the network delivers again although it was done."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from actors import BaseWorker, Client, Job, WorkerRunner, job
from bus.network import NetworkBus
from bus.transport import Delivery, Outgoing, Settlement
from bus.transports.memory import MemoryBroker, MemoryTransport

pytestmark = pytest.mark.anyio


class LosesAcks(MemoryTransport):
    """Its acknowledgements of first deliveries are lost on the way."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.repeated = anyio.Event()

    async def send(self, frames: Sequence[Outgoing]) -> None:
        await super().send([replace(frame, settles=None) for frame in frames])

    async def settle(self, delivery: Delivery, how: Settlement) -> bool:
        return delivery.attempt == 1 or await super().settle(delivery, how)

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
    async with AsyncExitStack() as stack:
        runner = WorkerRunner("only", NetworkBus(transport), handle_sigint=False, handle_sigterm=False)
        await runner.add_workers(worker)
        await stack.enter_async_context(runner)
        client = await stack.enter_async_context(Client(NetworkBus(MemoryTransport(broker))))
        with anyio.fail_after(60):
            for number in (1, 2, 3):
                assert await client.job("once", name="count", timeout=60) == number
                await transport.repeated.wait()
                transport.repeated = anyio.Event()
        assert worker.ran == 3
