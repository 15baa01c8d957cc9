"""What nobody waits for any more leaves real brokers, although nobody serves it."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from actors import Client
from bus import NetworkBus, open_bus
from bus.brokers import Broker
from tests.integration.programs.fleet_worker import QUICK

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LONGEST_WAIT = 60.0


async def test_g46_jobs_that_were_given_up_leave_the_queue_of_a_name_that_nobody_serves(each_broker: Broker) -> None:
    bus = open_bus(each_broker.url, **QUICK)
    assert isinstance(bus, NetworkBus)
    async with Client(bus) as client:
        waiting = bus._transport.waiting("nobody")

        async def ask(timeout: float) -> None:
            with pytest.raises(TimeoutError):
                await client.request("nobody", timeout=timeout)

        with anyio.fail_after(LONGEST_WAIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, 20.0)
                async with anyio.create_task_group() as impatient:
                    for _ in range(100):
                        impatient.start_soon(ask, 2.0)
                while len(await waiting.oldest(1000)) != 1:
                    await anyio.lowlevel.checkpoint()
            while await waiting.oldest(1000):
                await anyio.lowlevel.checkpoint()
