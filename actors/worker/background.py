"""Background tasks of a worker: they live as long as it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from bus.local.tasks import is_cancellation, wake

if TYPE_CHECKING:
    from bus.local.tasks import Tasks, Waiter


class BackgroundTask:
    """A coroutine that runs beside a worker's hooks and jobs. It ends by itself, by `cancel()`, or with its worker."""

    def __init__(
        self,
        coroutine: Awaitable[Any],
        name: str,
        tasks: Tasks,
        ended: Callable[[BackgroundTask, BaseException | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._name = name
        self._tasks = tasks
        self._ended = ended
        self._done = False
        self._waiters: dict[Waiter, None] = {}
        self._task = tasks.start(self._run, None)

    def __repr__(self) -> str:
        return f"<BackgroundTask {self._name} {'done' if self._done else 'running'}>"

    def get_name(self) -> str:
        """The name it was made with."""
        return self._name

    def done(self) -> bool:
        """Whether it has ended."""
        return self._done

    def cancel(self) -> None:
        """Tell it to stop; `wait()` tells when it has."""
        if not self._done:
            self._task.cancel()

    def shield(self) -> None:
        """Leave it alone: it swallows its cancellation, and would spin."""
        if not self._done:
            self._task.shield()

    async def wait(self) -> None:
        """Wait until it has ended; raises nothing of its own."""
        while not self._done:
            waiter = self._tasks.waiter()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                del self._waiters[waiter]

    async def _run(self, _argument: None) -> None:
        failure: BaseException | None = None
        try:
            await self._coroutine
        except BaseException as error:
            if is_cancellation(error):
                raise
            failure = error
        finally:
            self._done = True
            for waiter in self._waiters:
                wake(waiter)
            self._ended(self, failure)
