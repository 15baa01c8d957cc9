"""The limits over Redis: the shortest honest programs with redis-py, without names, deadlines, leases or signatures.

At least once, as the package has it: jobs in a stream with a consumer group, acknowledged and deleted once their answer
is in the stream of the requester. At most once: publish and subscribe.
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
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from benchmarks.sizes import BATCH, FEW_IN_FLIGHT, PAYLOAD

JOBS, GROUP, BLOCK = "bare:jobs", "workers", 2000
KEPT = 20_000
"""Answers a requester's stream holds at least: more than are ever under way."""

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


async def serve(url: str, delivery: str) -> None:
    """Do jobs until killed."""
    async with _connected(url) as redis:
        if delivery == "at_most_once":
            await _serve_subscribed(redis)
        try:
            await redis.xgroup_create(JOBS, GROUP, "0", mkstream=True)
        except ResponseError:
            pass  # the other worker was faster
        print("ready", flush=True)
        consumer = token_hex(4)
        while True:
            for _, entries in await redis.xreadgroup(GROUP, consumer, {JOBS: ">"}, count=100, block=BLOCK):
                async with redis.pipeline(transaction=False) as answers:
                    for _, fields in entries:
                        to, job = fields[b"to"], fields[b"job"]
                        payload = _decode(fields[b"payload"])
                        if isinstance(payload, int):
                            await _stream(redis, to, payload)
                        answer = {"job": job, "answer": _encode(payload)}
                        answers.xadd(to, answer, maxlen=KEPT, approximate=True)
                    done = [entry for entry, _ in entries]
                    answers.xack(JOBS, GROUP, *done)
                    answers.xdel(JOBS, *done)
                    await answers.execute()


async def sequential(url: str, count: int, delivery: str) -> float:
    """Jobs per second, one after the other."""
    if delivery == "at_most_once":
        return await _sequential_subscribed(url, count)
    me, last = f"bare:{token_hex(4)}", b"0"
    async with _connected(url) as redis:

        async def ask(payload: Any) -> Any:
            nonlocal last
            await redis.xadd(JOBS, {"to": me, "job": "1", "payload": _encode(payload)})
            while not (read := await redis.xread({me: last}, block=BLOCK)):
                pass
            ((_, ((last, fields),)),) = read
            return _decode(fields[b"answer"])

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
    """Chunks per second of one job's stream, sent in pipelines, without any credit."""
    me, last = f"bare:{token_hex(4)}", b"0"
    async with _connected(url) as redis:
        begin = perf_counter()
        await redis.xadd(JOBS, {"to": me, "job": "1", "payload": _encode(count)})
        chunks = 0
        while True:
            for _, entries in await redis.xread({me: last}, block=BLOCK):
                for last, fields in entries:  # noqa: B007 - where to read on
                    if b"chunk" not in fields:
                        assert chunks == count
                        return count / (perf_counter() - begin)
                    _decode(fields[b"chunk"])
                    chunks += 1


def _connected(url: str) -> Redis:
    # The time-out that is the default costs a third of the speed, and swallows cancellations on Python 3.11.
    return Redis.from_url(url, socket_timeout=None)


async def _stream(redis: Redis, to: bytes, count: int) -> None:
    for first in range(0, count, BATCH):
        async with redis.pipeline(transaction=False) as chunks:
            for number in range(first, min(first + BATCH, count)):
                chunks.xadd(to, {"chunk": _encode({"n": number})}, maxlen=KEPT, approximate=True)
            await chunks.execute()


@asynccontextmanager
async def _asker(url: str, delivery: str) -> AsyncIterator[Any]:
    """Asks for jobs: what waits goes out in one pipeline, one task reads all answers."""
    me, numbers = f"bare:{token_hex(4)}", count()
    waiting: dict[bytes, asyncio.Future[Any]] = {}
    unsent: list[tuple[bytes, bytes]] = []
    news = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def write(redis: Redis) -> None:
        while True:
            await news.wait()
            news.clear()
            while unsent:
                async with redis.pipeline(transaction=False) as jobs:
                    for job, payload in unsent[:BATCH]:
                        if delivery == "at_most_once":
                            jobs.publish(JOBS, _encode((me, job, payload)))
                        else:
                            jobs.xadd(JOBS, {"to": me, "job": job, "payload": payload})
                    del unsent[:BATCH]
                    await jobs.execute()

    async def read(redis: Redis) -> None:
        last = b"0"
        while True:
            for _, entries in await redis.xread({me: last}, block=BLOCK):
                for last, fields in entries:  # noqa: B007 - where to read on
                    waiting.pop(fields[b"job"]).set_result(_decode(fields[b"answer"]))

    async def hear(redis: Redis) -> None:
        async with redis.pubsub() as answers:
            await answers.subscribe(me)
            async for message in answers.listen():
                if message["type"] == "message":
                    job, payload = _decode(message["data"])
                    waiting.pop(job).set_result(payload)

    def ask(payload: Any) -> asyncio.Future[Any]:
        job = b"%d" % next(numbers)
        answer = waiting[job] = loop.create_future()
        unsent.append((job, _encode(payload)))
        news.set()
        return answer

    async with _connected(url) as redis:
        tasks = [asyncio.create_task(write(redis))]
        tasks.append(asyncio.create_task(hear(redis) if delivery == "at_most_once" else read(redis)))
        if delivery == "at_most_once":
            while not (await redis.pubsub_numsub(me))[0][1]:
                await asyncio.sleep(0)
        try:
            yield ask
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _serve_subscribed(redis: Redis) -> None:
    async with redis.pubsub() as jobs:
        await jobs.subscribe(JOBS)
        print("ready", flush=True)
        async for message in jobs.listen():
            if message["type"] == "message":
                to, job, payload = _decode(message["data"])
                await redis.publish(to, _encode((job, _decode(payload))))


async def _sequential_subscribed(url: str, count: int) -> float:
    me = f"bare:{token_hex(4)}"
    async with _connected(url) as redis, redis.pubsub() as answers:
        await answers.subscribe(me)
        heard = answers.listen()
        await anext(heard)

        async def ask() -> None:
            await redis.publish(JOBS, _encode((me, b"1", _encode(PAYLOAD))))
            _decode((await anext(heard))["data"])

        await ask()
        begin = perf_counter()
        for _ in range(count):
            await ask()
        return count / (perf_counter() - begin)
