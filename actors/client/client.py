"""The client: jobs asked for by code that is no worker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self, Unpack

import anyio

from actors.client.sync import AsyncClient, SyncClient, runs_as_sync
from actors.jobs.errors import JobError, RunnerStateError
from actors.jobs.outcome import is_told
from actors.jobs.params import (
    RUN_TTL,
    ClientOptions,
    JobGroupParams,
    RunKeywords,
    resolve,
)
from actors.runner.runner import WorkerRunner, core_of_runner
from actors.worker.core import WorkerCore
from actors.worker.verbs import core_of
from actors.worker.worker import BaseWorker
from bus import DEAD_LETTERED, DeadLetters, WorkerBus

if TYPE_CHECKING:
    from types import TracebackType

    from actors.runs.run import RunStatus
    from actors.runs.runs import Run, Runs
    from actors.runs.store import RunFilters, RunStore
    from bus import WorkerReadyData


class _Requester(BaseWorker):
    """The hidden worker answers come back to."""


@runs_as_sync
class Client(AsyncClient):
    """Asks workers for jobs from anywhere: `async with Client(...) as client: await client.request("a")`."""

    def __init__(
        self,
        to: str | WorkerBus | WorkerRunner,
        *,
        name: str | None = None,
        run_store: RunStore | str | None = None,
        own_runs: bool = True,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Make a client.

        Args:
            to: A bus URL, a bus, or a runner of this process that is running.
            name: The name it asks under; None makes one up.
            run_store: Where its runs are kept: an open store, or the URL of one as `open_run_store` takes it. None is
                the Redis or NATS server of the bus, under its namespace, or the memory of this process.
            own_runs: Whether runs that nobody does are done by this process, as long as the client lives; else by the
                owners of other processes alone.
            options: What `open_bus` takes beside a URL; and `ready_timeout`, the seconds that a job waits for somebody
                to serve its name, 30 unless said otherwise.
        """
        self._to = to
        self._worker = _Requester(name)
        self._runner: WorkerRunner | None = None
        self._stack: AsyncExitStack | None = None
        self._run_store = run_store
        self._own_runs = own_runs
        self._options = options
        self._runs: Runs | None = None
        self._opening = anyio.Lock()

    @staticmethod
    def sync(
        to: str | WorkerBus,
        *,
        name: str | None = None,
        run_store: str | None = None,
        own_runs: bool = True,
        **options: Unpack[ClientOptions],
    ) -> SyncClient:
        """A client for code without an event loop, whose methods block: `with Client.sync(url) as client: ...`.

        Args:
            to: A bus URL, or a bus that is not started.
            name: As above.
            run_store: As above, but the URL of a store.
            own_runs: As above.
            options: As above.

        Raises:
            TypeError: Something was given that lives in an event loop, such as a runner.
        """
        return SyncClient(to, name=name, run_store=run_store, own_runs=own_runs, **options)

    async def __aenter__(self) -> Self:
        """Connect."""
        stack = AsyncExitStack()
        if isinstance(self._to, WorkerRunner):
            self._runner = self._to
        else:
            self._runner = WorkerRunner(bus=self._to, handle_sigint=False, handle_sigterm=False, **self._options)
            await stack.enter_async_context(self._runner)
        try:
            await self._runner.add_workers(self._worker)
        except BaseException:
            await stack.aclose()
            raise
        stack.push_async_callback(self._leave)
        self._stack = stack
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Cancel what is still open, and disconnect."""
        stack, self._stack, self._runs = self._stack, None, None
        return await stack.__aexit__(kind, error, trace) if stack is not None else None

    def workers(self) -> list[WorkerReadyData]:
        """Every worker that is known now, on any runner, but the clients, whose names begin with `_`."""
        self._connected()
        assert self._runner is not None
        registry = self._runner.registry
        names = dict.fromkeys([*registry.local_workers, *registry.remote_workers])
        return [
            data
            for name in names
            for data in registry.replicas(name)
            if not isinstance(self._runner.get_worker(name), _Requester) and not name.startswith("_")
        ]

    async def submit(
        self,
        *worker_names: str,
        params: JobGroupParams | None = None,
        idempotency_key: str | None = None,
        ttl: float | None = RUN_TTL,
        **keywords: Unpack[RunKeywords],
    ) -> Run:
        """Enter a job, or a group of jobs, that outlives this client and whoever does it, and return at once.

        Args:
            worker_names: Whom to ask.
            params: As for `BaseWorker.job_group`; either this or keywords.
            idempotency_key: The same key gives the same run, however often it is submitted; None makes a new one.
            ttl: Seconds the run is kept after it has ended; None for ever.
            keywords: `name`, `payload`, `payloads`, `timeout`, `cancel_on_error`, `delivery` and `label` as for
                `BaseWorker.job_group`; the timeout is that of one attempt.

        Raises:
            EncodeError: A payload cannot be kept.
            RunConflictError: Something else was submitted under that key.
            RunStoreError: The store does not answer; the run may be entered: submit it again under its key.
            TypeError: A keyword is not known, or both spellings were used.
            ValueError: A value is out of its range.
        """
        runs = await self._opened_runs()
        return await runs.submit(worker_names, resolve(params, JobGroupParams, **keywords), idempotency_key, ttl)

    async def run(self, run_id: str) -> Run:
        """A run that was submitted, here or elsewhere.

        Raises:
            RunNotFoundError: There is none of that id.
            RunStoreError: The store does not answer.
        """
        return await (await self._opened_runs()).find(run_id)

    async def runs(self, **filters: Unpack[RunFilters]) -> Sequence[RunStatus]:
        """The latest runs, latest first; filters as for `RunStore.find`."""
        return await (await self._opened_runs()).store.find(**filters)

    @property
    def dead_letters(self) -> DeadLetters:
        """The jobs that were given up on: to be listed, inspected, discarded, or done again with `requeue`."""
        self._connected()
        assert self._runner is not None
        return self._runner.bus.dead_letters

    async def requeue(self, letter_id: str, *, timeout: float | None = None) -> Any:
        """Do a job that was given up on again, as a new job of this client, and return its answer.

        The letter stays until that job has completed, or was given up on as well and has a letter of its own.

        Args:
            letter_id: The letter's id.
            timeout: Seconds for the new job; None for no limit. What was left to the old one does not count.

        Raises:
            ValueError: There is no such letter, or it holds no job.
            JobError: The new job did not complete.
            TransportError: The network does not show its letters now.
        """
        letters = self.dead_letters
        letter = await letters.get(letter_id)
        if letter is None or letter.problem is not None:
            why = f"it cannot be read: {letter.problem}" if letter is not None else "there is none of that id"
            raise ValueError(f"dead letter {letter_id!r} cannot be done again: {why}")
        try:
            answer = await self.job(letter.worker_name, name=letter.job_name, payload=letter.payload, timeout=timeout)
        except JobError as error:
            if is_told(error.status, error.error, DEAD_LETTERED):
                await letters.discard(letter_id)
            raise
        await letters.discard(letter_id)
        return answer

    async def _opened_runs(self) -> Runs:
        """The runs of its store, opened when they are first asked for: most clients never do."""
        worker = self._connected()
        async with self._opening:
            if self._runs is None:
                from actors.runs.runs import Runs, store_for  # noqa: PLC0415 - only who uses it loads it

                assert self._stack is not None
                assert self._runner is not None
                async with AsyncExitStack() as opened:
                    store = self._run_store
                    if store is None or isinstance(store, str):
                        store = await opened.enter_async_context(store_for(store, self._runner))
                    runs = Runs(store, worker)
                    if self._own_runs:
                        await opened.enter_async_context(runs.owned(self._runner))
                    self._stack.push_async_exit(opened.pop_all())
                self._runs = runs
            return self._runs

    async def _leave(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._worker.stop()

    @property
    def __actorbus__(self) -> WorkerCore:
        return core_of(self._connected())

    def _connected(self) -> BaseWorker:
        if self._stack is None:
            raise RunnerStateError("the client is not connected: use it inside 'async with Client(...) as client'")
        core_of_runner(self._runner).require_here()
        return self._worker


def runner_of(client: Client) -> WorkerRunner:
    """The runner that a client asks through: the one it was given, or its own.

    Raises:
        RunnerStateError: The client is not connected.
    """
    client._connected()
    assert client._runner is not None
    return client._runner
