"""The runs of a store, as a process that submits and looks after them sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import anyio

from actors.jobs.params import JobGroupParams
from actors.observability.trace import Trace, trace_here
from actors.runner.runner import WorkerRunner
from actors.runs.errors import RunError, RunFailedError
from actors.runs.owner import TOPIC, RunOwner
from actors.runs.run import RunEvent, RunRequest, RunState, RunStatus
from actors.runs.store import RunStore
from actors.runs.stores.memory import InMemoryRunStore
from actors.runs.url import open_run_store
from actors.worker.worker import BaseWorker
from bus import ServerBus


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
            RunValueError: Its result cannot be read in this process.
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


class Runs:
    """Submits runs and finds them.

    Args:
        store: An open run store.
        worker: Tells owners of news.
    """

    def __init__(self, store: RunStore, worker: BaseWorker) -> None:
        self.store = store
        self._worker = worker

    async def submit(
        self, worker_names: tuple[str, ...], params: JobGroupParams, idempotency_key: str | None, ttl: float | None
    ) -> Run:
        """Enter a run, and tell the owners of it."""
        if params.job_id is not None:
            raise TypeError("a run has no job_id: give an idempotency_key")
        trace = trace_here() or Trace()
        request = RunRequest(
            worker_names=worker_names,
            name=params.name,
            payload=params.payload,
            payloads=params.payloads,
            timeout=params.timeout,
            cancel_on_error=params.cancel_on_error,
            delivery=params.delivery,
            label=params.label,
            traceparent=trace.parent,
            tracestate=trace.state,
        )
        status = await self.store.create(request, idempotency_key=idempotency_key, ttl=ttl)
        await self._tell(status.run_id)
        return Run(status.run_id, self.store, self._tell)

    async def find(self, run_id: str) -> Run:
        """A run of the store."""
        await self.store.get(run_id)
        return Run(run_id, self.store, self._tell)

    @asynccontextmanager
    async def owned(self, runner: WorkerRunner) -> AsyncIterator[None]:
        """Do the runs of the store on a runner, as long as the context lasts."""
        owner = RunOwner(self.store)
        await runner.add_workers(owner)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await owner.stop()

    async def _tell(self, run_id: str) -> None:
        await self._worker.publish(TOPIC, run_id)


_in_memory: WeakKeyDictionary[WorkerRunner, RunStore] = WeakKeyDictionary()


def store_for(url: str | None, runner: WorkerRunner) -> RunStore:
    """The store of a URL; without one that of the server at which a bus meets, or the memory of this process.

    On a server, runs are kept under the namespace of the bus.

    Raises:
        RunError: The bus was given a client of its server instead of a URL.
        ValueError: Nothing is known under the scheme of the URL.
    """
    bus = runner.bus
    if not isinstance(bus, ServerBus):
        return open_run_store(url) if url is not None else _in_memory.setdefault(runner, InMemoryRunStore())
    url = url or bus.server_url
    if url is None:
        raise RunError("this bus was given a client instead of a URL: say where runs are kept, as run_store=")
    return open_run_store(url, namespace=bus.namespace)
