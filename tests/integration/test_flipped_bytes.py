"""A link that changes bytes, in both directions: connections come and go, and whoever is at its ends works on."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import anyio
import pytest

from actors import BaseWorker, Client, JobError, WorkerRunner, job
from bus import open_bus
from bus.brokers import NatsBroker, RedisBroker
from tests.chaos.proxy import Proxy
from tests.integration.programs.fleet_worker import QUICK

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

FLIPS = 12
"""Changed bytes on each link after which they pass unchanged again."""


class Measurer(BaseWorker):
    max_concurrency = 20

    @job
    async def measure(self, text: str) -> int:
        await anyio.lowlevel.checkpoint()
        return len(text)


async def _survive(broker: RedisBroker | NatsBroker, seed: int) -> None:
    rng = Random(seed)
    scheme = "redis" if isinstance(broker, RedisBroker) else "nats"
    with Proxy(broker.port, rng) as there, Proxy(broker.port, rng) as here:
        buses = [open_bus(f"{scheme}://127.0.0.1:{link.port}", **QUICK) for link in (there, here)]
        async with WorkerRunner(bus=buses[0], drain_timeout=1) as runner, Client(buses[1]) as client:
            await runner.add_workers(Measurer("measurer"))
            assert await client.request("measurer", "a", name="measure", timeout=30) == 1

            async def ask(size: int) -> None:
                with suppress(JobError):  # what was changed may be lost
                    await client.request("measurer", "a" * size, name="measure", timeout=1)

            there.flips = here.flips = 0.05
            with anyio.fail_after(60):
                while min(there.flipped, here.flipped) < FLIPS:
                    async with anyio.create_task_group() as tasks:
                        for _ in range(10):
                            tasks.start_soon(ask, rng.choice((1, 200, 30_000)))
            there.flips = here.flips = 0.0
            with anyio.fail_after(60):
                results = await client.gather(
                    "measurer", ["b" * size for size in range(50)], name="measure", timeout=55
                )
            assert results == list(range(50))


@pytest.mark.parametrize("seed", [42, 43])
async def test_g64_a_link_to_redis_that_changes_bytes_ends_nothing(redis_broker: RedisBroker, seed: int) -> None:
    await _survive(redis_broker, seed)


@pytest.mark.parametrize("seed", [42, 43])
async def test_g64_a_link_to_nats_that_changes_bytes_ends_nothing(nats_broker: NatsBroker, seed: int) -> None:
    await _survive(nats_broker, seed)
