"""The owner of runs: a worker that asks for the jobs of runs and writes down what comes of them."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from actors.jobs.errors import JobError
from actors.jobs.events import JobEvent
from actors.observability.trace import received, tracing
from actors.requester.contexts import JobGroup
from actors.runs.errors import RunLostError, RunNotFoundError, RunStoreError, RunValueError
from actors.runs.run import Lease, RunEventType, RunProgress, RunRequest, RunState
from actors.runs.store import RunStore
from actors.runs.stores.record import kept_error
from actors.worker.handlers import subscribe
from actors.worker.verbs import core_of
from actors.worker.worker import BaseWorker
from bus import Backoff, EncodeError, ErrorInfo, JobStatus, TransportError
from bus.log import log

T = TypeVar("T")

TOPIC = "actorbus.runs"
"""Where the id of a run is published that was submitted, or is to be cancelled: owners look at once."""

STOP_PATIENCE = 10.0
"""Seconds, besides `cancel_grace`, that the workers of a cancelled run may take to say that they have stopped."""

RELEASE_PATIENCE = 5.0
"""Seconds that leaving runs to others may take when the owner ends."""

CANCELLED = "the run was cancelled"

BACKOFF = Backoff(first=0.05, limit=2.0, jitter=0.5)

_KINDS = {JobEvent.UPDATE: RunEventType.UPDATE, JobEvent.STREAM_DATA: RunEventType.STREAM}


class RunOwner(BaseWorker):
    """Does the runs of a store, as long as its runner lives.

    A run that is pending it begins; one whose owner gives no sign of life for `lease` seconds it takes over, as the
    next attempt, and a run that has cost `max_attempts` owners it fails. When it ends, it leaves its runs to others.
    Any number of owners may share a store; each run has one at a time, and what an earlier one writes is refused.
    A run whose request it cannot read it leaves to others, and fails it if nobody has taken it within the runner's
    `ready_timeout`. Runs whose time is over it forgets.

    Args:
        store: An open run store.
        name: Of the worker; None makes one up.
        heartbeat: Seconds between two signs of life, and between two looks at the store.
        lease: Seconds without one after which an owner is dead; None is five times `heartbeat`.
        max_runs: Runs it does at a time, 1 or more.
        max_attempts: Owners that a run may cost, 1 or more.
        sweep: Seconds between two looks for runs whose time is over, on average.
    """

    def __init__(
        self,
        store: RunStore,
        name: str | None = None,
        *,
        heartbeat: float = 1.0,
        lease: float | None = None,
        max_runs: int = 1000,
        max_attempts: int = 5,
        sweep: float = 60.0,
    ) -> None:
        super().__init__(name)
        self._store = store
        self._heartbeat = heartbeat
        self._patience = 5 * heartbeat if lease is None else lease
        self._max_runs = max_runs
        self._max_attempts = max_attempts
        self._sweep_every = sweep
        self._own: dict[str, _Doing] = {}
        self._seen: dict[str, tuple[Lease, float]] = {}
        self._unreadable: dict[str, str] = {}
        self._news = anyio.Event()

    async def start(self) -> None:
        """Begin to look for runs."""
        await super().start()
        self.create_task(self._look(), "look", vital=False)
        self.create_task(self._sweep(), "sweep", vital=False)

    @subscribe(TOPIC)
    async def on_news(self, run_id: str) -> None:
        """A run was submitted somewhere, or is to be cancelled."""
        doing = self._own.get(run_id)
        (doing.news if doing is not None else self._news).set()

    async def _look(self) -> None:
        failures = 0
        while True:
            self._news = anyio.Event()
            try:
                await self._take_what_is_free()
                failures = 0
            except RunStoreError as error:
                failures += 1
                if failures == 1:
                    log().warning("the run store does not answer; trying again", owner=self.name, error=str(error))
            with anyio.move_on_after(self._heartbeat * min(1 + failures, 10)):
                await self._news.wait()

    async def _take_what_is_free(self) -> None:
        now = core_of(self).hosted.tasks.now()
        leases = {lease.run_id: lease for lease in await self._store.leases()}
        self._unreadable = {run_id: why for run_id, why in self._unreadable.items() if run_id in leases}
        self._seen = {
            run_id: seen
            if (seen := self._seen.get(run_id)) is not None and seen[0] == lease
            else (lease, now if lease.owner or run_id in self._unreadable else -math.inf)
            for run_id, lease in leases.items()
            if run_id not in self._own
        }
        for lease, since in tuple(self._seen.values()):
            patience = self._patience if lease.owner else core_of(self).hosted.ready_timeout
            if len(self._own) < self._max_runs and now - since >= patience:
                taken = await self._store.take(lease, self.name)
                self._seen.pop(lease.run_id, None)
                if taken is not None:
                    self._own[lease.run_id] = doing = _Doing(taken)
                    self.create_task(self._do(doing), f"run {lease.run_id}", vital=False)

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(self._sweep_every * (0.5 + core_of(self).hosted.rng.random()))  # not all owners at once
            try:
                await self._store.sweep()
            except RunStoreError as error:
                log().warning("the run store does not answer: not swept", owner=self.name, error=str(error))

    async def _do(self, doing: _Doing) -> None:
        lease = doing.lease
        try:
            unreadable = self._unreadable.pop(lease.run_id, None)
            await _Attempt(self, self._store, doing).make(self._max_attempts, self._heartbeat, unreadable)
        except RunValueError as error:
            log().warning("a run is left to others", owner=self.name, run=lease.run_id, error=str(error))
            self._unreadable[lease.run_id] = str(error)
            await self._leave(lease)
        except (RunLostError, RunNotFoundError) as error:
            log().warning("a run was lost", owner=self.name, run=lease.run_id, error=str(error))
        except BaseException:
            await self._leave(lease)
            raise
        finally:
            self._own.pop(lease.run_id, None)

    async def _leave(self, lease: Lease) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_PATIENCE):
            try:
                await self._store.release(lease)
            except (RunStoreError, RunLostError, RunNotFoundError) as error:
                log().warning("a run could not be left to others", run=lease.run_id, error=str(error))


class _Doing:
    """A run under way here."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.news = anyio.Event()


class _Attempt:
    """One attempt at a run: its jobs, what they say, and how it ends."""

    def __init__(self, owner: RunOwner, store: RunStore, doing: _Doing) -> None:
        self._owner = owner
        self._store = store
        self._doing = doing
        self._lease = doing.lease
        self._progress = RunProgress()
        self._groups: dict[str, JobGroup] = {}
        self._answers: dict[str, Any] = {}
        self._errors: dict[str, ErrorInfo] = {}
        self._cancelled = doing.lease.cancelled
        self._jobs = anyio.CancelScope()
        self._idle = anyio.Event()

    async def make(self, max_attempts: int, heartbeat: float, unreadable: str | None) -> None:
        """Do the run, and write down how it ended."""
        if self._cancelled:
            await self._end(RunState.CANCELLED)
            return
        if self._lease.attempt > max_attempts:
            message = f"given up after {max_attempts} attempts: each of its owners died"
            await self._end(RunState.FAILED, ErrorInfo(type="RunLost", message=message))
            return
        if unreadable is not None:
            await self._end(RunState.FAILED, ErrorInfo(type=RunValueError.__name__, message=unreadable))
            return
        request = await self._again(lambda: self._store.request(self._lease.run_id))
        self._progress = RunProgress(total=len(request.worker_names), running=len(request.worker_names))
        await self._again(lambda: self._store.set_progress(self._lease, self._progress))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep, heartbeat, tasks)
                with self._jobs:
                    trace = received(request.traceparent, request.tracestate)
                    with trace, tracing(run=self._lease.run_id):  # the tasks of the members begin in it
                        async with anyio.create_task_group() as members:
                            for name in request.worker_names:
                                members.start_soon(self._member, name, request)
                self._idle.set()
                await self._conclude(request)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _cause(group) from None

    async def _conclude(self, request: RunRequest) -> None:
        failed = next(iter(self._errors.items()), None)
        if self._cancelled:
            await self._end(RunState.CANCELLED)
        elif failed is not None and (request.cancel_on_error or len(self._errors) == len(request.worker_names)):
            name, error = failed
            await self._end(RunState.FAILED, msgspec.structs.replace(error, message=f"{name}: {error.message}"))
        else:
            single = len(request.worker_names) == 1
            result = self._answers[request.worker_names[0]] if single else self._answers
            try:
                await self._again(lambda: self._store.set_result(self._lease, result))
            except EncodeError as error:  # all answers together are more than the store takes
                await self._end(RunState.FAILED, ErrorInfo(type="EncodeError", message=str(error)))
            else:
                await self._end(RunState.COMPLETED)

    async def _end(self, state: RunState, error: ErrorInfo | None = None) -> None:
        progress = msgspec.structs.replace(self._progress, running=0)

        async def change(to: RunState, why: ErrorInfo | None) -> bool:
            return await self._store.set_state(
                self._lease.run_id, RunState.RUNNING, to, lease=self._lease, error=why, progress=progress
            )

        if not await self._again(lambda: change(state, error)):  # cancelled at the last moment
            await self._again(lambda: change(RunState.CANCELLED, None))

    async def _keep(self, heartbeat: float, tasks: TaskGroup) -> None:
        """Give signs of life, and learn of cancellation."""
        while True:
            self._doing.news = anyio.Event()
            lease = await self._again(lambda: self._store.renew(self._lease))
            if lease.cancelled and not self._cancelled:
                self._cancelled = True
                tasks.start_soon(self._stop)
            with anyio.move_on_after(heartbeat):
                await self._doing.news.wait()

    async def _stop(self) -> None:
        """Tell all jobs to stop, and let them say that they have: only then the run has."""
        for group in tuple(self._groups.values()):
            group.tell_to_stop(CANCELLED)
        with anyio.move_on_after(core_of(self._owner).hosted.cancel_grace + STOP_PATIENCE):
            await self._idle.wait()
        for group in tuple(self._groups.values()):
            group.cancel(CANCELLED)

    async def _member(self, name: str, request: RunRequest) -> None:
        await self._push(RunEventType.AGENT_STARTED, name)
        payload = (request.payloads or {}).get(name, request.payload)
        try:
            job = self._owner.job(
                name,
                name=request.name,
                payload=payload,
                timeout=request.timeout,
                delivery=request.delivery,
                label=request.label,
            )
            async with job:
                self._groups[name] = group = self._owner.job_groups[job.job_id]
                if self._cancelled:  # while it was being asked for
                    group.tell_to_stop(CANCELLED)
                async for event in job:
                    if event.type in _KINDS:
                        await self._push(_KINDS[event.type], name, event.data)
            await self._push(RunEventType.AGENT_COMPLETED, name, job.response)
        except JobError as error:
            await self._failed(name, error.status, error.error, request)
        except (EncodeError, TransportError, ValueError, TypeError) as error:  # also what no job can be asked for with
            await self._failed(
                name, JobStatus.FAILED, ErrorInfo(type=type(error).__name__, message=str(error)), request
            )
        else:
            self._answers[name] = job.response
            await self._count(completed=1)
        finally:
            self._groups.pop(name, None)

    async def _failed(self, name: str, status: JobStatus, error: ErrorInfo | None, request: RunRequest) -> None:
        self._groups.pop(name, None)
        info = kept_error(error) or ErrorInfo(type=status.name, message=f"the job ended {status.value}")
        self._errors[name] = info
        data = {"status": status.value, "error": msgspec.structs.asdict(info)}
        await self._push(RunEventType.AGENT_FAILED, name, data)
        await self._count(failed=1)
        if request.cancel_on_error and not self._cancelled:
            self._jobs.cancel()

    async def _count(self, *, completed: int = 0, failed: int = 0) -> None:
        now = self._progress
        self._progress = RunProgress(now.total, now.completed + completed, now.failed + failed, now.running - 1)
        await self._again(lambda: self._store.set_progress(self._lease, self._progress))

    async def _push(self, kind: RunEventType, name: str, data: Any = None) -> None:
        await self._again(lambda: self._store.push_event(self._lease, kind, name, data))

    async def _again(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do something until the store lets us, or says that the run is lost."""
        failures = 0
        while True:
            try:
                return await operation()
            except RunStoreError as error:
                failures += 1
                if failures == 1:
                    log().warning(
                        "the run store does not answer; trying again", run=self._lease.run_id, error=str(error)
                    )
                await anyio.sleep(BACKOFF.delay(failures, core_of(self._owner).hosted.rng))


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group: because of it the others have stopped."""
    first = group.exceptions[0]
    return _cause(first) if isinstance(first, BaseExceptionGroup) else first
