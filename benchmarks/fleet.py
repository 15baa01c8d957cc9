"""Our side of each case over a network, written as a user would."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Literal

import anyio

from actors import Client, WorkerRunner
from benchmarks.sizes import FEW_IN_FLIGHT, PAYLOAD, TIMEOUT
from benchmarks.system import Echo
from bus import open_bus

Delivery = Literal["at_least_once", "at_most_once"]


async def serve(url: str, _delivery: str) -> None:
    """Do jobs until killed."""
    runner = WorkerRunner(bus=open_bus(url), handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(Echo("echo"))
    async with runner:
        print("ready", flush=True)
        await anyio.sleep_forever()


async def sequential(url: str, count: int, delivery: Delivery) -> float:
    """Jobs per second, one after the other."""
    async with Client(url) as client:
        await _warm(client, delivery)
        begin = perf_counter()
        for _ in range(count):
            await client.request("echo", PAYLOAD, name="echo", timeout=TIMEOUT, delivery=delivery)
        return count / (perf_counter() - begin)


async def in_flight(url: str, count: int, delivery: Delivery) -> float:
    """Jobs per second of a hundred requesters, each of which asks again as soon as it is answered."""
    async with Client(url) as client:

        async def requester(rounds: int) -> None:
            for _ in range(rounds):
                await client.request("echo", PAYLOAD, name="echo", timeout=TIMEOUT, delivery=delivery)

        await asyncio.gather(*(requester(1) for _ in range(FEW_IN_FLIGHT)))
        begin = perf_counter()
        await asyncio.gather(*(requester(count // FEW_IN_FLIGHT) for _ in range(FEW_IN_FLIGHT)))
        return count / (perf_counter() - begin)


async def shared(url: str, count: int, delivery: Delivery) -> float:
    """Jobs per second from the first one submitted to the last one answered."""
    async with Client(url) as client:
        await _warm(client, delivery)
        begin = perf_counter()
        payloads = [PAYLOAD] * count
        answers = await client.gather("echo", payloads, name="echo", delivery=delivery)
        assert answers == payloads
        return count / (perf_counter() - begin)


async def stream(url: str, count: int, delivery: Delivery) -> float:
    """Chunks per second of one job's stream, read by an iterator."""
    async with Client(url) as client:
        await _warm(client, delivery)
        begin = perf_counter()
        async with client.job("echo", name="count", payload=count, timeout=TIMEOUT, delivery=delivery) as stream:
            chunks = 0
            async for event in stream:
                chunks += event.type == event.STREAM_DATA
        assert chunks == count
        return count / (perf_counter() - begin)


async def _warm(client: Client, delivery: Delivery) -> None:
    await client.request("echo", PAYLOAD, name="echo", timeout=TIMEOUT, delivery=delivery)
