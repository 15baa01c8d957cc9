"""What is opened in one task is closed in another: fixtures, lifespans, notebooks, exit stacks: G52."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import BaseWorker, Client, RunnerStateError, WorkerRunner, function, job
from actors.runner.runner import core_of_runner
from actors.worker.verbs import core_of
from bus import AsyncQueueBus, BusError, open_bus
from tests.support.workers import Asker, Performer, quiet


class Echo(BaseWorker):
    @job
    async def echo(self, value: int | str) -> int | str:
        return value


URLS = ("memory://", "memory://fleet-of-other-tasks")


@asynccontextmanager
async def fleet(url: str) -> AsyncGenerator[Client]:
    async with quiet(bus=open_bus(url)) as runner, Client(runner) as client:
        await runner.add_workers(Echo("echo"))
        yield client


async def in_a_task_of_its_own(function: Callable[[], Awaitable[Any]]) -> Any:
    result: list[Any] = []

    async def call() -> None:
        result.append(await function())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
    return result[0]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("eager", [False, True] if hasattr(asyncio, "eager_task_factory") else [False])
def test_g52_every_step_may_be_a_task_of_its_own_as_with_cells_and_fixtures(url: str, eager: bool) -> None:
    with asyncio.Runner() as cells:
        if eager:
            cells.get_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        for _ in range(2):
            context = fleet(url)
            client = cells.run(context.__aenter__())
            assert cells.run(client.request("echo", 1, name="echo")) == 1
            cells.run(context.__aexit__(None, None, None))
        assert not asyncio.all_tasks(cells.get_loop())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("url", URLS)
async def test_g52_a_stack_that_one_task_fills_and_another_closes_cancels_neither(url: str) -> None:
    stack = AsyncExitStack()
    client = await in_a_task_of_its_own(lambda: stack.enter_async_context(fleet(url)))
    assert await client.request("echo", "a", name="echo") == "a"
    await in_a_task_of_its_own(stack.aclose)
    await anyio.wait_all_tasks_blocked()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_g52_blocks_may_be_left_in_any_order_and_inside_scopes_that_are_gone() -> None:
    first, second = quiet("first"), quiet("second")
    async with anyio.create_task_group():
        await first.__aenter__()
    with anyio.move_on_after(60):
        await second.__aenter__()
    await first.add_workers(Echo("echo"))
    async with Client(first) as client:
        assert await client.request("echo", 1, name="echo") == 1
    await first.__aexit__(None, None, None)
    assert second.running
    await second.__aexit__(None, None, None)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_g52_who_has_entered_is_not_cancelled_when_another_leaves() -> None:
    runner, left = quiet(), anyio.Event()

    async def enter() -> str:
        await runner.__aenter__()
        await left.wait()
        return "goes on"

    async def leave() -> None:
        await anyio.wait_all_tasks_blocked()
        await runner.__aexit__(None, None, None)
        left.set()

    assert (await asyncio.gather(enter(), leave()))[0] == "goes on"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_g52_on_trio_the_task_that_has_entered_leaves_and_another_is_told_so() -> None:
    runner, worker = quiet("runner"), BaseWorker("worker")
    async with runner:
        await runner.add_workers(worker)

        async def leave() -> None:
            with pytest.raises(RunnerStateError, match=r"'runner' has ended, but on trio .* start runner\.run in a"):
                await runner.__aexit__(None, None, None)

        await in_a_task_of_its_own(leave)
        assert core_of(worker).state.name == "STOPPED"


@pytest.mark.anyio
@pytest.mark.parametrize("url", URLS)
async def test_g52_a_bus_is_started_in_one_task_and_stopped_in_another(url: str) -> None:
    bus = open_bus(url)
    for _ in range(2):
        await in_a_task_of_its_own(bus.start)
        assert bus.started
        await in_a_task_of_its_own(bus.stop)
        assert not bus.started


@pytest.mark.anyio
@pytest.mark.parametrize("url", URLS)
async def test_g52_a_bus_that_many_tasks_start_at_once_is_started_once(url: str) -> None:
    bus = open_bus(url)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(bus.start)
    assert bus.started
    await bus.stop()
    assert not bus.started


@pytest.mark.anyio
async def test_a_bus_that_was_started_for_runners_stops_with_the_last_of_them() -> None:
    bus, worker, leave = AsyncQueueBus(), Performer("worker"), anyio.Event()

    async def first() -> None:
        async with Client(bus):
            await leave.wait()

    second = quiet(bus=bus)
    await second.add_workers(worker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(second.run)
        async with Client(bus) as third:
            assert await third.request("worker", 1, name="echo") == 1
            leave.set()
            await anyio.wait_all_tasks_blocked()
            assert await third.request("worker", 2, name="echo") == 2
        assert bus.started
        await second.end()
    assert not bus.started


@pytest.mark.anyio
async def test_runners_that_start_at_once_on_a_bus_that_nobody_has_started_share_it() -> None:
    bus, asker = AsyncQueueBus(), Asker()
    first, second = quiet(bus=bus), quiet(bus=bus)
    await first.add_workers(asker)
    await second.add_workers(Performer("worker"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.run)
        tasks.start_soon(second.run)
        await anyio.wait_all_tasks_blocked()
        assert await asker.job("worker", name="echo", payload=1) == 1
        await first.end()
        await anyio.wait_all_tasks_blocked()
        assert bus.started
        await second.end()
    assert not bus.started


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_start_that_is_cut_short_leaves_a_bus_that_can_be_started_and_stopped() -> None:
    bus = AsyncQueueBus()
    starting = asyncio.create_task(bus.start())
    await anyio.lowlevel.checkpoint()
    starting.cancel()
    await asyncio.wait([starting])
    await bus.start()
    assert bus.started
    await bus.stop()
    assert not bus.started


VERBS: dict[str, Callable[[WorkerRunner, Client], Awaitable[Any]]] = {
    "request": lambda _runner, client: client.request("echo", 1, name="echo"),
    "gather": lambda _runner, client: client.gather("echo", [1], name="echo"),
    "leave the client": lambda _runner, client: client.__aexit__(None, None, None),
    "add_workers": lambda runner, _client: runner.add_workers(BaseWorker("other")),
    "supervise": lambda runner, _client: runner.supervise(lambda: BaseWorker("other")),
    "remove_worker": lambda runner, _client: runner.remove_worker("echo"),
    "end": lambda runner, _client: runner.end(),
    "cancel": lambda runner, _client: runner.cancel(),
    "leave": lambda runner, _client: runner.__aexit__(None, None, None),
}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("verb", [each for each in VERBS if each != "leave the client"])
async def test_g52_who_uses_a_runner_in_another_loop_is_told_so_and_changes_nothing(verb: str) -> None:
    told: list[str] = []

    async with quiet("runner") as runner, Client(runner) as client:
        await runner.add_workers(Echo("echo"))

        async def use() -> None:
            with pytest.raises(RunnerStateError, match="'runner' lives in another event loop: use it in") as no:
                await VERBS[verb](runner, client)
            told.append(str(no.value))

        thread = threading.Thread(target=asyncio.run, args=(use(),))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert told
        assert await client.request("echo", 1, name="echo") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_g52_who_uses_a_runner_whose_loop_is_closed_is_told_so(verb: str) -> None:
    async def begin() -> tuple[WorkerRunner, Client]:
        runner = await quiet("runner").__aenter__()
        await runner.add_workers(Echo("echo"))
        return runner, await Client(runner).__aenter__()

    async def use() -> None:
        await VERBS[verb](runner, client)

    runner, client = asyncio.run(begin())
    assert not runner.running
    if verb == "leave the client":  # it has only stopped its own worker
        asyncio.run(use())
        return
    with pytest.raises(RunnerStateError, match="'runner' lived in an event loop that is closed: use it in"):
        asyncio.run(use())


def test_g52_a_bus_whose_loop_is_closed_is_stopped_and_serves_the_next() -> None:
    bus = AsyncQueueBus()
    asyncio.run(bus.start())
    assert not bus.started
    asyncio.run(bus.stop())

    async def ask() -> Any:
        async with quiet(bus=bus) as runner, Client(runner) as client:
            await runner.add_workers(Echo("echo"))
            return await client.request("echo", 1, name="echo")

    assert [asyncio.run(ask()) for _ in range(2)] == [1, 1]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_g52_a_bus_of_another_loop_is_refused() -> None:
    refused = []

    async with quiet() as runner:

        async def use() -> None:
            with pytest.raises(BusError, match="it runs in another event loop"):
                await quiet(bus=runner.bus).run()
            with pytest.raises(BusError, match="it runs in another event loop"):
                await runner.bus.stop()
            refused.append(True)

        thread = threading.Thread(target=asyncio.run, args=(use(),))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert runner.running
    assert refused


@pytest.mark.anyio
async def test_an_option_is_only_taken_from_a_runner_that_is_new() -> None:
    runner = quiet()
    await runner.add_workers(Performer("worker"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()
        for again in (lambda: runner.run(auto_end=False), runner.__aenter__):
            with pytest.raises(RunnerStateError, match="has been run before"):
                await again()
        assert core_of_runner(runner).auto_end
        await runner.remove_worker("worker")  # the last one


@function()
async def shout(text: str) -> str:
    return text.upper()


def test_g52_runners_nest_and_each_thread_has_loops_of_its_own() -> None:
    async def nested() -> Any:
        async with quiet("outer") as outer, Client(outer) as client:
            await outer.add_workers(shout)
            async with quiet("inner") as inner, Client(inner) as other:
                await inner.add_workers(shout)
                return await client.request("shout", "a"), await other.request("shout", "b")

    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(asyncio.run(nested()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [("A", "B")] * 3
