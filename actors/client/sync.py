"""The sync client: jobs asked for by code without an event loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from actors.client.loop_thread import LoopThread
from actors.jobs.params import (
    RUN_TTL,
    ClientOptions,
    JobGroupParams,
    RunKeywords,
)
from actors.performer.job import SyncVerbs
from actors.requester.blocking import SyncEvents
from actors.worker.asking import Asking
from bus import DeadLetter, DeadLetters, WorkerBus

if TYPE_CHECKING:
    from types import TracebackType

    from actors.runs.run import RunEvent, RunStatus
    from actors.runs.runs import Run
    from actors.runs.store import RunFilters
    from bus import WorkerReadyData


T = TypeVar("T")
P = TypeVar("P")


class SyncDeadLetters:
    """The dead letters of a network; as `DeadLetters`."""

    def __init__(self, thread: LoopThread, letters: DeadLetters) -> None:
        self._thread = thread
        self._letters = letters

    def oldest(self, *, worker_name: str | None = None, most: float = 100, after: str = "") -> list[DeadLetter]:
        """The oldest letters, oldest first; as `DeadLetters.oldest`."""
        return self._thread.call(self._letters.oldest, worker_name=worker_name, most=most, after=after)

    def get(self, letter_id: str) -> DeadLetter | None:
        """One letter; None if there is none of that id."""
        return self._thread.call(self._letters.get, letter_id)

    def discard(self, letter_id: str) -> bool:
        """Throw one away. False if there was none."""
        return self._thread.call(self._letters.discard, letter_id)

    def purge(self, *, worker_name: str | None = None) -> int:
        """Throw all away, or all for one worker, and return how many there were."""
        return self._thread.call(self._letters.purge, worker_name=worker_name)


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


class AsyncClient(Asking):
    """The client with an event loop that a sync client runs: `Client`, which says so with `runs_as_sync`."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connect."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Disconnect."""

    @abstractmethod
    def workers(self) -> list[WorkerReadyData]:
        """Every worker that is known now."""

    @abstractmethod
    async def submit(
        self,
        *worker_names: str,
        params: JobGroupParams | None = None,
        idempotency_key: str | None = None,
        ttl: float | None = RUN_TTL,
        **keywords: Unpack[RunKeywords],
    ) -> Run:
        """Enter a job that outlives who asks for it."""

    @abstractmethod
    async def run(self, run_id: str) -> Run:
        """A run that was submitted."""

    @abstractmethod
    async def runs(self, **filters: Unpack[RunFilters]) -> Sequence[RunStatus]:
        """The latest runs."""

    @property
    @abstractmethod
    def dead_letters(self) -> DeadLetters:
        """The jobs that were given up on."""

    @abstractmethod
    async def requeue(self, letter_id: str, *, timeout: float | None = None) -> Any:
        """Do a job that was given up on again."""


ClientT = TypeVar("ClientT", bound=AsyncClient)

_makers: list[Callable[..., AsyncClient]] = []


def runs_as_sync(cls: type[ClientT]) -> type[ClientT]:
    """Mark the class of clients that sync clients run."""
    _makers.append(cls)
    return cls


class SyncClient(SyncVerbs):
    """Asks workers for jobs from a script: `with Client.sync(url) as client: client.request("a")`.

    Every method does what that of `Client` does, which it runs in a thread with an event loop, and blocks until that is
    done. Any number of threads may use one client. Who is interrupted while waiting, as by Ctrl-C, cancels what it
    waited for; who leaves the context cancels all that is open, tells the fleet, and leaves neither thread nor
    connection behind. A program that exits without leaving it does so then.
    """

    def __init__(
        self,
        to: str | WorkerBus,
        *,
        name: str | None = None,
        run_store: str | None = None,
        own_runs: bool = True,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Make a client; arguments as for `Client`, but nothing that lives in another event loop.

        Raises:
            TypeError: `to` is a runner or a bus that was started, or `run_store` an open store.
        """
        given: tuple[object, object] = (to, run_store)  # whatever the types say
        for each in given:
            if not isinstance(each, str | WorkerBus | None) or (isinstance(each, WorkerBus) and each.started):
                raise TypeError(
                    f"{each!r:.100} lives in an event loop: use 'async with Client(...)' in that, or give a URL"
                )
        self._client = _makers[-1](to, name=name, run_store=run_store, own_runs=own_runs, **options)
        self._thread = LoopThread()
        super().__init__(self._thread, self._client)

    def __enter__(self) -> Self:
        """Connect."""
        self._thread.open(self._client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Cancel what is still open, and disconnect."""
        return self._thread.close(kind, error, trace)

    def workers(self) -> list[WorkerReadyData]:
        """Every worker that is known now, on any runner, but the clients."""

        async def workers() -> list[WorkerReadyData]:
            return self._client.workers()

        return self._thread.call(workers)

    def submit(
        self,
        *worker_names: str,
        params: JobGroupParams | None = None,
        idempotency_key: str | None = None,
        ttl: float | None = RUN_TTL,
        **keywords: Unpack[RunKeywords],
    ) -> SyncRun:
        """Enter a job, or a group of jobs, that outlives this client and whoever does it; as `Client.submit`."""
        run = self._thread.call(
            self._client.submit, *worker_names, params=params, idempotency_key=idempotency_key, ttl=ttl, **keywords
        )
        return SyncRun(self._thread, run)

    def run(self, run_id: str) -> SyncRun:
        """A run that was submitted, here or elsewhere; as `Client.run`."""
        return SyncRun(self._thread, self._thread.call(self._client.run, run_id))

    def runs(self, **filters: Unpack[RunFilters]) -> Sequence[RunStatus]:
        """The latest runs, latest first; as `Client.runs`."""
        return self._thread.call(self._client.runs, **filters)

    @property
    def dead_letters(self) -> SyncDeadLetters:
        """The jobs that were given up on: to be listed, inspected, discarded, or done again with `requeue`."""
        self._thread.require_open()
        return SyncDeadLetters(self._thread, self._client.dead_letters)

    def requeue(self, letter_id: str, *, timeout: float | None = None) -> Any:
        """Do a job that was given up on again, and return its answer; as `Client.requeue`."""
        return self._thread.call(self._client.requeue, letter_id, timeout=timeout)
