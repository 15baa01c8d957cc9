"""The limits: the shortest honest asyncio program for each case, without names, hooks, errors or isolation."""

from __future__ import annotations

import asyncio
from time import perf_counter

from benchmarks.sizes import GROUP, IN_FLIGHT, PAYLOAD, TIMEOUT


async def echo(payload: dict[str, int]) -> dict[str, int]:
    return payload


async def sequential(count: int) -> float:
    """Jobs per second, one after the other, each a task with a timeout."""
    begin = perf_counter()
    for _ in range(count):
        async with asyncio.timeout(TIMEOUT):
            await asyncio.create_task(echo(PAYLOAD))
    return count / (perf_counter() - begin)


async def in_flight(count: int) -> float:
    """Jobs per second, a thousand asked for at once: each requester a task that waits for its job, which is a task."""

    async def requester() -> None:
        await asyncio.create_task(echo(PAYLOAD))

    await asyncio.gather(*(requester() for _ in range(IN_FLIGHT)))  # the first round is not measured
    begin = perf_counter()
    for _ in range(count // IN_FLIGHT):
        await asyncio.gather(*(requester() for _ in range(IN_FLIGHT)))
    return count / (perf_counter() - begin)


async def steady(count: int) -> float:
    """Jobs per second of a thousand requesters, each of which asks again as soon as it is answered."""

    async def requester(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.create_task(echo(PAYLOAD))

    await asyncio.gather(*(requester(1) for _ in range(IN_FLIGHT)))  # the first round is not measured
    begin = perf_counter()
    await asyncio.gather(*(requester(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    return count / (perf_counter() - begin)


async def groups(count: int) -> float:
    """Groups per second: for each a hundred tasks and one future."""
    loop = asyncio.get_running_loop()
    begin = perf_counter()
    for _ in range(count):
        responses: dict[int, dict[str, int]] = {}
        done = loop.create_future()

        async def member(
            number: int,
            responses: dict[int, dict[str, int]] = responses,
            done: asyncio.Future[None] = done,
        ) -> None:
            responses[number] = await echo(PAYLOAD)
            if len(responses) == GROUP:
                done.set_result(None)

        tasks = [asyncio.create_task(member(number)) for number in range(GROUP)]
        await done
        del tasks
    return count / (perf_counter() - begin)


async def stream(count: int) -> float:
    """Chunks per second through a queue of one, so that each chunk wakes its reader."""
    queue: asyncio.Queue[dict[str, int] | None] = asyncio.Queue(1)

    async def producer() -> None:
        for number in range(count):
            await queue.put({"n": number})
        await queue.put(None)

    begin = perf_counter()
    task = asyncio.create_task(producer())
    while await queue.get() is not None:
        pass
    await task
    return count / (perf_counter() - begin)


class Workers:
    """As many workers as asked for, each a task that waits at its queue."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[dict[str, int]]] = []

    async def start(self, count: int) -> None:
        self._tasks = []
        for _ in range(count):
            queue: asyncio.Queue[dict[str, int]] = asyncio.Queue()
            self._tasks.append(asyncio.create_task(queue.get()))
        await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._tasks.clear()
