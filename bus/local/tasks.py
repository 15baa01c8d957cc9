"""The primitives of the hot path: wake a waiter, start work in a reused task, read the clock.

They exist in two forms. The anyio form runs on every backend. The asyncio form replaces one piece of it, the waiter,
by a bare future: waking a reused task through an `anyio.Event` costs more than the whole rest of a job.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from operator import is_
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from bus.errors import flattened

Work = Callable[[Any], Awaitable[None]]
"""Takes the argument it was started with; raises nothing but a cancellation that came from outside of it."""

MAX_IDLE = 1024
"""Idle tasks kept for reuse; a task costs about 4 KB, a thousand in flight is a usual load."""


class Waiter(Protocol):
    """One-shot wake-up of one task: `await` it, and `wake` it from elsewhere.

    It is the part of `asyncio.Future` that is needed here, so that on asyncio a bare future is one.
    """

    def done(self) -> bool:
        """Whether it was woken, or its wait cancelled."""

    def set_result(self, result: None, /) -> None:
        """Let the waiting task go on."""

    def __await__(self) -> Generator[Any, None, None]:
        """Wait to be woken."""


def wake(waiter: Waiter) -> None:
    """Let the task that waits go on. Does nothing the second time."""
    if not waiter.done():
        waiter.set_result(None)


class _EventWaiter:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def done(self) -> bool:
        return self._event.is_set()

    def set_result(self, _result: None, /) -> None:
        self._event.set()

    def __await__(self) -> Generator[Any, None, None]:
        return self._event.wait().__await__()


SOON = 5
"""Turns of the event loop within which nearly everything that is cancelled has been told so."""

LOOK_AGAIN = 0.005
"""Seconds until it is looked again whether what awaits behind a shield of its own has been told."""


_told: set[asyncio.Task[Any]] = set()
"""Tasks whose work was cancelled, and told so."""


class PooledTask:
    """A task that runs one piece of work after the other; the handle of the work it runs now.

    A cancelled task is not reused, so cancelling needs no scope per piece of work. On asyncio a cancellation is told
    once, as asyncio does: what cleans up after it may await. On trio every await raises, as trio does.
    """

    __slots__ = ("_argument", "_guard", "_life", "_native", "_nobodys", "_shielded", "_waiter", "_work")

    def __init__(self, work: Work, argument: Any, shielded: dict[PooledTask, None]) -> None:
        self._shielded = shielded
        self._life = anyio.CancelScope()
        self._guard = anyio.CancelScope()
        self._work: Work | None = work
        self._argument = argument
        self._waiter: Waiter | None = None
        self._native: asyncio.Task[Any] | None = None
        self._nobodys = 0

    def cancel(self) -> None:
        """Cancel the work that runs now: its next await raises; on asyncio those after it do not."""
        native = self._native
        told = native.cancelling() if native is not None else 0
        self._life.cancel()
        if native is not None:
            self._guard.shield = False  # if it was told before, it is told once more
            self._when_told(native, told, 0)

    def shield(self) -> None:
        """Leave the work to itself, for it has swallowed its cancellation; on asyncio it is told once more.

        It would spin if it were told at each await. It is told again when the pool is closed.
        """
        if self._native is not None:
            self.cancel()
        else:
            self._guard.shield = True
        self._shielded[self] = None

    def _when_told(self, native: asyncio.Task[Any], told: int, looked: int) -> None:
        """Tell the work no more once it has been told: it cannot be while it runs, or awaits behind a shield."""
        if self._native is not native:
            return  # it has ended
        if native.cancelling() > told:
            # One request that is nobody's: else a task group inside the work would take the cancellation for its own,
            # now that it does not see the one around it, and the work would go on behind it.
            native.cancel("its work was cancelled")
            self._nobodys += 1
            self._guard.shield = True
            self._shielded[self] = None
            _told.add(native)
            return
        loop = native.get_loop()
        if looked < SOON:
            loop.call_soon(self._when_told, native, told, looked + 1)
        else:
            loop.call_later(LOOK_AGAIN, self._when_told, native, told, looked)

    def _ended(self) -> None:
        """Its work is over: take back the requests that were nobody's, for a scope is left by its own ones only."""
        native, self._native = self._native, None
        if native is None:
            return
        _told.discard(native)
        for _ in range(self._nobodys):
            native.uncancel()


class PoolStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Tasks`: tasks alive, and how many of them wait for work (at most `MAX_IDLE`)."""

    tasks: int
    idle: int


class Tasks:
    """Starts work in reused tasks of one task group. Work that was accepted is started exactly once."""

    def __init__(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._idle: list[PooledTask] = []
        self._shielded: dict[PooledTask, None] = {}
        self._kept: list[anyio.CancelScope] = []
        self._count = 0
        self._context = copy_context()
        self.loop = native = anyio.lowlevel.current_token().native_token
        """The event loop that it belongs to."""
        self.waiter: Callable[[], Waiter] = _EventWaiter
        self.now: Callable[[], float] = anyio.current_time
        self._asyncio = isinstance(native, asyncio.AbstractEventLoop)
        if isinstance(native, asyncio.AbstractEventLoop):
            self.waiter = partial(asyncio.Future, loop=native)
            self.now = native.time

    def start(self, work: Work, argument: Any) -> PooledTask:
        """Run `work(argument)` soon, in the context this pool was made in, not in the caller's."""
        if self._idle:
            task = self._idle.pop()
            task._work = work
            task._argument = argument
            waiter = task._waiter
            assert waiter is not None
            if not waiter.done():
                waiter.set_result(None)
            return task
        task = PooledTask(work, argument, self._shielded)
        self._count += 1
        self._context.copy().run(self._task_group.start_soon, self._serve, task)
        return task

    def spawn(self, function: Callable[..., Coroutine[Any, Any, object]], *arguments: object) -> None:
        """Run a long-lived loop in a task of its own. It must not raise: an error would end the whole group."""
        self._context.copy().run(self._task_group.start_soon, function, *arguments)

    def keep(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """As `spawn`, but no cancellation reaches the loop before `release`, also none of scopes around the group.

        What is cancelled from outside still has something to say to the network: who sends it must live until then.
        """
        guard = anyio.CancelScope(shield=True)
        self._kept.append(guard)

        async def guarded() -> None:
            with guard:
                await function()

        self.spawn(guarded)

    def release(self) -> None:
        """Cancel the loops that were kept."""
        for guard in self._kept:
            guard.cancel()

    def close(self) -> None:
        """Cancel everything in the task group, also work that was shielded: it is told once more."""
        for task in tuple(self._shielded):
            task.cancel()
            task._guard.shield = self._asyncio and task._guard.shield
        self._task_group.cancel_scope.cancel()

    def statistics(self) -> PoolStatistics:
        """How many tasks there are now."""
        return PoolStatistics(tasks=self._count, idle=len(self._idle))

    async def _serve(self, task: PooledTask) -> None:
        clean = copy_context()
        if self._asyncio:
            task._native = asyncio.current_task()
        cancellation = anyio.get_cancelled_exc_class()
        try:
            with task._life, task._guard:
                try:
                    while True:
                        assert task._work is not None
                        working = task._work(task._argument)
                        task._work = task._argument = None
                        await working
                        del working  # an idle task must not keep alive what it did last
                        # What it left in its context variables must not reach the next: such a task is not reused.
                        left = copy_context()
                        same = len(left) == len(clean) and all(map(is_, left.values(), clean.values()))
                        if not same or len(self._idle) >= MAX_IDLE or task._life.cancel_called:
                            return
                        task._waiter = self.waiter()
                        self._idle.append(task)
                        try:
                            await task._waiter
                        except cancellation:
                            if task in self._idle:
                                self._idle.remove(task)
                            if task._work is None:
                                if cancelled_from_outside():
                                    raise
                                return  # somebody cancelled the bare asyncio task after its work had ended
                finally:
                    task._ended()
        except cancellation:
            # Of a task that was cancelled between two steps, asyncio does not say whose cancellation it was: not every
            # one that was ours is caught above. It must end here, or the task group takes it for its own end.
            if not task._life.cancel_called or cancelled_from_outside():
                raise
        finally:
            self._count -= 1
            self._shielded.pop(task, None)


def same_context(clean: Context) -> bool:
    """Whether every context variable of the current task is what it was in `clean`; as `Tasks` looks without a call."""
    left = copy_context()
    return len(left) == len(clean) and all(map(is_, left.values(), clean.values()))


class Signal:
    """Something that happens again and again, for the tasks that wait until it happens next."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}

    def wake(self) -> None:
        """It happened."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            wake(waiter)

    async def wait(self, tasks: Tasks) -> None:
        """Wait until it happens next."""
        waiter = tasks.waiter()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)


def on_asyncio() -> bool:
    """Whether this task runs on asyncio: the client libraries of Redis and NATS know nothing else."""
    return isinstance(anyio.lowlevel.current_token().native_token, asyncio.AbstractEventLoop)


def is_cancellation(error: BaseException) -> bool:
    """Whether `error` tells that a scope around the current task was cancelled: only that must be raised again."""
    if not cancelled_from_outside():
        return False
    return only_cancels(error)


def only_cancels(error: BaseException) -> bool:
    """Whether it is a cancellation, or a group of nothing else; of whom is another question."""
    kind = anyio.get_cancelled_exc_class()
    return all(issubclass(type(each), kind) for each in flattened(error))


def cancelled_from_outside() -> bool:
    """Whether a scope around the current task is cancelled, as opposed to somebody having cancelled what it awaits."""
    return anyio.current_effective_deadline() == -math.inf or (bool(_told) and _current() in _told)


def _current() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop of asyncio runs here
        return None
