"""Background tasks of a worker: they live as long as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import anyio

from bus.local.tasks import is_cancellation
from bus.log import log

if TYPE_CHECKING:
    from contextvars import Context

    from bus.local.tasks import PooledTask, Tasks

T = TypeVar("T")


class BackgroundTask(Generic[T]):
    """A coroutine that runs beside a worker's hooks and jobs. It ends by itself, by `cancel()`, or with its worker.

    It can be asked and awaited like an `asyncio.Task`: `await task`, `asyncio.gather`, `asyncio.wait`,
    `asyncio.wait_for`. Who is cancelled while awaiting it cancels it; `wait()` leaves it alone. What it raises goes to
    those who await it then, or to callbacks that ask for it; without any it is a failure of its worker.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        name: str,
        ended: Callable[[BackgroundTask[Any], BaseException | None], None],
        *,
        vital: bool = True,
    ) -> None:
        self._coroutine = coroutine
        self._name = name
        self._ended = ended
        self.vital = vital
        """Whether its worker fails with it, if nobody hears what it raises."""
        self._over = anyio.Event()
        self._task: PooledTask | None = None
        self._cancel_called = False
        self._cancelled = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._awaited = 0
        self._heard = False
        self._callbacks: list[tuple[Callable[[Any], object], Context | None]] = []

    def __repr__(self) -> str:
        return f"<BackgroundTask {self._name} {'done' if self.done() else 'running'}>"

    def begin(self, tasks: Tasks) -> None:
        """Start to run, in a pool of tasks."""
        if not self._cancel_called:
            self._task = tasks.start(self._run, None)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for its result; raises what it raises, and `asyncio.CancelledError` if it was cancelled."""
        return self._outcome().__await__()

    def get_name(self) -> str:
        """The name it was made with."""
        return self._name

    def set_name(self, name: object) -> None:
        """Call it something else."""
        self._name = str(name)

    def get_coro(self) -> Coroutine[Any, Any, T]:
        """What it runs."""
        return self._coroutine

    def done(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def cancelled(self) -> bool:
        """Whether it has ended because it was cancelled."""
        return self._cancelled

    def result(self) -> T:
        """What its coroutine returned.

        Raises:
            asyncio.InvalidStateError: It has not ended.
            asyncio.CancelledError: It was cancelled. What the coroutine raised is raised as it is.
        """
        error = self.exception()
        if error is not None:
            raise error
        return cast("T", self._result)

    def exception(self) -> BaseException | None:
        """What its coroutine raised; None if it returned.

        Raises:
            asyncio.InvalidStateError: It has not ended.
            asyncio.CancelledError: It was cancelled.
        """
        self._heard = True
        if not self.done():
            raise asyncio.InvalidStateError(f"{self!r} has not ended")
        if self._cancelled:
            raise asyncio.CancelledError(f"background task {self._name!r} was cancelled")
        return self._error

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Call `callback(task)` when it has ended; soon, if it has."""
        if self.done():
            _call(callback, context, self)
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Do not call a callback. Returns how often it had been added."""
        kept = [(other, context) for other, context in self._callbacks if other != callback]
        removed, self._callbacks = len(self._callbacks) - len(kept), kept
        return removed

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - that of an asyncio.Task has it
        """Tell it to stop; `wait()` tells when it has. False if it had ended."""
        if self.done():
            return False
        self._cancel_called = True
        if self._task is not None:
            self._task.cancel()
        else:  # it has not begun, and never will
            self._coroutine.close()
            self._end(None, cancelled=True)
        return True

    def shield(self) -> None:
        """Leave it alone: it swallows its cancellation, and would spin."""
        if self._task is not None and not self.done():
            self._task.shield()

    async def wait(self) -> None:
        """Wait until it has ended; raises nothing of its own."""
        await self._over.wait()

    async def _outcome(self) -> T:
        if not self.done():
            self._awaited += 1
            try:
                await self._over.wait()
            except BaseException:
                self.cancel()
                raise
            finally:
                self._awaited -= 1
        return self.result()

    async def _run(self, _argument: None) -> None:
        try:
            self._result = await self._coroutine
        except BaseException as error:
            if is_cancellation(error):
                self._end(None, cancelled=True)
                raise
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: BaseException | None, *, cancelled: bool = False) -> None:
        self._error, self._cancelled = error, cancelled
        self._heard = bool(self._awaited)
        self._over.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback, context in callbacks:
            _call(callback, context, self)
        self._ended(self, None if self._heard else error)


AnyTask: TypeAlias = BackgroundTask[Any] | asyncio.Task[Any]
"""A task that `cancel_task` takes."""


async def ended(task: AnyTask, seconds: float | None) -> bool:
    """Wait until a task has ended, for so long at most. Whether it has; what it raises is not raised here."""
    over = anyio.Event()

    def end(_task: Any) -> None:
        over.set()

    task.add_done_callback(end)
    with anyio.move_on_after(seconds):
        await over.wait()
    task.remove_done_callback(end)
    return task.done()


def _call(callback: Callable[[Any], object], context: Context | None, task: BackgroundTask[Any]) -> None:
    try:
        if context is not None:
            context.run(callback, task)
        else:
            callback(task)
    except Exception:  # noqa: BLE001 - it is the callback's own, and nobody waits for it
        log().exception("a callback of a background task failed", task=task.get_name())
