"""Topics between runners over real brokers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors import BaseWorker, WorkerRunner, subscribe
from bus import open_bus
from bus.brokers import Broker
from tests.integration.programs.fleet_worker import QUICK

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LONGEST_WAIT = 60.0
NEWS = 1000


class Reader(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.read: list[Any] = []
        self.finished = anyio.Event()

    @subscribe("news")
    async def news(self, data: Any) -> None:
        self.read.append(data)
        if data == "end":
            self.finished.set()


async def test_what_is_published_reaches_the_followers_on_other_runners_also_over_a_restart_of_the_server(
    each_broker: Broker,
) -> None:
    writer, readers = BaseWorker("writer"), [Reader("first"), Reader("second"), Reader("second")]
    workers: dict[str, list[BaseWorker]] = {
        "a": [writer],
        "b": [*readers[:2]],
        "c": [*readers[2:]],
        "d": [BaseWorker("deaf")],
    }
    async with AsyncExitStack() as stack:
        for label, hosted in workers.items():
            bus = open_bus(each_broker.url, **QUICK)
            runner = WorkerRunner(label, bus, handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(*hosted)
            await stack.enter_async_context(runner)
        with anyio.fail_after(LONGEST_WAIT):
            known = anyio.Event()

            @writer.event_handler("on_worker_ready")
            async def on_worker_ready(_writer: BaseWorker, _data: object) -> None:
                if len(writer.registry.replicas("second")) == 2:
                    known.set()

            await writer.watch_workers("second")
            await known.wait()
            for number in range(NEWS):
                assert await writer.publish("news", number) == 0
            await anyio.to_thread.run_sync(each_broker.kill)
            for number in range(NEWS, 2 * NEWS):
                await writer.publish("news", number)
            await anyio.to_thread.run_sync(each_broker.start)
            await writer.publish("news", "end")
            for reader in readers:
                await reader.finished.wait()
    for reader in readers:
        assert reader.read == [*range(2 * NEWS), "end"]
