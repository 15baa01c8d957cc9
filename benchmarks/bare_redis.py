"""The limits over Redis: the shortest honest programs with redis-py, without names, deadlines, leases or signatures.

At least once, as the package has it: jobs in a stream with a consumer group, acknowledged and deleted once their answer
is in the stream of the requester. At most once: publish and subscribe.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from secrets import token_hex
from time import perf_counter
from typing import Any, Self

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
    redis = _connected(url)
    if delivery == "at_most_once":
        await _serve_subscribed(redis)
    with suppress(ResponseError):  # another worker was faster
        await redis.xgroup_create(JOBS, GROUP, "0", mkstream=True)
    print("ready", flush=True)
    consumer = token_hex(4)
    while True:
        for _, entries in await redis.xreadgroup(GROUP, consumer, {JOBS: ">"}, count=FEW_IN_FLIGHT, block=BLOCK):
            answers = redis.pipeline(transaction=False)
            for _, fields in entries:
                to, payload = fields[b"to"], _decode(fields[b"payload"])
                if isinstance(payload, int):
                    await _stream(redis, to, payload)
                answers.xadd(to, {"job": fields[b"job"], "answer": _encode(payload)}, maxlen=KEPT, approximate=True)
            done = [entry for entry, _ in entries]
            answers.xack(JOBS, GROUP, *done)
            answers.xdel(JOBS, *done)
            await answers.execute()


async def sequential(url: str, count: int, delivery: str) -> float:
    """Jobs per second, one after the other."""
    if delivery == "at_most_once":
        return await _sequential_subscribed(url, count)
    redis, me, last = _connected(url), f"bare:{token_hex(4)}", b"0"

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
    rate = count / (perf_counter() - begin)
    await redis.aclose()
    return rate


async def in_flight(url: str, count: int, delivery: str) -> float:
    """Jobs per second of a hundred requesters, each of which asks again as soon as it is answered."""
    async with _Asker(url, delivery) as asker:

        async def requester(rounds: int) -> None:
            for _ in range(rounds):
                await asker.ask(PAYLOAD)

        await asyncio.gather(*(requester(1) for _ in range(FEW_IN_FLIGHT)))
        begin = perf_counter()
        await asyncio.gather(*(requester(count // FEW_IN_FLIGHT) for _ in range(FEW_IN_FLIGHT)))
        return count / (perf_counter() - begin)


async def shared(url: str, count: int, delivery: str) -> float:
    """Jobs per second from the first one submitted to the last one answered, all of them submitted at once."""
    async with _Asker(url, delivery) as asker:
        await asker.ask(PAYLOAD)
        begin = perf_counter()
        await asyncio.gather(*(asker.ask(PAYLOAD) for _ in range(count)))
        return count / (perf_counter() - begin)


async def stream(url: str, count: int, _delivery: str) -> float:
    """Chunks per second of one job's stream, sent in pipelines, without any credit."""
    redis, me, last = _connected(url), f"bare:{token_hex(4)}", b"0"
    begin = perf_counter()
    await redis.xadd(JOBS, {"to": me, "job": "1", "payload": _encode(count)})
    chunks = 0
    ended = False
    while not ended:
        for _, entries in await redis.xread({me: last}, block=BLOCK):
            for _, fields in entries:
                ended = b"chunk" not in fields
                if not ended:
                    _decode(fields[b"chunk"])
                    chunks += 1
            last = entries[-1][0]
    rate = count / (perf_counter() - begin)
    assert chunks == count
    await redis.aclose()
    return rate


def _connected(url: str) -> Any:
    # The time-out that is the default costs a third of the speed, and swallows cancellations on Python 3.11.
    return Redis.from_url(url, socket_timeout=None)


async def _stream(redis: Any, to: bytes, count: int) -> None:
    for first in range(0, count, BATCH):
        chunks = redis.pipeline(transaction=False)
        for number in range(first, min(first + BATCH, count)):
            chunks.xadd(to, {"chunk": _encode({"n": number})}, maxlen=KEPT, approximate=True)
        await chunks.execute()


class _Asker:
    """Asks for jobs: what waits goes out in one pipeline, one task reads all answers."""

    def __init__(self, url: str, delivery: str) -> None:
        self._redis = _connected(url)
        self._me = f"bare:{token_hex(4)}"
        self._subscribed = delivery == "at_most_once"
        self._numbers = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[Any]] = {}
        self._unsent: list[tuple[bytes, bytes]] = []
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, payload: Any) -> asyncio.Future[Any]:
        job = b"%d" % next(self._numbers)
        answer = self._waiting[job] = asyncio.get_running_loop().create_future()
        self._unsent.append((job, _encode(payload)))
        self._news.set()
        return answer

    async def __aenter__(self) -> Self:
        if self._subscribed:
            answers = self._redis.pubsub()
            await answers.subscribe(self._me)
            await anext(heard := answers.listen())
            reading = self._hear(heard)
        else:
            reading = self._read()
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(reading)]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._redis.aclose()

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._unsent:
                jobs = self._redis.pipeline(transaction=False)
                for job, payload in self._unsent[:BATCH]:
                    if self._subscribed:
                        jobs.publish(JOBS, _encode((self._me, job, payload)))
                    else:
                        jobs.xadd(JOBS, {"to": self._me, "job": job, "payload": payload})
                del self._unsent[:BATCH]
                await jobs.execute()

    async def _read(self) -> None:
        last = b"0"
        while True:
            for _, entries in await self._redis.xread({self._me: last}, block=BLOCK):
                for _, fields in entries:
                    self._waiting.pop(fields[b"job"]).set_result(_decode(fields[b"answer"]))
                last = entries[-1][0]

    async def _hear(self, heard: AsyncIterator[Any]) -> None:
        async for message in heard:
            job, payload = _decode(message["data"])
            self._waiting.pop(job).set_result(payload)


async def _serve_subscribed(redis: Any) -> None:
    jobs = redis.pubsub()
    await jobs.subscribe(JOBS)
    heard = jobs.listen()
    await anext(heard)
    print("ready", flush=True)
    async for message in heard:
        to, job, payload = _decode(message["data"])
        await redis.publish(to, _encode((job, _decode(payload))))


async def _sequential_subscribed(url: str, count: int) -> float:
    async with _Asker(url, "at_most_once") as asker:
        await asker.ask(PAYLOAD)
        begin = perf_counter()
        for _ in range(count):
            await asker.ask(PAYLOAD)
        return count / (perf_counter() - begin)
