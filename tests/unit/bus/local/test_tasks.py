"""Reused tasks and one-shot wake-ups: accepted work runs exactly once, and nothing leaks from one piece to the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bus.local.tasks import MAX_IDLE, PoolStatistics, Tasks, Waiter, _EventWaiter, cancelled_from_outside, wake
from tests.support.running import LONGEST_WAIT

pytestmark = pytest.mark.anyio

marker: ContextVar[object] = ContextVar("marker", default=None)


@asynccontextmanager
async def pool() -> AsyncGenerator[Tasks]:
    async with anyio.create_task_group() as task_group:
        yield Tasks(task_group)
        task_group.cancel_scope.cancel()


@pytest.fixture(params=["of the backend", "of anyio"])
def make_waiter(request: pytest.FixtureRequest) -> Callable[[Tasks], Waiter]:
    if request.param == "of anyio":
        return lambda _tasks: _EventWaiter()
    return lambda tasks: tasks.waiter()


# --- both forms of the waiter ---


async def test_a_waiter_is_woken_by_another_task(make_waiter: Callable[[Tasks], Waiter]) -> None:
    async with pool() as tasks, anyio.create_task_group() as task_group:
        waiter, woken = make_waiter(tasks), []

        async def wait() -> None:
            await waiter
            woken.append(True)

        task_group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not woken
        wake(waiter)
        await anyio.wait_all_tasks_blocked()
        assert woken


async def test_waking_a_waiter_before_anybody_waits_or_twice_is_fine(make_waiter: Callable[[Tasks], Waiter]) -> None:
    async with pool() as tasks:
        waiter = make_waiter(tasks)
        wake(waiter)
        wake(waiter)
        with anyio.fail_after(30):
            await waiter


async def test_a_waiter_that_was_cancelled_can_still_be_woken(make_waiter: Callable[[Tasks], Waiter]) -> None:
    async with pool() as tasks, anyio.create_task_group() as task_group:
        waiter, ended = make_waiter(tasks), []

        async def wait() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await waiter
            ended.append(scope.cancelled_caught)

        scopes: list[anyio.CancelScope] = []
        task_group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        assert ended == [True]
        wake(waiter)


async def test_a_waiter_that_is_woken_and_cancelled_at_once_returns_or_raises_and_the_scope_knows(
    make_waiter: Callable[[Tasks], Waiter],
) -> None:
    async with pool() as tasks, anyio.create_task_group() as task_group:
        waiter, outcomes = make_waiter(tasks), []

        async def wait() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await waiter
                outcomes.append("woken")
                await anyio.sleep_forever()
            outcomes.append("left")

        scopes: list[anyio.CancelScope] = []
        task_group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        wake(waiter)
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        assert outcomes in (["woken", "left"], ["left"])


# --- work ---


async def test_work_is_started_in_the_order_given_and_a_second_piece_reuses_the_task() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    async with pool() as tasks:
        first = tasks.start(work, 1)
        await anyio.wait_all_tasks_blocked()
        assert tasks.statistics() == PoolStatistics(tasks=1, idle=1)
        assert tasks.start(work, 2) is first
        await anyio.wait_all_tasks_blocked()
        assert done == [1, 2]
        assert tasks.statistics() == PoolStatistics(tasks=1, idle=1)


async def test_every_piece_of_work_runs_exactly_once_whatever_is_cancelled_around_it() -> None:
    ran: dict[int, int] = {}
    gate = anyio.Event()

    async def work(number: int) -> None:
        ran[number] = ran.get(number, 0) + 1
        if number % 3 == 0:
            await gate.wait()
        elif number % 3 == 1:
            await anyio.lowlevel.checkpoint()

    async with pool() as tasks:
        for number in range(300):
            handle = tasks.start(work, number)
            if number % 5 == 0:
                handle.cancel()
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert ran == dict.fromkeys(range(300), 1)
        statistics = tasks.statistics()
        assert statistics.tasks == statistics.idle


async def test_cancelling_stops_this_piece_of_work_and_not_the_next_one() -> None:
    seen: list[str] = []

    async def sleepy(_: object) -> None:
        try:
            await anyio.sleep_forever()
        except BaseException:
            seen.append("cancelled")
            raise

    async def quick(_: object) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append("quick")

    async with pool() as tasks:
        handle = tasks.start(sleepy, None)
        await anyio.wait_all_tasks_blocked()
        handle.cancel()
        tasks.start(quick, None)
        await anyio.wait_all_tasks_blocked()
        tasks.start(quick, None)
        await anyio.wait_all_tasks_blocked()
        assert seen == ["cancelled", "quick", "quick"]


async def test_work_cancelled_between_its_start_and_its_first_step_still_starts() -> None:
    seen: list[str] = []

    async def work(_: object) -> None:
        seen.append("started")
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            seen.append("cancelled")
            raise

    async with pool() as tasks:
        tasks.start(work, None).cancel()  # in a new task
        await anyio.wait_all_tasks_blocked()
        assert seen == ["started", "cancelled"]
        seen.clear()

        async def nothing(_: object) -> None:
            pass

        tasks.start(nothing, None)
        await anyio.wait_all_tasks_blocked()
        assert tasks.statistics().idle == 1
        tasks.start(work, None).cancel()  # in a reused one
        await anyio.wait_all_tasks_blocked()
        assert seen == ["started", "cancelled"]


async def test_idle_tasks_are_kept_up_to_a_bound() -> None:
    gate = anyio.Event()

    async def wait(_: object) -> None:
        await gate.wait()

    async with pool() as tasks:
        for _ in range(MAX_IDLE + 100):
            tasks.start(wait, None)
        await anyio.wait_all_tasks_blocked()
        assert tasks.statistics() == PoolStatistics(tasks=MAX_IDLE + 100, idle=0)
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert tasks.statistics() == PoolStatistics(tasks=MAX_IDLE, idle=MAX_IDLE)


async def test_a_group_that_is_cancelled_lets_work_that_was_just_accepted_see_it() -> None:
    seen: list[str] = []

    async def nothing(_: object) -> None:
        pass

    async def work(_: object) -> None:
        seen.append("started")
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(f"from outside: {cancelled_from_outside()}")

    async with anyio.create_task_group() as task_group:
        tasks = Tasks(task_group)
        tasks.start(nothing, None)
        await anyio.wait_all_tasks_blocked()
        tasks.start(work, None)
        task_group.cancel_scope.cancel()
    assert seen == ["started", "from outside: True"]
    assert tasks.statistics().tasks == 0


async def test_shielded_work_is_not_told_again_until_the_pool_is_closed(anyio_backend: str) -> None:
    seen: list[str] = []

    async def stubborn(_: object) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("swallowed")
            handle.shield()
        if anyio_backend == "asyncio":
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep_forever()
            seen.append("told once more")
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("closed")
            raise

    async with anyio.create_task_group() as task_group:
        tasks = Tasks(task_group)
        handle = tasks.start(stubborn, None)
        await anyio.wait_all_tasks_blocked()
        handle.cancel()
        await anyio.wait_all_tasks_blocked()
        told = ["swallowed", "told once more"] if anyio_backend == "asyncio" else ["swallowed"]
        assert seen == told
        tasks.close()
    assert seen == [*told, "closed"]
    assert tasks.statistics().tasks == 0


# --- context variables ---


async def test_context_variables_of_one_piece_of_work_never_reach_the_next() -> None:
    seen: list[object] = []

    async def leave_a_mark(value: object) -> None:
        seen.append(marker.get())
        marker.set(value)

    async with pool() as tasks:
        for number in range(10):
            tasks.start(leave_a_mark, number)
            await anyio.wait_all_tasks_blocked()
    assert seen == [None] * 10


async def test_a_mark_that_is_taken_back_lets_the_task_be_reused() -> None:
    async def clean(_: object) -> None:
        token = marker.set("mine")
        await anyio.lowlevel.checkpoint()
        marker.reset(token)

    async with pool() as tasks:
        first = tasks.start(clean, None)
        await anyio.wait_all_tasks_blocked()
        token = marker.set("the caller's")
        assert tasks.start(clean, None) is not None
        marker.reset(token)
        await anyio.wait_all_tasks_blocked()
        tasks.start(clean, None)
        # A token cannot bring back "never set" other than by removing the variable: the contexts are equal again.
        assert tasks.statistics().tasks == 1
        assert first in tasks._idle or tasks.statistics().idle == 0


async def test_an_equal_but_other_value_left_behind_does_not_reach_the_next_piece_of_work() -> None:
    seen: list[Any] = []
    token = marker.set([])
    try:

        async def swap(_: object) -> None:
            seen.append(marker.get())
            marker.set([])

        async with pool() as tasks:
            original = marker.get()
            for _ in range(3):
                tasks.start(swap, None)
                await anyio.wait_all_tasks_blocked()
    finally:
        marker.reset(token)
    assert all(value is original for value in seen)


async def test_values_that_cannot_be_compared_do_no_harm() -> None:
    class Touchy:
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of this is ambiguous")

    seen: list[object] = []
    token = marker.set(Touchy())
    try:

        async def swap(_: object) -> None:
            seen.append(marker.get())
            marker.set(Touchy())

        async with pool() as tasks:
            for _ in range(3):
                tasks.start(swap, None)
                await anyio.wait_all_tasks_blocked()
    finally:
        marker.reset(token)
    assert len(seen) == 3
    assert len({id(value) for value in seen}) == 1


async def test_work_sees_the_context_of_the_pool_and_not_of_whoever_starts_it() -> None:
    seen: list[object] = []

    async def look(_: object) -> None:
        seen.append(marker.get())

    async def look_too() -> None:
        seen.append(marker.get())

    async with pool() as tasks:
        token = marker.set("the caller's")
        tasks.start(look, None)
        tasks.spawn(look_too)
        await anyio.wait_all_tasks_blocked()
        tasks.start(look, None)
        await anyio.wait_all_tasks_blocked()
        marker.reset(token)
    assert seen == [None, None, None]


async def test_an_idle_task_keeps_nothing_of_its_last_work_alive() -> None:
    import gc  # noqa: PLC0415
    import weakref  # noqa: PLC0415

    class Thing:
        pass

    async def work(_: Thing) -> None:
        await anyio.lowlevel.checkpoint()

    async with pool() as tasks:
        thing = Thing()
        gone = weakref.ref(thing)
        tasks.start(work, thing)
        del thing
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert gone() is None


# --- somebody cancels the bare asyncio task ---


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_work_assigned_in_the_moment_its_task_is_natively_cancelled_is_not_lost() -> None:
    seen: list[int] = []
    bare: list[asyncio.Task[Any]] = []

    async def remember(_: object) -> None:
        current = asyncio.current_task()
        assert current is not None
        bare.append(current)

    async def work(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(number)

    async with pool() as tasks:
        for cancel_first in (True, False):
            tasks.start(remember, None)
            await anyio.wait_all_tasks_blocked()
            assert tasks.statistics().idle == 1
            victim = bare.pop()
            if cancel_first:
                victim.cancel()
            tasks.start(work, int(cancel_first))
            if not cancel_first:
                victim.cancel()
            await anyio.wait_all_tasks_blocked()
        assert seen == [1, 0]
        tasks.start(work, 2)
        await anyio.wait_all_tasks_blocked()
        assert seen == [1, 0, 2]
        statistics = tasks.statistics()
        assert statistics.tasks == statistics.idle == len(tasks._idle)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_natively_cancelled_while_idle_leaves_the_pool_and_the_group_lives() -> None:
    bare: list[asyncio.Task[Any]] = []

    async def remember(_: object) -> None:
        current = asyncio.current_task()
        assert current is not None
        bare.append(current)

    async with pool() as tasks:
        tasks.start(remember, None)
        await anyio.wait_all_tasks_blocked()
        bare[0].cancel()
        await anyio.wait_all_tasks_blocked()
        assert tasks.statistics() == PoolStatistics(tasks=0, idle=0)
        tasks.start(remember, None)
        await anyio.wait_all_tasks_blocked()
        assert len(bare) == 2


async def test_work_that_is_cancelled_while_it_spins_ends_its_own_task_and_not_the_group() -> None:
    """Nothing that such a task awaits could be cancelled: asyncio keeps one request of several, whosever it is."""
    after = anyio.Event()
    async with pool() as tasks:

        async def spin(begun: anyio.Event) -> None:
            begun.set()
            while True:
                await anyio.lowlevel.checkpoint()

        async def spin_in_a_group(begun: anyio.Event) -> None:
            async with anyio.create_task_group() as inner:
                inner.start_soon(anyio.sleep_forever)
                await spin(begun)

        for work in (spin, spin_in_a_group):
            begun = anyio.Event()
            task = tasks.start(work, begun)
            await begun.wait()
            task.cancel()
            with anyio.fail_after(LONGEST_WAIT):
                while tasks.statistics().tasks:
                    await anyio.lowlevel.checkpoint()
        tasks.start(_set, after)
        await after.wait()
    assert after.is_set(), "the group was cancelled"


async def _set(event: anyio.Event) -> None:
    event.set()
