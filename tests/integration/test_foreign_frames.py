"""What somebody writes past the bus into the streams of a real broker: it is refused, and the work goes on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import nats
import pytest
from redis.asyncio import Redis

from actors import BaseWorker, Client, Job, WorkerRunner, job
from bus import NetworkBus, open_bus
from bus.brokers import NatsBroker, RedisBroker
from tests.integration.programs.fleet_worker import QUICK

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

KEY = b"k" * 32
GARBAGE = (
    b"",
    b"\x00",
    b"\xff" * 40,
    b"\x93\x01\x02",
    b"\xdd\xff\xff\xff\xff",
    b"\x91\xc4\x02\x01\x00",
    bytes(100_000),
)


class Performer(BaseWorker):
    max_concurrency = 4

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        await anyio.lowlevel.checkpoint()
        return job.payload


@asynccontextmanager
async def pair(url: str) -> AsyncIterator[tuple[Client, NetworkBus]]:
    async with AsyncExitStack() as stack:
        bus = open_bus(url, signing_key=KEY, **QUICK)
        assert isinstance(bus, NetworkBus)
        runner = WorkerRunner("runner", bus, handle_sigint=False, handle_sigterm=False)
        await runner.add_workers(Performer("performer"))
        await stack.enter_async_context(runner)
        client = await stack.enter_async_context(Client(open_bus(url, signing_key=KEY, **QUICK)))
        assert await client.request("performer", 0, name="echo", timeout=60) == 0
        yield client, bus


async def works(client: Client) -> None:
    payloads = range(50)
    assert await client.gather("performer", payloads, name="echo", timeout=60) == list(payloads)


async def test_g40_garbage_in_the_streams_of_redis_is_refused_and_the_work_goes_on(redis_broker: RedisBroker) -> None:
    with anyio.fail_after(90):
        async with pair(redis_broker.url) as (client, bus), Redis(port=redis_broker.port) as redis:
            prefix, inbox = "actorbus:", f"actorbus:inbox:{bus.address}"
            for body in GARBAGE:
                entries: tuple[dict[Any, Any], ...] = (
                    {"x": b"no frame"},
                    {"b": body},
                    {"b": body, "a": b"many"},
                    {"b": body, "a": b"9" * 400},
                    {"b": body, "i": body, "h": body},
                )
                for stream in ("queue", "again"):
                    for fields in entries:
                        await redis.xadd(f"{prefix}{stream}:performer", fields)
                await redis.xadd(f"{prefix}dead", {"q": body, "h": body})
                for field in ("f", "e", "d", "n", "q", "x", body or b"y"):
                    await redis.xadd(inbox, {field: body})
                await works(client)
            while await redis.xlen(inbox) >= 10:  # what has been read is deleted a little later
                pass
            statistics = bus.network_statistics()
            assert statistics.refused.malformed >= 3 * len(GARBAGE)
            assert statistics.outbox.failures == 0
            assert await client.dead_letters.oldest(most=1000)


async def test_g40_garbage_on_the_subjects_of_nats_is_refused_and_the_work_goes_on(nats_broker: NatsBroker) -> None:
    with anyio.fail_after(90):
        async with pair(nats_broker.url) as (client, bus):
            layout = bus._transport._layout  # type: ignore[attr-defined]
            subjects = [layout.job_subject("performer"), layout.inbox_subject(bus.address), layout.everyone]
            connection = await nats.connect(nats_broker.url)
            headers: list[Any] = [None, {"Status": "100"}, {"Status": "503"}, {"Nats-Msg-Id": os.urandom(4).hex()}]
            for body in GARBAGE:
                for subject in subjects:
                    for header in headers:
                        await connection.publish(subject, body, headers=header)
                await connection.flush()
                await works(client)
            await connection.close()
            statistics = bus.network_statistics()
            assert statistics.refused.malformed >= 3 * len(GARBAGE)
            assert bus._transport.statistics().connections == 1  # type: ignore[attr-defined]
            assert await client.dead_letters.oldest(most=1000)
