"""The core of a runner: what its workers, jobs and groups have of it, and what it does with messages of its own."""

from __future__ import annotations

import inspect
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

import anyio
from anyio import CancelScope, get_cancelled_exc_class

from actors.jobs.errors import RunnerStateError, describe
from actors.jobs.lifecycle import WorkerState
from actors.jobs.nesting import current_job
from actors.jobs.outcome import lost, refusal
from actors.jobs.policies import RestartPolicy
from actors.jobs.remembered import Outcomes
from actors.observability.job_events import TOPIC, JobEvents
from actors.observability.trace import current_trace
from actors.performer.threads import Threads, ThreadStatistics
from actors.runner.roster import STOP_TIMEOUT, Roster
from actors.runner.signals import EndSignals
from actors.runner.statistics import RunnerStatistics
from actors.runner.supervisor import Supervisor
from actors.worker.core import Runner, WorkerCore
from actors.worker.worker import BaseWorker, Factory, MakesWorker
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
from bus.local.events import EventHandlers
from bus.local.home import Home
from bus.local.mailbox import Mailbox, Room
from bus.local.subscriber import Route
from bus.local.tasks import Signal, Tasks, is_cancellation
from bus.log import log

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from actors.requester.group import Group
    from bus import BusJobRequestMessage

EVENTS = ("on_ready", "on_error", "on_job_start", "on_job_complete", "on_job_error")
"""The events of a runner."""


MOST_NAMES = 5
"""Workers that are named in the line about what an end waits for."""


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


class RunnerCore:
    """What the machinery has of one runner. It hosts workers, asks and does for them, and lives once."""

    tasks: Tasks
    deadlines: Deadlines
    threads: Threads
    outcomes: Outcomes

    def __init__(
        self,
        face: Runner,
        name: str | None,
        bus: WorkerBus,
        *,
        concurrency: int | None,
        handle_sigint: bool,
        handle_sigterm: bool,
        session: str | None,
        ready_timeout: float,
        cancel_grace: float,
        drain_timeout: float,
        tracebacks: bool,
        rng: Random | None,
    ) -> None:
        self.face = face
        self.rng = rng or Random(secrets.randbits(64))
        drawn = self.rng.getrandbits(32)
        self.name = check_name("runner name", name) if name is not None else f"runner-{drawn:08x}"
        incarnation = f"{drawn ^ crc32(self.name.encode()):08x}"  # runners seeded alike make other ids
        self.new_id: Callable[[], str] = map(f"{incarnation}-{{}}".format, count(1)).__next__
        """An id that nobody else has: this life of the runner, and a number."""
        self.bus = bus
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, got {concurrency!r}")
        self.concurrency = concurrency or sys.maxsize
        self.registry = WorkerRegistry(self.name)
        self.session = check_name("session", session) if session is not None else bus.session
        self.ready_timeout = seconds("ready_timeout", ready_timeout)
        self.cancel_grace = seconds("cancel_grace", cancel_grace)
        self.drain_timeout = seconds("drain_timeout", drain_timeout)
        self.tracebacks = tracebacks
        self.open_groups: dict[Group, Group] = {}
        self.events = EventHandlers(face, EVENTS)
        self.job_events = JobEvents(self)
        self.roster = Roster(self)
        self.drained = Signal()
        self.running = False
        self.accepting = False
        self.cancelling = False
        self.ends = False
        self.auto_end = True
        self.failure: BaseException | None = None
        self.told: Callable[[], None] | None = None
        self.home: Home | None = None
        self._late_answers = 0
        self._put_off: list[tuple[WorkerCore, str, Callable[[], Awaitable[None]]]] = []
        self.begun = anyio.Event()
        """Set when all workers that were added before have started."""
        self._signals = EndSignals(self._waits, self.finish, sigint=handle_sigint, sigterm=handle_sigterm)
        self._connecting = False
        self._joined = False
        self._ending: str | None = None
        self._hooks_before: dict[WorkerCore, int] = {}
        self._lost: dict[str, None] | None = None
        self._mailbox: Mailbox | None = None

    def __repr__(self) -> str:
        return f"<{type(self.face).__name__} {self.name} {'running' if self.running else 'not running'}>"

    # --- ids, clocks, threads ---

    def wall_clock(self) -> float:
        """Unix time, for people; nothing depends on it."""
        return time.time()

    def statistics(self) -> RunnerStatistics:
        """What it holds now."""
        cores = [entry.core for entry in self.roster.entries.values()]
        pool = self.tasks.statistics() if self.running else None
        threads = self.threads.statistics() if hasattr(self, "threads") else ThreadStatistics()  # also after its end
        return RunnerStatistics(
            workers=len(cores),
            jobs=sum(len(core.admission.executions) for core in cores if core.admission is not None),
            groups=len(self.open_groups),
            deadlines=self.deadlines.statistics().armed if self.running else 0,
            tasks=pool.tasks - pool.idle if pool is not None else 0,
            late_answers=self._late_answers,
            threads=threads.running,
            abandoned_threads=threads.abandoned,
            remembered=len(self.outcomes) if self.running else 0,
        )

    # --- errors and events ---

    def listens(self, event: str) -> bool:
        """Whether an event has a handler."""
        return self.events.listens(event)

    async def emit(self, event: str, *details: object) -> None:
        """Call the handlers of an event."""
        await self.events.emit(event, *details)

    async def guarded(self, core: WorkerCore, what: str, function: Callable[..., Any], *arguments: object) -> None:
        """Call one of a worker's hooks: what it raises is reported and goes no further."""
        try:
            result = function(*arguments)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if is_cancellation(error):
                raise
            self.report(core, f"hook {what} failed", error)

    def report(self, core: WorkerCore, what: str, error: BaseException) -> None:
        """Log what a worker's own code raised, and tell `on_error`."""
        text = str(describe(error))
        log().error(what, worker=core.name, error=text, exc_info=error)
        self._tell_error(WorkerErrorData(worker_name=core.name, error=f"{what}: {text}"))

    def _tell_error(self, data: WorkerErrorData) -> None:
        if self.listens("on_error") and self.running:
            self.tasks.start(self._emit_error, data)

    async def _emit_error(self, data: WorkerErrorData) -> None:
        await self.emit("on_error", data)

    # --- jobs ---

    def refuse(self, request: BusJobRequestMessage, status: JobStatus, kind: str, message: str) -> None:
        """Answer a request that no handler will see."""
        answer = refusal(request, status, kind, message)
        self.bus.post(answer)
        self.job_events.answered(request, status, answer.error)

    def holds(self, worker_name: str, job_id: str) -> bool:
        """Whether the worker of that name in this process has a job: also while it is inactive."""
        core = self.roster.find(worker_name)
        return core is not None and core.admission is not None and job_id in core.admission.executions

    def late_answer(self, core: WorkerCore, message: Any, *, known: bool) -> None:
        """Count an answer that nobody waits for; who still works for a job that is not `known` is told to stop."""
        self._late_answers += 1
        if message.origin and not known and not hasattr(message, "status"):
            self.bus.post(
                BusJobCancelMessage(
                    source=core.name,
                    target=message.source,
                    destination=message.origin,
                    job_id=message.job_id,
                    reason="its requester does not wait for it any more",
                )
            )

    # --- workers ---

    async def ready(self, core: WorkerCore) -> None:
        """A worker has started: enter it, tell its watchers, give it what waits for it.

        Whoever is cancelled while it waits for slow watchers leaves no worker half ready: the rest is done without it.
        """
        core.started_at = self.wall_clock()
        core.move(WorkerState.READY)
        for topic in core.definition.topics:
            self.bus.follow(topic, core.name)
        over = anyio.Event()
        failed: list[BaseException] = []

        async def enter(_argument: None) -> None:
            try:
                await self._enter(core)
            except BaseException as error:
                if is_cancellation(error):
                    raise
                failed.append(error)
            finally:
                over.set()

        self.tasks.start(enter, None)
        await over.wait()
        if failed:
            raise failed[0]

    async def _enter(self, core: WorkerCore) -> None:
        definition = core.definition
        await self.announce(core)
        if core.state is not WorkerState.READY:  # ended by whoever was told
            return
        if core.admission is not None:
            core.admission.serve(core.active)
        if definition.jobs or definition.default is not None or core.by_events is not None:
            self.bus.serve(core.name, lambda: core.free_slots)
        if core.active:
            core.queue_hook("on_activated", core.activation_args)
        for name in definition.ready:
            await self.registry.watch(name, core.on_ready, core.on_lost)

    async def announce(self, core: WorkerCore, *, ready: bool = True) -> None:
        """Enter a worker, or its change, in the registry, and tell the other runners."""
        data = WorkerReadyData(
            worker_name=core.name,
            runner=self.name,
            parent=core.parent.name if core.parent is not None else None,
            active=core.active and ready,
            started_at=core.started_at,
            address=self.bus.address,
            topics=tuple(core.definition.topics),
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

    def end(self, core: WorkerCore, reason: str, *, drain: bool = True) -> None:
        """Begin to end a worker and its children."""
        self.roster.end(core, reason, drain=drain)

    def crashed(self, core: WorkerCore, error: BaseException) -> None:
        """A worker's own code has failed, beside its `run()`: it fails as if that had raised."""
        self.roster.crashed(core, error)

    async def stop(self, core: WorkerCore) -> None:
        """Stop a worker for its own `stop()`."""
        await self.roster.stop_itself(core)

    async def add(self, workers: tuple[BaseWorker | MakesWorker, ...]) -> None:
        """Add root workers."""
        for worker in workers:
            if self.running:
                self.require_accepting()
            await self.roster.add(worker)

    async def add_children(
        self, core: WorkerCore, workers: tuple[BaseWorker | MakesWorker, ...], *, watch: bool
    ) -> None:
        """Add children of a worker."""
        for worker in workers:
            child = await self.roster.add(worker, parent=core)
            if watch:  # for as long as the child lives
                await self.registry.watch(child.name, core.on_ready, core.on_lost)

    async def supervise_children(
        self, core: WorkerCore | None, factories: tuple[Factory, ...], restart: RestartPolicy | None
    ) -> None:
        """Add workers that are made again when they fail: children of one, or root workers."""
        supervisor = Supervisor(self.roster, core, factories, restart or RestartPolicy())
        await supervisor.start()
        if core is not None:
            if core.watched is None:
                core.watched = {}
            for name in supervisor.names:
                core.watched[name] = None
                await self.registry.watch(name, core.on_ready, core.on_lost)

    def require_here(self) -> None:
        """Refuse to be used from elsewhere.

        Raises:
            RunnerStateError: It lives in another event loop than the caller.
        """
        if self.home is not None and not self.home.here:
            state = "lived in an event loop that is closed" if self.home.gone else "lives in another event loop"
            raise RunnerStateError(
                f"runner {self.name!r} {state}: use it in the loop where it was started, make one in each loop, or ask "
                "from a thread with Client.sync(url)"
            )

    def require_accepting(self) -> None:
        """Refuse new work while the runner ends.

        Raises:
            RunnerStateError: It is ending.
        """
        if not self.accepting:
            raise RunnerStateError(f"runner {self.name!r} is ending: it takes no new jobs or workers")

    def worker_stopped(self) -> None:
        """A worker is gone, and made again or not; with the last one the runner ends."""
        self.drained.wake()
        if self.running and self.auto_end and not self.roster.entries and not self.roster.recovering:
            self.finish("its last worker stopped")

    # --- its own life ---

    def failed(self, error: BaseException) -> None:
        """Something the runner cannot go on without has failed."""
        text = str(describe(error))
        log().error("runner failed", runner=self.name, error=text)
        self.failure = error
        self.finish(text, at_once=True)

    def finish(self, reason: str, *, at_once: bool = False) -> None:
        """Begin to end; at once also while it ends gracefully."""
        if at_once:
            self.cancelling = True
            self.roster.hurry()
        self._ending = self._ending or reason
        self.accepting = False
        if not self.ends:
            self._hooks_before = self.roster.hooks_under_way(self.roster.children_first())
        self.ends = True
        self.drained.wake()
        if self._connecting:
            self.bus.give_up()
        if self.told is not None:
            self.told()

    async def connect(self) -> None:
        """Start its bus; returns early if it is ended while it waits for the network."""
        self._signals.begin()
        self._connecting = True
        await self.bus.lend()
        self._connecting = False

    def over(self) -> None:
        """Note that it has ended."""
        self._signals.end()
        self.running = False
        self.begun.set()

    def _waits(self) -> str:
        """What its end waits for, and for how long at most."""
        jobs: dict[str, int] = {}
        for name, entry in self.roster.entries.items():
            admission = entry.core.admission
            if admission is not None and admission.executions:
                jobs[repr(name)] = len(admission.executions)
        if self.ends and self.cancelling:
            return "at once"
        if not jobs:
            return f"no job is under way; workers that clean up have up to {STOP_TIMEOUT:g} s each"
        names = [*jobs][:MOST_NAMES]
        more = f" and {len(jobs) - MOST_NAMES} more workers" if len(jobs) > MOST_NAMES else ""
        count = sum(jobs.values())
        plural = "s" if count > 1 else ""
        return f"waiting up to {self.drain_timeout:g} s for {count} job{plural} of {', '.join(names)}{more}"

    async def live(self, task_group: TaskGroup) -> None:
        """Run everything in a task group, from the first worker to the last, and leave nothing behind."""
        current_job.set(None)
        if current_trace.get() is not None:  # else there is one variable less to look at after each job
            current_trace.set(None)
        self.tasks = Tasks(task_group)
        self.deadlines = Deadlines(self.tasks)
        self.threads = Threads(self.tasks)
        self.outcomes = Outcomes(self.tasks.now)
        self._mailbox = Mailbox(self.name, self._obey, self.tasks)
        self.tasks.spawn(self.deadlines.run)
        self.running = self.accepting = True
        self.registry.listen(self._registry_changed)
        forget_stop = self.bus.on_stop(self._bus_stopped)
        try:
            self.bus.route(self.name, Route(self._deliver, self._deliver), runner=True)
            self._joined = True
            await self.roster.open()
            for data in self.bus.known_workers():
                await self.registry.register(data)
            self.tasks.start(self._tell_ready, None)
            while not self.ends:
                await self.drained.wait(self.tasks)
            await self._drain()
        except BaseException as error:  # noqa: BLE001 - raised by `run()` once everybody has been told
            if not isinstance(error, get_cancelled_exc_class()):  # else the task group says who failed
                self.failure = self.failure or error
            self.finish(f"the runner failed: {type(error).__name__}", at_once=True)
        with CancelScope(shield=True):
            await self._tear_down()
        forget_stop()
        self.tasks.close()

    def when_running(self, core: WorkerCore, action: str, verb: Callable[[], Awaitable[None]]) -> None:
        """Do something for a worker once all workers that were added before it runs have started."""
        self._put_off.append((core, action, verb))

    async def _tell_ready(self, _argument: None) -> None:
        put_off, self._put_off = self._put_off, []
        for core, action, verb in put_off:
            try:
                await verb()
            except Exception as error:  # noqa: BLE001 - who asked for it has gone on
                self.report(core, f"could not {action}, as it was told before the runner ran", error)
        await self.emit("on_ready")
        self.begun.set()

    async def _drain(self) -> None:
        if self.cancelling or await self.roster.drain(
            self.roster.children_first(), self.drain_timeout, self._hooks_before
        ):
            return
        if not self.cancelling:  # else it was cut short on purpose
            log().warning("jobs did not drain in time", runner=self.name, seconds=self.drain_timeout)

    async def _tear_down(self) -> None:
        reason = self._ending or "the runner ended"
        await self.roster.stop_all(reason)
        await self.job_events.flush()
        if self._joined:
            self.bus.unroute(self.name)
        self.registry.unlisten(self._registry_changed)
        self.threads.close()

    def _bus_stopped(self) -> None:
        self.finish("its bus was stopped", at_once=True)

    # --- what it is told ---

    def _deliver(self, message: BusMessage, *, force: bool = False) -> Room | None:  # noqa: ARG002 - its room is unbounded
        assert self._mailbox is not None
        if isinstance(message, (BusEndMessage, BusCancelMessage)):
            self._hear_end(message)  # at once: its sender may be gone when the mailbox gets to it
        else:
            self._mailbox.put(message)
        return None

    def _hear_end(self, message: BusEndMessage | BusCancelMessage) -> None:
        if message.session == self.session if message.session is not None else self._is_ours(message):
            self.finish(
                message.reason or f"worker {message.source!r} ended the session",
                at_once=isinstance(message, BusCancelMessage),
            )

    async def _obey(self, message: BusMessage) -> None:
        """Do what any other message to this runner asks for."""
        if isinstance(message, BusWorkerReadyMessage):
            await self.registry.register(
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
            await self.registry.unregister(message.worker_name, message.runner, reason=message.reason)
        elif isinstance(message, BusWorkerRegistryMessage):
            await self.registry.replace_runner(message.runner, message.origin, message.workers)
        elif isinstance(message, BusDataLostMessage):
            self._give_up_stored_jobs()
        elif isinstance(message, BusAddWorkerMessage):
            if message.target == self.name or self._is_ours(message):
                await self.add((message.worker,))
        elif isinstance(message, BusWorkerErrorMessage):
            self._tell_error(WorkerErrorData(worker_name=message.source, error=message.error))

    def _is_ours(self, message: BusMessage) -> bool:
        """Whether a message to all runners comes from a worker of this one."""
        return not message.origin and self.roster.find(message.source) is not None

    def _give_up_stored_jobs(self) -> None:
        """End what others were asked for: the requests, or their answers, may be among what was lost."""
        bus = self.bus
        # What runs at most once is stored nowhere, and what waits here to be sent will be.
        safe = frozenset(bus.unstored_jobs()) if isinstance(bus, NetworkBus) else frozenset()
        for group in self._groups():
            for name in group.worker_names:
                stored = (name, group.asker.name, group.job_id) not in safe
                if group.awaits(name) and stored and not self._stays_here(name, group.job_id):
                    group.fail_member(name, JobStatus.FAILED, lost(name))

    def _stays_here(self, worker_name: str, job_id: str) -> bool:
        """Whether a worker of this process has a job that was never on the network."""
        core = self.roster.find(worker_name)
        execution = core.admission.executions.get(job_id) if core is not None and core.admission is not None else None
        return execution is not None and not execution.request.origin

    def _registry_changed(self, change: WorkerReadyData | WorkerLostData) -> None:
        """When nobody serves a name any more, whoever waits for it waits `ready_timeout` longer at most."""
        if self.job_events.wanted or (isinstance(change, WorkerReadyData) and TOPIC in change.topics):
            self.job_events.look()
        if self.running and self.open_groups and not self.registry.available(change.worker_name):
            if self._lost is None:
                self._lost = {}
                self.tasks.start(self._check_lost, None)
            self._lost[change.worker_name] = None

    async def _check_lost(self, _argument: None) -> None:
        names, self._lost = self._lost or {}, None
        for group in self._groups():
            for name in group.worker_names:
                if name in names and group.awaits(name) and not self.registry.available(name):
                    group.await_ready(name)

    def _groups(self) -> list[Group]:
        """What the workers of this runner have asked for and what has not ended."""
        return list(self.open_groups)
