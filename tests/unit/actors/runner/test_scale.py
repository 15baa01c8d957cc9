"""Many workers and many jobs: nothing grows faster than they do, and nothing is left of them: G45, G46."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Job, JobError, WorkerRunner, job, subscribe, worker_ready
from actors.runner.runner import core_of_runner
from bus import WorkerReadyData
from tests.support.running import leftovers, running
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio


class Member(BaseWorker):
    """One of many: it watches, subscribes and serves, and its equality can be counted."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Member.compared += 1
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @worker_ready(name="boss")
    async def boss_is_there(self, data: WorkerReadyData) -> None: ...

    @subscribe("news")
    async def news(self, data: Any) -> None: ...

    @job(name="echo")
    async def echo(self, message: Any) -> Any:
        return message.payload


class Driven(Member):
    """One of many that run a task of their own."""

    async def run(self, params: Any) -> None:
        await self.start()
        await self.wait()


class Boss(BaseWorker):
    @job(name="echo")
    async def echo(self, message: Any) -> Any:
        return message.payload

    @job(name="stream")
    async def streams(self, job: Job[int]) -> AsyncGenerator[int]:
        for number in range(job.payload):
            yield number

    @job(name="fail")
    async def fail(self) -> None:
        raise ValueError("no")

    @job(name="sleep")
    async def sleep(self) -> None:
        await anyio.sleep_forever()

    @job(name="nested")
    async def nested(self, message: Any) -> Any:
        return await self.job(self.name, name="echo", payload=message.payload)


Phase = Callable[[WorkerRunner, Boss, list[Member]], Awaitable[None]]


async def add_roots(runner: WorkerRunner, _boss: Boss, members: list[Member]) -> None:
    await runner.add_workers(*members)
    await anyio.wait_all_tasks_blocked()


async def add_children(_runner: WorkerRunner, boss: Boss, members: list[Member]) -> None:
    await boss.add_workers(*members)
    await anyio.wait_all_tasks_blocked()


async def ask_each(_runner: WorkerRunner, boss: Boss, members: list[Member]) -> None:
    for member in members:
        assert await boss.job(member.name, name="echo", payload=1) == 1


async def ask_all(_runner: WorkerRunner, boss: Boss, members: list[Member]) -> None:
    answers = await boss.job_group(*[member.name for member in members], name="echo", payload=1)
    assert len(answers.responses) == len(members)


async def publish(_runner: WorkerRunner, boss: Boss, members: list[Member]) -> None:
    assert await boss.publish("news", 1) == len(members)
    await anyio.wait_all_tasks_blocked()


async def remove_each(runner: WorkerRunner, _boss: Boss, members: list[Member]) -> None:
    for member in members:
        await runner.remove_worker(member.name)


async def end(runner: WorkerRunner, boss: Boss, members: list[Member]) -> None:
    await runner.end()
    for worker in (*members, boss):
        await worker.wait()


@asynccontextmanager
async def counted(steps: list[int]) -> AsyncGenerator[None]:
    """Append the number of instructions of the interpreter, and of comparisons of workers outside of them."""
    instructions = 0

    def count(frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal instructions
        instructions += 1
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return count

    compared = Member.compared
    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
        steps.append(instructions + Member.compared - compared)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # counted where the order of tasks is not random
@pytest.mark.parametrize(
    ("kind", "phases"),
    [
        (Member, [add_roots, ask_each, ask_all, publish, end]),
        (Driven, [add_children, ask_each, ask_all, publish, end]),
        (Driven, [add_roots, remove_each]),
        (Member, [add_children, remove_each]),
    ],
    ids=["roots-end", "children-end", "roots-removed", "children-removed"],
)
async def test_no_phase_of_the_life_of_many_workers_has_a_quadratic_step(
    phases: list[Phase], kind: type[Member]
) -> None:
    """Thirty times the workers take thirty times the steps; one scan of all for each would make it far more."""
    few, many = [await steps_of(phases, kind, count) for count in (25, 750)]
    for phase, steps_few, steps_many in zip(phases, few, many, strict=True):
        assert steps_many < 30 * steps_few * 1.15, phase.__name__


async def steps_of(phases: list[Phase], kind: type[Member], count: int) -> list[int]:
    runner, boss, steps = quiet(), Boss("boss"), list[int]()
    await runner.add_workers(boss)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner.run(auto_end=False))
        await anyio.wait_all_tasks_blocked()
        members = [kind(f"m{number}") for number in range(count)]
        for phase in phases:
            async with counted(steps):
                await phase(runner, boss, members)
        await runner.cancel()
    return steps


@pytest.mark.parametrize("as_children", [False, True], ids=["roots", "children"])
async def test_ten_thousand_workers_start_answer_and_stop_and_leave_no_task(as_children: bool) -> None:
    boss = Boss("boss")
    async with running(boss) as runner:
        idle = core_of_runner(runner).tasks.statistics()
        before = (await leftovers(runner), runner.bus.statistics().subscribers, runner.registry.statistics())
        members: list[Member] = [(Driven if number % 2 else Member)(f"m{number}") for number in range(10_000)]
        await (add_children if as_children else add_roots)(runner, boss, members)
        assert runner.statistics().workers == 10_001
        await ask_all(runner, boss, members)
        await remove_each(runner, boss, members)
        assert before == (await leftovers(runner), runner.bus.statistics().subscribers, runner.registry.statistics())
        assert runner.statistics().workers == 1
        now = core_of_runner(runner).tasks.statistics()
        assert now.tasks - now.idle == idle.tasks - idle.idle
        assert boss.children == []


async def test_g45_the_steps_of_a_job_do_not_depend_on_how_many_other_workers_there_are() -> None:
    steps: list[int] = []
    for others in (10, 1000):
        boss = Boss("boss")
        async with running(boss, *(Member(f"m{number}") for number in range(others))):
            await boss.job("boss", name="echo")
            async with counted(steps):
                for _ in range(100):
                    await boss.job("boss", name="echo")
    assert steps[1] < steps[0] * 1.1


async def one_of_each(boss: Boss, number: int) -> int:
    """Jobs that end in every way there is; returns how many there were."""
    assert await boss.job("boss", name="echo", payload={"number": number}, timeout=60) == {"number": number}
    assert await boss.job("boss", name="nested", payload=number) == number
    assert (await boss.job_group("boss", name="echo", payload=number)).responses == {"boss": number}
    async with boss.job("boss", name="stream", payload=3) as stream:
        assert [event.data async for event in stream if event.type == event.STREAM_DATA] == [0, 1, 2]
    for name in ("fail", "unknown"):
        with pytest.raises(JobError):
            await boss.job("boss", name=name)
    for worker in ("boss", "nobody"):
        with anyio.move_on_after(0):
            await boss.job(worker, name="sleep", timeout=60)
        with pytest.raises(JobError):
            await boss.job(worker, name="sleep", timeout=0)
    return 10


async def test_g46_a_hundred_thousand_jobs_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Memory is counted in blocks of the allocator: one object kept for each job would be 50,000 of them."""
    caplog.set_level(logging.CRITICAL, logger="actorbus")  # pytest keeps what is logged of those that fail
    boss = Boss("boss")
    async with running(boss) as runner:
        empty = await leftovers(runner)
        blocks = []
        for _half in range(2):
            for number in range(250):
                await one_of_each(boss, number)
            for _ in range(500):
                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(ask, boss)
            for _ in range(37_500):
                await boss.job("boss", name="echo", payload=1)
            assert await leftovers(runner) == empty
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        assert blocks[1] - blocks[0] < 500
        assert core_of_runner(runner).tasks.statistics().tasks <= 60
        assert boss.job_groups == {}
        assert boss.active_jobs == {}


async def test_g46_workers_that_come_and_go_leave_nothing() -> None:
    """One object kept for each worker would be 1,000 blocks; tables that grow and shrink make some hundreds."""
    boss, blocks = Boss("boss"), []
    async with running(boss) as runner:
        for _half in range(2):
            for number in range(1_000):
                member = (Driven if number % 2 else Member)(f"m{number}")
                await (boss.add_workers(member) if number % 3 else runner.add_workers(member))
                assert await boss.job(member.name, name="echo", payload=1) == 1
                await runner.remove_worker(member.name)
                del member
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        assert blocks[1] - blocks[0] < 500


async def ask(boss: Boss) -> None:
    assert await boss.job("boss", name="echo", payload=1, timeout=30) == 1
