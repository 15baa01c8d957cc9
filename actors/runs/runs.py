"""The runs of a store, as a process that submits and looks after them sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import anyio

from actors.params import JobGroupParams
from actors.runner import WorkerRunner
from actors.runs.errors import RunError
from actors.runs.handle import Run
from actors.runs.memory_store import InMemoryRunStore
from actors.runs.owner import TOPIC, RunOwner
from actors.runs.run import RunRequest
from actors.runs.store import RunStore
from actors.runs.url import open_run_store
from actors.trace import Trace, trace_here
from actors.worker import BaseWorker
from bus import ServerBus


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
