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
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from benchmarks.sizes import FEW_IN_FLIGHT, PAYLOAD, TIMEOUT

JOBS, ANSWERS = "bare_jobs", "bare_answers"
PULLED = 100
"""Jobs a worker has asked for: half of them are asked for again when half have come."""

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


async def serve(url: str, delivery: str) -> None:
    """Do jobs until killed."""
    client = await nats.connect(url)
    if delivery == "at_most_once":
        await client.subscribe(JOBS, JOBS, cb=lambda message: message.respond(_encode(_decode(message.data))))
    else:
        await _pull(client)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


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
    await stream.add_consumer(JOBS, ConsumerConfig("workers", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=-1))
    inbox, came = client.new_inbox(), 0

    async def pull(batch: int) -> None:
        request = b'{"batch":%d,"expires":%d}' % (batch, 3600 * 10**9)
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{JOBS}.workers", request, inbox)

    async def arrived(message: Msg) -> None:
        nonlocal came
        came += 1
        if came % (PULLED // 2) == 0:
            await pull(PULLED // 2)
        to, job, payload = _decode(message.data)
        if isinstance(payload, int):
            for number in range(payload):
                await client.publish(to, _encode({"n": number}))
            await message.ack()
            return
        stored = await stream.publish_async(f"{ANSWERS}.{to}", _encode((job, payload)))
        stored.add_done_callback(lambda _: asyncio.ensure_future(message.ack()))

    await client.subscribe(inbox, cb=arrived)
    await pull(PULLED)


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
