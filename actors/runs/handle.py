"""A run as who submitted it sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

from actors.runs.errors import RunFailedError
from actors.runs.run import RunEvent, RunState, RunStatus
from actors.runs.store import RunStore


class Run:
    """A run that was submitted, by this process or another. Forgetting it changes nothing: the run goes on.

    Attributes:
        run_id: By which anybody finds it again.
    """

    def __init__(self, run_id: str, store: RunStore, tell: Callable[[str], Awaitable[object]]) -> None:
        self.run_id = run_id
        self._store = store
        self._tell = tell

    def __repr__(self) -> str:
        return f"<Run {self.run_id}>"

    async def status(self) -> RunStatus:
        """What is known of it now.

        Raises:
            RunNotFoundError: It was deleted, or its time is over.
            RunStoreError: The store does not answer.
        """
        return await self._store.get(self.run_id)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait until it has ended, and return its result: a job's answer, or a dict of a group's by worker name.

        Args:
            timeout: Seconds to wait; None for no limit. The run goes on all the same.

        Raises:
            TimeoutError: It has not ended in time.
            RunFailedError: It failed, or was cancelled.
            RunNotFoundError: It was deleted, or its time is over.
            RunStoreError: The store does not answer.
            RunValueError: Its result is of a type that is not registered in this process.
        """
        with anyio.fail_after(timeout):
            async for _ in self.events():
                pass
        status = await self.status()
        if status.state is not RunState.COMPLETED:
            raise RunFailedError(status)
        return await self._store.result(self.run_id)

    def events(self, after: int = -1) -> AsyncIterator[RunEvent]:
        """What happens in it: all events after an offset, first those that there are, the terminal one last.

        Raises:
            RunNotFoundError: It was deleted, or its time is over.
            RunStoreError: The store does not answer. Go on with the last offset that came.
        """
        return self._store.stream(self.run_id, after)

    async def cancel(self, reason: str | None = None) -> RunStatus:
        """Ask to cancel it; once this returns it will not complete any more. `finished_at` says when it had stopped.

        Raises:
            RunNotFoundError: It was deleted, or its time is over.
            RunStoreError: The store does not answer; it may be cancelled.
        """
        status = await self._store.cancel(self.run_id, reason)
        await self._tell(self.run_id)
        return status
