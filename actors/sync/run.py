"""A run as a script sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from actors.sync.loop_thread import LoopThread, SyncEvents

if TYPE_CHECKING:
    from actors.runs.handle import Run
    from actors.runs.run import RunEvent, RunStatus


class SyncRun:
    """A run that was submitted, by this process or another; as `Run`.

    Attributes:
        run_id: By which anybody finds it again.
    """

    def __init__(self, thread: LoopThread, run: Run) -> None:
        self.run_id = run.run_id
        self._thread = thread
        self._run = run

    def __repr__(self) -> str:
        return f"<SyncRun {self.run_id}>"

    def status(self) -> RunStatus:
        """What is known of it now; as `Run.status`."""
        return self._thread.call(self._run.status)

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it has ended, and return its result; as `Run.result`."""
        return self._thread.call(self._run.result, timeout)

    def events(self, after: int = -1) -> Iterator[RunEvent]:
        """What happens in it, those after an offset, the terminal event last; as `Run.events`."""

        async def opened() -> SyncEvents[RunEvent]:
            return SyncEvents(self._thread, self._run.events(after))

        return self._thread.call(opened)

    def cancel(self, reason: str | None = None) -> RunStatus:
        """Ask to cancel it; as `Run.cancel`."""
        return self._thread.call(self._run.cancel, reason)
