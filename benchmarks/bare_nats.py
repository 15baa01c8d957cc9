"""The limits over NATS: the shortest honest programs with nats-py, without names, deadlines, leases or signatures.

At least once, as the package has it: jobs in a work-queue stream on the server's disk, pulled, acknowledged once their
answer is on the disk too, in the requester's subject of a second stream. At most once: `request`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from secrets import token_hex
from time import perf_counter
from typing import Any

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from benchmarks.sizes import FEW_IN_FLIGHT, PAYLOAD, TIMEOUT

JOBS, ANSWERS = "bare_jobs", "bare_answers"

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


async def serve(url: str, delivery: str) -> None:
    """Do jobs until killed."""
    client = await nats.connect(url)
    if delivery == "at_most_once":

        async def answer(message: Msg) -> None:
            await message.respond(_encode(_decode(message.data)))

        await client.subscribe(JOBS, "workers", cb=answer)
        await client.flush()
        print("ready", flush=True)
        await asyncio.Event().wait()
    await _pull(client)


async def sequential(url: str, count: int, delivery: str) -> float:
    """Jobs per second, one after the other."""
    async with _asker(url, delivery) as ask:
        await ask(PAYLOAD)
        begin = perf_counter()
        for _ in range(count):
            await ask(PAYLOAD)
        return count / (perf_counter() - begin)


async def in_flight(url: str, count: int, delivery: str) -> float:
    """Jobs per second of a hundred requesters, each of which asks again as soon as it is answered."""
    async with _asker(url, delivery) as ask:

        async def requester(rounds: int) -> None:
            for _ in range(rounds):
                await ask(PAYLOAD)

        await asyncio.gather(*(requester(1) for _ in range(FEW_IN_FLIGHT)))
        begin = perf_counter()
        await asyncio.gather(*(requester(count // FEW_IN_FLIGHT) for _ in range(FEW_IN_FLIGHT)))
        return count / (perf_counter() - begin)


async def shared(url: str, count: int, delivery: str) -> float:
    """Jobs per second from the first one submitted to the last one answered, all of them submitted at once."""
    async with _asker(url, delivery) as ask:
        await ask(PAYLOAD)
        begin = perf_counter()
        await asyncio.gather(*(ask(PAYLOAD) for _ in range(count)))
        return count / (perf_counter() - begin)


async def stream(url: str, count: int, _delivery: str) -> float:
    """Chunks per second of one job's stream, published by core NATS without any credit."""
    client = await nats.connect(url)
    subject, chunks, complete = client.new_inbox(), 0, asyncio.Event()

    async def arrived(message: Msg) -> None:
        nonlocal chunks
        _decode(message.data)
        chunks += 1
        if chunks == count:
            complete.set()

    await client.subscribe(subject, cb=arrived)
    await client.flush()
    begin = perf_counter()
    await client.jetstream().publish(JOBS, _encode((subject, 0, count)))
    await complete.wait()
    rate = count / (perf_counter() - begin)
    await client.close()
    return rate


async def _pull(client: Client) -> None:
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(JOBS, subjects=[JOBS], retention=RetentionPolicy.WORK_QUEUE))
    await stream.add_stream(StreamConfig(ANSWERS, subjects=[f"{ANSWERS}.*"], max_age=60))
    jobs = await stream.pull_subscribe(JOBS, "workers", config=ConsumerConfig(max_ack_pending=-1))
    print("ready", flush=True)
    while True:
        try:
            messages = await jobs.fetch(FEW_IN_FLIGHT, timeout=2)
        except TimeoutError:
            continue
        stored = []
        for message in messages:
            to, job, payload = _decode(message.data)
            if isinstance(payload, int):
                for number in range(payload):
                    await client.publish(to, _encode({"n": number}))
            else:
                stored.append(await stream.publish_async(f"{ANSWERS}.{to}", _encode((job, payload))))
        await asyncio.gather(*stored)
        for message in messages:
            await message.ack()


@asynccontextmanager
async def _asker(url: str, delivery: str) -> AsyncIterator[Any]:
    client = await nats.connect(url)
    stream = client.jetstream()
    me, numbers = token_hex(4), count()
    waiting: dict[int, asyncio.Future[Any]] = {}
    loop = asyncio.get_running_loop()

    async def request(payload: Any) -> Any:
        return _decode((await client.request(JOBS, _encode(payload), timeout=TIMEOUT)).data)

    async def arrived(message: Msg) -> None:
        job, payload = _decode(message.data)
        waiting.pop(job).set_result(payload)

    async def ask(payload: Any) -> Any:
        job = next(numbers)
        answer = waiting[job] = loop.create_future()
        await stream.publish(JOBS, _encode((me, job, payload)))
        return await answer

    if delivery != "at_most_once":
        await stream.subscribe(f"{ANSWERS}.{me}", ordered_consumer=True, cb=arrived)
        await client.flush()
    try:
        yield request if delivery == "at_most_once" else ask
    finally:
        await client.close()
