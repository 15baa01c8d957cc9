"""Tasks of one's own: what is opened in one task of a program may be closed in another.

A cancel scope or task group must be left by the task that has entered it, and cancels that task when something in it
fails. Fixtures of test runners, lifespans, notebooks and exit stacks enter in one task and leave in another. So what
lives longer than a call lives in a home:

1. Nobody's cancel scope reaches it, and it cancels nobody.
2. Whoever waits for it learns how it ended. Nobody has to.
3. It belongs to one event loop, and ends with that at the latest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


class Home:
    """Runs a function in a task of its own: on asyncio one of the loop, on trio one of the system.

    Attributes:
        ended: Set when the function has returned or raised.
        failure: What it has raised.
    """

    def __init__(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        self.ended = anyio.Event()
        self.failure: BaseException | None = None
        self._function = function
        self._loop = current_token().native_token
        if isinstance(self._loop, asyncio.AbstractEventLoop):
            # The loop itself holds tasks weakly.
            task = self._loop.create_task(self._live(), name=name)
            _homes[self] = task
            task.add_done_callback(self._forget)
        else:
            from trio.lowlevel import spawn_system_task  # noqa: PLC0415 - only a program that runs on trio has it

            spawn_system_task(self._live, name=name, context=copy_context())

    @property
    def here(self) -> bool:
        """Whether the caller runs in its event loop, or in none."""
        try:
            if isinstance(self._loop, asyncio.AbstractEventLoop):
                return asyncio.get_running_loop() is self._loop
            return current_token().native_token is self._loop
        except RuntimeError:
            return not self.gone

    @property
    def gone(self) -> bool:
        """Whether its event loop has been closed, and it with that."""
        return isinstance(self._loop, asyncio.AbstractEventLoop) and self._loop.is_closed()

    async def wait(self) -> None:
        """Wait until it has ended, whoever cancels the wait: a cancellation is not raised."""
        with CancelScope(shield=True):
            while not self.ended.is_set():
                with suppress(get_cancelled_exc_class()):  # a bare asyncio task may be cancelled again
                    await self.ended.wait()

    async def _live(self) -> None:
        try:
            await self._function()
        except BaseException as error:
            self.failure = error
            if isinstance(error, get_cancelled_exc_class()):
                raise  # the loop ends, or the system of trio
        finally:
            self.ended.set()

    def _forget(self, _task: object) -> None:
        _homes.pop(self, None)
        self.ended.set()  # a task that is cancelled before its first step runs nothing of its function


_homes: dict[Home, object] = {}
"""Those that live on asyncio, with their tasks."""


class GroupHome:
    """A task group that any task may open and close.

    Args:
        name: That of its task.
        broken: Called when something in the group has failed, which cancels all the rest, or when its loop ends first.
    """

    def __init__(self, name: str, broken: Callable[[], None]) -> None:
        self._broken = broken
        self._opened = anyio.Event()
        self._closing = anyio.Event()
        self._group: TaskGroup | None = None
        self._home = Home(self._live, name)

    @property
    def here(self) -> bool:
        """As `Home.here`."""
        return self._home.here

    @property
    def gone(self) -> bool:
        """As `Home.gone`."""
        return self._home.gone

    async def open(self) -> TaskGroup:
        """The task group, once it takes tasks."""
        await self._opened.wait()
        assert self._group is not None
        return self._group

    async def close(self) -> None:
        """Cancel what runs in the group and wait for it, whoever cancels the wait. Raises what failed in it."""
        self._closing.set()
        if self._group is not None:
            self._group.cancel_scope.cancel()
        await self._home.wait()
        if self._home.failure is not None and not isinstance(self._home.failure, get_cancelled_exc_class()):
            raise self._home.failure

    async def _live(self) -> None:
        async with anyio.create_task_group() as self._group:
            try:
                self._opened.set()
                await self._closing.wait()
                self._group.cancel_scope.cancel()
            finally:
                if not self._closing.is_set():
                    self._broken()


class Body(Protocol):
    """The task inside a block, as who is outside of it may cancel it."""

    @property
    def here(self) -> bool:
        """Whether the caller is that task."""

    def cancel(self) -> None:
        """Cancel what it waits for, or is going to. Once is enough."""

    def leave(self, error: BaseException | None) -> tuple[bool, BaseException | None]:
        """The block is left, with an error or without one.

        Returns:
            Whether the body was cancelled before; and what is left of the error without that.

        Raises:
            RuntimeError: On trio, the caller is not the task that has entered it.
        """


class _Task:
    """A body on asyncio. It holds no cancel scope: the block may be left by another task, and in any order."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._before = task.cancelling()
        self._told = self._left = False

    @property
    def here(self) -> bool:
        return _current_task() is self._task

    def cancel(self) -> None:
        if self.here:
            self._task.get_loop().call_soon(self.cancel)
        elif not self._told and not self._left:
            self._told = self._task.cancel("its runner ends")

    def leave(self, error: BaseException | None) -> tuple[bool, BaseException | None]:
        self._left = True
        if not self._told or not self.here:
            return self._told, error
        others = self._task.uncancel() > self._before
        return True, None if isinstance(error, asyncio.CancelledError) and not others else error


class _Scope:
    """A body on trio, whose tasks have no other way to be cancelled."""

    def __init__(self) -> None:
        self._task = anyio.get_current_task().id
        self._scope = CancelScope()
        self._scope.__enter__()

    @property
    def here(self) -> bool:
        return anyio.get_current_task().id == self._task

    def cancel(self) -> None:
        self._scope.cancel()

    def leave(self, error: BaseException | None) -> tuple[bool, BaseException | None]:
        if not self.here:
            raise RuntimeError("on trio a block must be left by the task that has entered it")
        told = self._scope.cancel_called
        kind, trace = (type(error), error.__traceback__) if error is not None else (None, None)
        try:
            return told, None if self._scope.__exit__(kind, error, trace) else error
        except BaseException as rest:  # noqa: BLE001 - a group without what was ours
            return told, rest


def body_here() -> Body:
    """The block that the current task has entered."""
    task = _current_task()
    return _Task(task) if task is not None else _Scope()


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
