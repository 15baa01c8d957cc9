"""Many deadlines, one sleeping task: called once, in order, never early, and nothing is kept of the cancelled ones."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import anyio
import pytest

from bus.local.deadlines import Deadline, Deadlines, DeadlineStatistics
from bus.local.tasks import Tasks
from tests.support.virtual_time import virtual_time

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving() -> AsyncGenerator[Deadlines]:
    async with anyio.create_task_group() as task_group:
        tasks = Tasks(task_group)
        deadlines = Deadlines(tasks)
        tasks.spawn(deadlines.run)
        await anyio.wait_all_tasks_blocked()
        yield deadlines
        task_group.cancel_scope.cancel()


@virtual_time()
async def test_callbacks_come_at_their_instants_in_order_and_equal_instants_in_the_order_they_were_added() -> None:
    called: list[tuple[str, float]] = []
    async with serving() as deadlines:
        start = anyio.current_time()
        for name, seconds in (("late", 300.0), ("first", 10.0), ("second", 10.0), ("third", 10.0), ("mid", 60.0)):
            deadlines.after(seconds, lambda name=name: called.append((name, anyio.current_time() - start)))  # type: ignore[misc]
        await anyio.sleep(1000)
    assert called == [("first", 10.0), ("second", 10.0), ("third", 10.0), ("mid", 60.0), ("late", 300.0)]


@virtual_time()
async def test_a_thousand_random_deadlines_come_in_order_none_early_none_lost_and_no_cancelled_one() -> None:
    rng = Random(7)
    called: list[tuple[float, float]] = []
    async with serving() as deadlines:
        start = anyio.current_time()
        armed: dict[float, Deadline] = {}
        cancelled: set[float] = set()
        for _ in range(1000):
            when = start + rng.uniform(1, 1000)
            armed[when] = deadlines.add(when, lambda when=when: called.append((when, anyio.current_time())))  # type: ignore[misc]
            if rng.random() < 0.6:
                victim = rng.choice(list(armed))
                armed.pop(victim).cancel()
                cancelled.add(victim)
        assert deadlines.statistics().armed == len(armed)
        await anyio.sleep(2000)
        assert deadlines.statistics() == DeadlineStatistics(armed=0, cancelled=0)
    assert [when for when, _ in called] == sorted(armed)
    assert all(now == when for when, now in called)
    assert not cancelled & {when for when, _ in called}


async def test_a_deadline_that_has_passed_already_is_called_at_once() -> None:
    called = anyio.Event()
    async with serving() as deadlines:
        deadlines.after(-5.0, called.set)
        with anyio.fail_after(30):
            await called.wait()
        assert deadlines.statistics().armed == 0


@virtual_time()
async def test_an_earlier_deadline_wakes_the_loop_that_sleeps_towards_a_later_one() -> None:
    called: list[float] = []
    async with serving() as deadlines:
        start = anyio.current_time()
        deadlines.after(3600, lambda: called.append(anyio.current_time() - start))
        await anyio.wait_all_tasks_blocked()
        deadlines.after(1, lambda: called.append(anyio.current_time() - start))
        await anyio.sleep(1.5)
        assert called == [1.0]


@virtual_time()
async def test_a_deadline_added_by_a_callback_is_not_forgotten() -> None:
    called: list[str] = []
    async with serving() as deadlines:

        def first() -> None:
            called.append("first")
            deadlines.after(5, lambda: called.append("second"))
            deadlines.after(-1, lambda: called.append("overdue"))

        deadlines.after(1, first)
        await anyio.sleep(1.5)
        assert called == ["first", "overdue"]
        await anyio.sleep(10)
    assert called == ["first", "overdue", "second"]


@virtual_time()
async def test_a_callback_that_cancels_the_ones_due_with_it_is_obeyed() -> None:
    called: list[int] = []
    async with serving() as deadlines:
        others: list[Deadline] = []

        def cancel_the_rest() -> None:
            called.append(0)
            for other in others:
                other.cancel()

        deadlines.after(1, cancel_the_rest)
        others += [deadlines.after(1, lambda: called.append(1)) for _ in range(500)]
        await anyio.sleep(5)
        assert called == [0]
        assert deadlines.statistics() == DeadlineStatistics(armed=0, cancelled=0)


@virtual_time()
async def test_a_callback_that_raises_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []
    async with serving() as deadlines:

        def fail() -> None:
            raise ValueError("no")

        deadlines.after(1, fail)
        deadlines.after(1, lambda: called.append("next"))
        deadlines.after(2, lambda: called.append("later"))
        with caplog.at_level(logging.ERROR, "actorbus"):
            await anyio.sleep(5)
    assert called == ["next", "later"]
    assert "ValueError" in caplog.text


async def test_cancelling_twice_or_after_the_call_counts_once() -> None:
    async with serving() as deadlines:
        kept = [deadlines.after(1000, lambda: None) for _ in range(10)]
        victim = deadlines.after(1000, lambda: None)
        victim.cancel()
        victim.cancel()
        assert deadlines.statistics() == DeadlineStatistics(armed=10, cancelled=1)
        done = anyio.Event()
        called = deadlines.after(0, done.set)
        with anyio.fail_after(30):
            await done.wait()
        called.cancel()
        assert deadlines.statistics() == DeadlineStatistics(armed=10, cancelled=1)
        for each in kept:
            each.cancel()
        assert deadlines.statistics().armed == 0


async def test_g46_g47_cancelled_deadlines_are_swept_and_their_callbacks_let_go() -> None:
    async with serving() as deadlines:
        kept = [deadlines.after(1000 + number, lambda: None) for number in range(100)]
        for number in range(20_000):
            deadlines.after(5000 + number, lambda: None).cancel()
            statistics = deadlines.statistics()
            assert statistics.armed == 100
            assert statistics.cancelled <= max(statistics.armed, 64)
        assert len(deadlines._heap) <= 201
        for each in kept:
            each.cancel()
        assert deadlines.statistics().armed == 0


@virtual_time()
async def test_a_deadline_that_never_comes_keeps_nobody_awake() -> None:
    async with serving() as deadlines:
        deadlines.after(math.inf, lambda: None)
        await anyio.sleep(80_000)
        assert deadlines.statistics().armed == 1
