"""Our side of each case, written as a user would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Any

from actors import BaseWorker, Job, WorkerRunner, job
from benchmarks.sizes import FIELDS, GROUP, IN_FLIGHT, PAYLOAD, TIMEOUT


class Echo(BaseWorker):
    @job
    async def echo(self, payload: Any) -> Any:
        return payload

    @job
    async def typed(self, asked: Job[dict[str, Any]]) -> dict[str, Any]:
        return asked.payload

    @job
    async def count(self, asked: Job[int]) -> AsyncIterator[dict[str, int]]:
        for number in range(asked.payload):
            yield {"n": number}


class Requester(BaseWorker):
    pass


async def sequential(count: int, payload: Any = PAYLOAD) -> float:
    """Jobs per second, one after the other, each with a timeout, awaited."""
    requester = Requester("requester")
    async with await _running(requester, Echo("echo")):
        begin = perf_counter()
        for _ in range(count):
            await requester.job("echo", name="echo", payload=payload, timeout=TIMEOUT)
        return count / (perf_counter() - begin)


async def entered(count: int) -> float:
    """Jobs per second, one after the other, as most programs write it: a typed handler, and a block that is entered."""
    requester = Requester("requester")
    async with await _running(requester, Echo("echo")):
        begin = perf_counter()
        for _ in range(count):
            async with requester.job("echo", name="typed", payload=FIELDS, timeout=TIMEOUT) as asked:
                pass
            assert asked.response is not FIELDS
        return count / (perf_counter() - begin)


async def in_flight(count: int, idle: int = 0, payload: Any = PAYLOAD) -> float:
    """Jobs per second, a thousand asked for at once, with idle workers on the same bus."""
    worker = Requester("requester")

    async def requester() -> None:
        await worker.job("echo", name="echo", payload=payload)

    async with await _running(worker, Echo("echo"), *(Echo(f"idle-{number}") for number in range(idle))):
        await asyncio.gather(*(requester() for _ in range(IN_FLIGHT)))  # the first round is not measured
        begin = perf_counter()
        for _ in range(count // IN_FLIGHT):
            await asyncio.gather(*(requester() for _ in range(IN_FLIGHT)))
        return count / (perf_counter() - begin)


async def steady(count: int) -> float:
    """Jobs per second of a thousand requesters, each of which asks again as soon as it is answered."""
    worker = Requester("requester")

    async def requester(rounds: int) -> None:
        for _ in range(rounds):
            await worker.job("echo", name="echo", payload=PAYLOAD)

    async with await _running(worker, Echo("echo")):
        await asyncio.gather(*(requester(1) for _ in range(IN_FLIGHT)))  # the first round is not measured
        begin = perf_counter()
        await asyncio.gather(*(requester(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
        return count / (perf_counter() - begin)


async def groups(count: int, payload: Any = PAYLOAD) -> float:
    """Groups per second, each of one job on each of a hundred workers."""
    requester = Requester("requester")
    members = [f"member-{number}" for number in range(GROUP)]
    async with await _running(requester, *map(Echo, members)):
        begin = perf_counter()
        for _ in range(count):
            await requester.job_group(*members, name="echo", payload=payload)
        return count / (perf_counter() - begin)


async def stream(count: int) -> float:
    """Chunks per second of one job's stream, read by an iterator."""
    requester = Requester("requester")
    async with await _running(requester, Echo("echo")):
        begin = perf_counter()
        async with requester.job("echo", name="count", payload=count, timeout=TIMEOUT) as stream:
            chunks = 0
            async for event in stream:
                chunks += event.type == event.STREAM_DATA
        assert chunks == count
        return count / (perf_counter() - begin)


class Workers:
    """As many workers as asked for, in a runner that runs already."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._requester = Requester("requester")
        self._names: list[str] = []

    async def start(self, count: int) -> None:
        runner = await _running(self._requester)
        await self._stack.enter_async_context(runner)
        self._names = [f"idle-{number}" for number in range(count)]
        await runner.add_workers(*map(Echo, self._names))

    async def ask_each(self) -> None:
        for name in self._names:
            await self._requester.job(name, name="echo", payload=PAYLOAD)

    async def ask(self, count: int) -> None:
        for _ in range(count):
            await self._requester.job(self._names[0], name="echo", payload=PAYLOAD, timeout=TIMEOUT)

    async def stop(self) -> None:
        await self._stack.aclose()


async def _running(*workers: BaseWorker) -> WorkerRunner:
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(*workers)
    return runner
