"""Where runs are kept: the whole interface of a run store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, Self, TypedDict

from actors.runs.run import Lease, RunEvent, RunEventType, RunProgress, RunRequest, RunState, RunStatus
from bus import ErrorInfo


class RunFilters(TypedDict, total=False):
    """The keywords of `RunStore.find`."""

    state: RunState | None
    worker_name: str | None
    limit: int
    after: str | None


class RunStore(Protocol):
    """Keeps the records, events and results of runs.

    Guarantees asked of every store:

    * A run that `create` returned is kept until it is deleted or its time is over.
    * Changes of one run happen one after the other; a state that is terminal never changes.
    * What is written under a lease is refused once another has taken the run: `RunLostError`.
    * Events come out in the order of their offsets, none missing, none twice, the terminal one last.

    Every method may raise `RunStoreError` when the store cannot be reached, is full or broken: what was to be changed
    may have been changed or not, what was accepted before is kept, and the store goes on when the cause is gone. What
    an owner does under its lease may then be done again, and counts once. Methods with a `run_id` raise
    `RunNotFoundError` if there is no such run, whatever text it is. A result, an event or a payload that is too large
    for the database is an `EncodeError`.
    """

    async def __aenter__(self) -> Self:
        """Open it. Who shares a store in one process may open it again; it is closed by the last."""

    async def __aexit__(self, *exc: object) -> None:
        """Close it. Streams that wait end with `RunStoreError`."""

    async def create(
        self, request: RunRequest, *, idempotency_key: str | None = None, ttl: float | None = None
    ) -> RunStatus:
        """Enter a run, PENDING; or find the one that was entered under the same key.

        Raises:
            RunConflictError: Under that key another request was entered.
            EncodeError: A payload cannot be kept.
            ValueError: No worker name, one that is none or that stands twice, or another argument out of its range.
        """

    async def get(self, run_id: str) -> RunStatus:
        """What is known of a run."""

    async def request(self, run_id: str) -> RunRequest:
        """What it is to do.

        Raises:
            RunValueError: A payload cannot be read in this process.
        """

    async def find(
        self,
        *,
        state: RunState | None = None,
        worker_name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Sequence[RunStatus]:
        """The latest runs, latest first.

        Args:
            state: Only those in this state.
            worker_name: Only those that ask this worker.
            limit: How many at most.
            after: Only those that come after this id in the list: how to read on. The run itself may be gone.
        """

    async def set_state(
        self,
        run_id: str,
        expected: RunState,
        state: RunState,
        *,
        lease: Lease | None = None,
        error: ErrorInfo | None = None,
        progress: RunProgress | None = None,
    ) -> bool:
        """Change the state if it is `expected`, and `lease`, if given, still holds. False if it is another.

        True as well if the attempt of this lease has already ended the run so. A run that is to be cancelled becomes
        neither COMPLETED nor PENDING: False. An error that is None leaves the one that `cancel` has noted.

        Raises:
            RunStateError: The one state does not follow the other, or it is RUNNING: that is what `take` is for.
            RunLostError: The lease holds no more.
        """

    async def set_progress(self, lease: Lease, progress: RunProgress) -> None:
        """Note how far it is."""

    async def set_result(self, lease: Lease, result: Any) -> None:
        """Keep the result of this attempt; it counts when the state becomes COMPLETED.

        Raises:
            EncodeError: It cannot be kept.
            RunLostError: Another has the run.
        """

    async def result(self, run_id: str) -> Any:
        """The result of a completed run.

        Raises:
            RunStateError: It is not completed.
            RunValueError: The result cannot be read in this process.
        """

    async def cancel(self, run_id: str, reason: str | None = None) -> RunStatus:
        """Ask to cancel a run, and return what is known of it now. What nobody does is CANCELLED at once.

        Of a run that has ended, nothing changes. Once asked for, it will not complete any more.
        """

    async def push_event(
        self, lease: Lease, kind: RunEventType, worker_name: str | None = None, data: Any = None
    ) -> int:
        """Add an event, and return its offset. The terminal event adds itself when the run ends.

        Raises:
            EncodeError: The data cannot be kept.
            ValueError: It is a terminal one.
            RunLostError: Another has the run.
        """

    async def events(self, run_id: str, after: int = -1, limit: int = 1000) -> Sequence[RunEvent]:
        """The events that there are now, after an offset: at most `limit`, of which there may be more."""

    def stream(self, run_id: str, after: int = -1) -> AsyncIterator[RunEvent]:
        """The events after an offset: those that there are, then each as it comes; ends after the terminal one.

        Any number of readers in one process cost the database one. An offset that is beyond all waits for what follows
        it, and ends with the run. It has nothing that must be closed, so it is no generator: who has heard enough
        leaves it, and one that was cancelled while it waited, or has raised, goes on where it was.
        """

    async def leases(self) -> Sequence[Lease]:
        """The leases of all runs that have not ended, the oldest run first."""

    async def take(self, lease: Lease, owner: str) -> Lease | None:
        """Begin the next attempt at a run, if its lease is still exactly that; None if it is not."""

    async def renew(self, lease: Lease) -> Lease:
        """Give a sign of life, and learn whether the run is to be cancelled.

        Raises:
            RunLostError: Another has the run.
        """

    async def release(self, lease: Lease) -> None:
        """Leave a run to another: PENDING again; or CANCELLED, if that was asked for.

        Raises:
            RunLostError: Another has the run.
        """

    async def delete(self, run_id: str) -> None:
        """Forget a run that has ended.

        Raises:
            RunStateError: It has not.
        """

    async def sweep(self) -> int:
        """Forget the runs whose time is over, and return how many there were."""
