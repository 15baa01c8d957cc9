"""The sync client: jobs asked for by code without an event loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from actors.client import RUN_TTL, Client
from actors.params import (
    GroupKeywords,
    JobGroupParams,
    JobKeywords,
    PayloadKeywords,
    RunFilters,
    RunKeywords,
)
from actors.sync.jobs import SyncJobContext, SyncJobGroupContext
from actors.sync.letters import SyncDeadLetters
from actors.sync.loop_thread import LoopThread
from actors.sync.run import SyncRun
from bus import WorkerBus

if TYPE_CHECKING:
    from types import TracebackType

    from actors.runs.run import RunStatus
    from bus import WorkerReadyData


class SyncClient:
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
        **bus_options: Any,
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
        self._client = Client(to, name=name, run_store=run_store, own_runs=own_runs, **bus_options)
        self._thread = LoopThread()

    def __enter__(self) -> Self:
        """Connect."""
        self._thread.open(self._client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Cancel what is still open, and disconnect."""
        return self._thread.close(kind, error, trace)

    def request(self, worker_name: str, payload: Any = None, **keywords: Unpack[JobKeywords]) -> Any:
        """Ask for a job and return its answer; as `Client.request`."""
        return self._thread.call(self._client.request, worker_name, payload, **keywords)

    def job(self, worker_name: str, **keywords: Unpack[PayloadKeywords]) -> SyncJobContext:
        """One job, to be entered or waited for with `.result()`; as `Client.job`."""
        self._thread.require_open()
        return SyncJobContext(self._thread, self._client.job(worker_name, **keywords))

    def job_group(self, *worker_names: str, **keywords: Unpack[GroupKeywords]) -> SyncJobGroupContext:
        """Several jobs, to be entered or waited for with `.result()`; as `Client.job_group`."""
        self._thread.require_open()
        return SyncJobGroupContext(self._thread, self._client.job_group(*worker_names, **keywords))

    def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        **keywords: Unpack[JobKeywords],
    ) -> list[Any]:
        """Ask one worker for many jobs; as `Client.gather`, but takes all payloads first, in the caller's thread."""
        self._thread.require_open()
        return self._thread.call(
            self._client.gather, worker_name, list(payloads), max_concurrency=max_concurrency, **keywords
        )

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
