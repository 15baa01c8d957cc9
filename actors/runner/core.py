"""What a runner is to the workers it hosts: names, clock, tasks, and where errors go."""

from __future__ import annotations

import inspect
import secrets
import sys
import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar
from zlib import crc32

import msgspec
from anyio import CapacityLimiter

from actors.jobs.errors import RunnerStateError, describe
from actors.jobs.lifecycle import WorkerState
from actors.jobs.outcome import lost, refusal
from actors.observability.job_events import TOPIC, JobEvents
from actors.performer.threads import THREADS
from bus import (
    BusAddWorkerMessage,
    BusCancelMessage,
    BusDataLostMessage,
    BusEndMessage,
    BusJobCancelMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobStatus,
    NetworkBus,
    WorkerBus,
    WorkerErrorData,
    WorkerLostData,
    WorkerReadyData,
    WorkerRegistry,
    check_name,
    open_bus,
)
from bus.local.deadlines import Deadlines
from bus.local.events import EventSource
from bus.local.tasks import Tasks, Waiter, is_cancellation, wake
from bus.log import log

if TYPE_CHECKING:
    from actors.requester.group import JobGroup
    from actors.runner.runner import WorkerRunner
    from actors.worker.worker import BaseWorker
    from bus import BusJobRequestMessage


def seconds(name: str, value: float) -> float:
    """Return a duration that is one.

    Raises:
        ValueError: It is negative, or not a number.
    """
    if not value >= 0:
        raise ValueError(f"{name} must be seconds, 0 or more, got {value!r}")
    return value


def opened(bus: WorkerBus | str | None, options: dict[str, Any]) -> WorkerBus:
    """The bus a runner was given: as it is, or to be opened with options.

    Raises:
        ValueError: Nothing is known under that URL.
        TypeError: There are options for a bus that was made already, or that its kind does not have.
    """
    if isinstance(bus, WorkerBus):
        if options:
            raise TypeError(f"{bus!r} is made already: say {', '.join(options)} where it is made, or give a URL here")
        return bus
    return open_bus(bus or "memory://", **options)


class Signal:
    """Something that happens again and again, for the tasks that wait for it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiters: dict[Waiter, None] = {}

    def wake(self) -> None:
        """It happened."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            wake(waiter)

    async def wait(self) -> None:
        """Wait until it happens next."""
        waiter = self._host.tasks.waiter()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)


class Host(EventSource):
    """The part of a runner that workers, jobs and groups use."""

    event_names: ClassVar[tuple[str, ...]] = ("on_ready", "on_error", "on_job_start", "on_job_complete", "on_job_error")

    tasks: Tasks
    deadlines: Deadlines

    def __init__(
        self,
        name: str | None,
        bus: WorkerBus,
        *,
        concurrency: int | None,
        session: str | None,
        ready_timeout: float,
        cancel_grace: float,
        tracebacks: bool,
        rng: Random | None,
    ) -> None:
        self.rng = rng or Random(secrets.randbits(64))
        drawn = self.rng.getrandbits(32)
        self.name = check_name("runner name", name) if name is not None else f"runner-{drawn:08x}"
        self._incarnation = f"{drawn ^ crc32(self.name.encode()):08x}"  # runners seeded alike make other ids
        self.bus = bus
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, got {concurrency!r}")
        self.concurrency = concurrency or sys.maxsize
        self.registry = WorkerRegistry(self.name)
        self.session = check_name("session", session) if session is not None else None
        self.ready_timeout = seconds("ready_timeout", ready_timeout)
        self.cancel_grace = seconds("cancel_grace", cancel_grace)
        self.tracebacks = tracebacks
        self.open_groups: dict[JobGroup, None] = {}
        self.job_events = JobEvents(self)
        self.running = False
        self.accepting = False
        self.late_answers = 0
        self.drained = Signal(self)
        self._threads: CapacityLimiter | None = None
        self._lost: dict[str, None] | None = None
        self._last_id = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {'running' if self.running else 'not running'}>"

    @property
    def threads(self) -> CapacityLimiter:
        """The threads of sync handlers."""
        if self._threads is None:
            self._threads = CapacityLimiter(THREADS)
        return self._threads

    def new_id(self) -> str:
        """An id nobody else has: this life of the runner, and a number."""
        self._last_id += 1
        return f"{self._incarnation}-{self._last_id}"

    def new_name(self, kind: str) -> str:
        """A name for a worker that was given none."""
        return f"{kind[:40]}-{self.new_id()}"

    def require_accepting(self) -> None:
        """Refuse new work while the runner ends.

        Raises:
            RunnerStateError: It is ending.
        """
        if not self.accepting:
            raise RunnerStateError(f"runner {self.name!r} is ending: it takes no new jobs or workers")

    def add_event_handler(self, event_name: str, handler: Any) -> None:
        """Call `handler(runner, ...)` when the event happens; many handlers, sync or async, none changes an outcome.

        `on_ready(runner)` once all workers added before `run` were started, `on_error(runner, WorkerErrorData)` when
        something of a worker failed, and the three job events with a `JobRecord`, one at a time in their order: behind
        a slow handler they wait in memory. `on_job_start` is told when a handler begins, and of each job that its
        workers have answered either `on_job_complete` or `on_job_error`: the latter whatever it is that kept it from
        completing, also when it had not begun. A job that nobody took, or that was lost with who had it, is told to
        `on_job_error` where it was asked for.
        """
        super().add_event_handler(event_name, handler)
        self.job_events.look()

    def remove_event_handler(self, event_name: str, handler: Any) -> None:
        """Stop calling a handler; see `add_event_handler`."""
        super().remove_event_handler(event_name, handler)
        self.job_events.look()

    def refuse(self, request: BusJobRequestMessage, status: JobStatus, kind: str, message: str) -> None:
        """Answer a request that no handler will see."""
        answer = refusal(request, status, kind, message)
        self.bus.post(answer)
        self.job_events.answered(request, status, answer.error)

    async def guarded(self, worker: BaseWorker, what: str, function: Callable[..., Any], *arguments: object) -> None:
        """Call one of a worker's hooks: what it raises is reported and goes no further."""
        try:
            result = function(*arguments)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if is_cancellation(error):
                raise
            self.report(worker, f"hook {what} failed", error)

    def report(self, worker: BaseWorker, what: str, error: BaseException) -> None:
        """Log what a worker's own code raised, and tell `on_error`."""
        text = f"{what}: {describe(error)}"
        log().error(what, worker=worker.name, error=str(describe(error)), exc_info=error)
        self.tell_error(WorkerErrorData(worker_name=worker.name, error=text))

    def tell_error(self, data: WorkerErrorData) -> None:
        """Tell `on_error`, if anybody listens."""
        if self._listens("on_error") and self.running:
            self.tasks.start(self._emit_error, data)

    def late_answer(self, worker: BaseWorker, message: Any, *, known: bool) -> None:
        """Count an answer nobody waits for; who still works for a job that is over here is told to stop."""
        self.late_answers += 1
        if message.origin and not known and not hasattr(message, "status"):
            self.bus.post(
                BusJobCancelMessage(
                    source=worker.name,
                    target=message.source,
                    destination=message.origin,
                    job_id=message.job_id,
                    reason="its requester does not wait for it any more",
                )
            )

    async def announce(self, worker: BaseWorker, *, ready: bool = True) -> None:
        """Enter a worker, or its change, in the registry, and tell the other runners."""
        data = WorkerReadyData(
            worker_name=worker.name,
            runner=self.name,
            parent=worker.parent,
            active=worker.active and ready,
            started_at=worker.started_at,
            address=self.bus.address,
            topics=tuple(worker._table.topics),
        )
        await self.registry.register(data)
        self.bus.post(
            BusWorkerReadyMessage(
                source=self.name,
                target=None,
                runner=self.name,
                worker_name=data.worker_name,
                parent=data.parent,
                active=data.active,
                started_at=data.started_at,
                topics=data.topics,
            )
        )

    async def worker_ready(self, worker: BaseWorker) -> None:
        """A worker has started: enter it, tell its watchers, give it what waits for it."""
        worker._started_at = self.wall_clock()
        worker._move(WorkerState.READY)
        for topic in worker._table.topics:
            self.bus.follow(topic, worker.name)
        await self.announce(worker)
        if worker._state is not WorkerState.READY:  # ended by whoever was told
            return
        if worker._executor is not None:
            worker._executor.serve(worker._active)
        if worker._table.jobs or worker._default is not None:
            self.bus.serve(worker.name, worker._free_slots)
        if worker._active:
            worker._queue_hook("on_activated", worker._activation_args)
        for name in worker._table.ready:
            await self.registry.watch(name, worker._on_ready, worker._on_lost)

    def wall_clock(self) -> float:
        """Unix time, for people; nothing depends on it."""
        return time.time()

    def registry_changed(self, change: WorkerReadyData | WorkerLostData) -> None:
        """When nobody serves a name any more, whoever waits for it waits `ready_timeout` longer at most."""
        if self.job_events.wanted or (isinstance(change, WorkerReadyData) and TOPIC in change.topics):
            self.job_events.look()
        if self.running and self.open_groups and not self.registry.available(change.worker_name):
            if self._lost is None:
                self._lost = {}
                self.tasks.start(self._check_lost, None)
            self._lost[change.worker_name] = None

    async def _check_lost(self, _argument: None) -> None:
        lost, self._lost = self._lost or {}, None
        for group in tuple(self.open_groups):
            for name in group.worker_names:
                if name in lost and group.awaits(name) and not self.registry.available(name):
                    group.await_ready(name)

    async def _emit_error(self, data: WorkerErrorData) -> None:
        await self._emit("on_error", data)


def hear_end(runner: WorkerRunner, message: BusEndMessage | BusCancelMessage) -> None:
    """Begin to end, if the message is for this session."""
    if message.session == runner.session if message.session is not None else _is_ours(runner, message):
        runner.finish(
            message.reason or f"worker {message.source!r} ended the session",
            at_once=isinstance(message, BusCancelMessage),
        )


async def obey(runner: WorkerRunner, message: BusMessage) -> None:
    """Do what any other message to `runner` asks for."""
    if isinstance(message, BusWorkerReadyMessage):
        await runner.registry.register(
            WorkerReadyData(
                worker_name=message.worker_name,
                runner=message.runner,
                parent=message.parent,
                active=message.active,
                started_at=message.started_at,
                address=message.origin,
                topics=message.topics,
            )
        )
    elif isinstance(message, BusWorkerLostMessage):
        await runner.registry.unregister(message.worker_name, message.runner, reason=message.reason)
    elif isinstance(message, BusWorkerRegistryMessage):
        await runner.registry.replace_runner(message.runner, message.origin, message.workers)
    elif isinstance(message, BusDataLostMessage):
        _give_up_stored_jobs(runner)
    elif isinstance(message, BusAddWorkerMessage):
        if message.target == runner.name or _is_ours(runner, message):
            await runner.add_workers(message.worker)
    elif isinstance(message, BusWorkerErrorMessage):
        runner.tell_error(WorkerErrorData(worker_name=message.source, error=message.error))


def _give_up_stored_jobs(runner: WorkerRunner) -> None:
    """End what others were asked for: the requests, or their answers, may be among what was lost."""
    bus = runner.bus
    # What runs at most once is stored nowhere, and what waits here to be sent will be.
    safe = frozenset(bus.unstored_jobs()) if isinstance(bus, NetworkBus) else frozenset()
    for group in tuple(runner.open_groups):
        for name in group.worker_names:
            stored = (name, group._owner.name, group.job_id) not in safe
            if group.awaits(name) and stored and not _stays_here(runner, name, group.job_id):
                group.fail_member(name, JobStatus.FAILED, lost(name))


def _stays_here(runner: WorkerRunner, name: str, job_id: str) -> bool:
    """Whether a worker of this process has a job that was never on the network."""
    worker = runner.get_worker(name)
    job = worker._executor.jobs.get(job_id) if worker is not None and worker._executor is not None else None
    return job is not None and not job.request.origin


def _is_ours(runner: WorkerRunner, message: BusMessage) -> bool:
    """Whether a message to all runners comes from a worker of this one."""
    return not message.origin and runner.get_worker(message.source) is not None


class RunnerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a runner: everything it holds.

    Attributes:
        workers: Workers on it.
        jobs: Jobs they have accepted and not answered.
        groups: Groups they asked for that have not ended.
        deadlines: Deadlines armed.
        tasks: Tasks that run something now.
        late_answers: Answers that came when nobody waited for them any more, since the start.
    """

    workers: int
    jobs: int
    groups: int
    deadlines: int
    tasks: int
    late_answers: int


def statistics_of(runner: WorkerRunner) -> RunnerStatistics:
    """What the runner holds now."""
    executors = [entry.worker._executor for entry in runner._roster.entries.values()]
    pool = runner.tasks.statistics() if runner.running else None
    return RunnerStatistics(
        workers=len(executors),
        jobs=sum(len(executor.jobs) for executor in executors if executor is not None),
        groups=len(runner.open_groups),
        deadlines=runner.deadlines.statistics().armed if runner.running else 0,
        tasks=pool.tasks - pool.idle if pool is not None else 0,
        late_answers=runner.late_answers,
    )
