"""The runner: hosts workers in one process, from the first to the last of them."""

from __future__ import annotations

import signal
from random import Random
from typing import TYPE_CHECKING, Any, Self

import anyio
import msgspec
from anyio import CancelScope, get_cancelled_exc_class

from actors import signals
from actors.errors import RunnerStateError
from actors.function import Function
from actors.host import Host
from actors.job import current_job
from actors.lifecycle import WorkerState
from actors.restart import RestartPolicy
from actors.roster import Roster
from actors.supervisor import Factory, Supervisor
from actors.worker import BaseWorker
from bus import (
    AsyncQueueBus,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusEndMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    WorkerBus,
    WorkerErrorData,
    WorkerReadyData,
)
from bus.deadlines import Deadlines
from bus.events import log
from bus.mailbox import Mailbox, Room
from bus.tasks import Tasks

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup


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


class WorkerRunner(Host):
    """Runs workers: `await runner.add_workers(...)`, then `await runner.run()` or `async with runner:`.

    A runner lives once. When it ends, running jobs drain, children stop before their parents, and every requester that
    still waits is told.
    """

    def __init__(
        self,
        name: str | None = None,
        bus: WorkerBus | None = None,
        *,
        handle_sigint: bool = True,
        handle_sigterm: bool = True,
        session: str | None = None,
        ready_timeout: float = 30.0,
        cancel_grace: float = 5.0,
        drain_timeout: float = 30.0,
        tracebacks: bool = False,
        rng: Random | None = None,
    ) -> None:
        """Make a runner.

        Args:
            name: Unique in a fleet, and stable across restarts; None makes one up.
            bus: How messages travel; None is an `AsyncQueueBus` of its own. A bus that is not started is started and
                stopped by the runner.
            handle_sigint: End gracefully on the first Ctrl-C, at once on the second.
            handle_sigterm: The same for SIGTERM.
            session: `end()` and `cancel()` of its workers reach all runners of this session; None is a session of its own.
            ready_timeout: Seconds a job waits for somebody to serve its name; long enough for a process to start.
            cancel_grace: Seconds a cancelled handler may take before its job is answered without it.
            drain_timeout: Seconds running jobs may take when the runner ends.
            tracebacks: Whether requesters get the tracebacks of handlers; they may hold secrets.
            rng: Where ids and jitter come from; give a seeded one for reproducible runs.

        Raises:
            InvalidNameError: A name breaks the rule for names.
        """
        super().__init__(
            name,
            bus if bus is not None else AsyncQueueBus(),
            session=session,
            ready_timeout=ready_timeout,
            cancel_grace=cancel_grace,
            tracebacks=tracebacks,
            rng=rng,
        )
        self.drain_timeout = drain_timeout
        self.cancelling = False
        self._signals = [
            number for number, wanted in ((signal.SIGINT, handle_sigint), (signal.SIGTERM, handle_sigterm)) if wanted
        ]
        self._roster = Roster(self)
        self._used = False
        self._auto_end = True
        self._ending: str | None = None
        self._failure: BaseException | None = None
        self._shutdown = False
        self._mailbox: Mailbox | None = None
        self._background: TaskGroup | None = None
        self._ready_event: anyio.Event | None = None

    # --- workers ---

    def get_worker(self, name: str) -> BaseWorker | None:
        """The worker of that name on this runner, or None."""
        entry = self._roster.entries.get(name)
        return entry.worker if entry is not None else None

    async def add_workers(self, *workers: BaseWorker | Function[Any, Any]) -> None:
        """Add root workers. They start at once if the runner runs, else when it does.

        Args:
            workers: New workers, or functions marked with `@function()`.

        Raises:
            DuplicateNameError: A name is taken; the workers named before it were added.
            RunnerStateError: A worker was added before, or the runner is ending.
        """
        for worker in workers:
            if self.running:
                self.require_accepting()
            await self._roster.add(worker.worker() if isinstance(worker, Function) else worker)

    async def supervise(self, *factories: Factory, restart: RestartPolicy | None = None) -> None:
        """Add root workers that are made again when they fail; see `BaseWorker.supervise`.

        When the policy gives up, the runner stops and `run()` raises `SupervisionError`.
        """
        await Supervisor(self._roster, None, factories, restart or RestartPolicy()).start()

    async def remove_worker(self, name: str) -> bool:
        """End one worker, its children first, and return when its name is free. False if there is none.

        Running jobs drain for up to `drain_timeout`, then they are cancelled; jobs that have not started wait for
        another worker of that name.
        """
        worker = self.get_worker(name)
        if worker is None:
            return False
        await self._end_tree(worker, "it was removed")
        return True

    # --- life ---

    async def run(self, *, auto_end: bool = True) -> None:
        """Run until ended.

        Args:
            auto_end: End when the last root worker has stopped; else only by `end()`, `cancel()` or a signal.

        Raises:
            RunnerStateError: It was run before.
            SupervisionError: Workers added by `supervise` failed too often.
        """
        if self._used:
            raise RunnerStateError(f"runner {self.name!r} has been run before: make a new one")
        self._used = True
        self._auto_end = auto_end
        await self.bus.attach(self.registry)
        owns_bus = not self.bus.started
        if owns_bus:
            await self.bus.start()
        try:
            await self._run()
        finally:
            if owns_bus:
                await self.bus.stop()
        if self._failure is not None:
            raise self._failure

    async def end(self, reason: str | None = None) -> None:
        """Begin to end gracefully, and return; `run()` returns when it has. Once is enough."""
        self._end(reason or "the runner ended")

    async def cancel(self, reason: str | None = None) -> None:
        """Begin to stop at once, also while it ends gracefully, and return."""
        self.cancelling = True
        self._end(reason or "the runner was cancelled")

    async def __aenter__(self) -> Self:
        """Run in the background; returns when the workers added so far were started."""
        self._ready_event = anyio.Event()
        self._background = anyio.create_task_group()
        await self._background.__aenter__()
        self._background.start_soon(self._run_in_background)
        await self._ready_event.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End gracefully and wait; at once if the body raised. What the body raised goes on as it is."""
        self.cancelling = self.cancelling or error is not None
        self._end("its context was left")
        assert self._background is not None
        if not isinstance(error, get_cancelled_exc_class()):
            await self._background.__aexit__(None, None, None)
            if self._failure is not None and error is None:
                raise self._failure
            return None
        return await self._background.__aexit__(kind, error, trace)

    def statistics(self) -> RunnerStatistics:
        """What it holds now."""
        executors = [entry.worker._executor for entry in self._roster.entries.values()]
        pool = self.tasks.statistics() if self.running else None
        return RunnerStatistics(
            workers=len(executors),
            jobs=sum(len(executor.jobs) for executor in executors if executor is not None),
            groups=len(self.open_groups),
            deadlines=self.deadlines.statistics().armed if self.running else 0,
            tasks=pool.tasks - pool.idle if pool is not None else 0,
            late_answers=self.late_answers,
        )

    # --- what workers and the roster use ---

    async def worker_ready(self, worker: BaseWorker) -> None:
        """A worker has started: enter it, tell its watchers, give it what waits for it."""
        worker._started_at = self.wall_clock()
        worker._move(WorkerState.READY)
        for topic in worker._table.topics:
            self.bus.follow(topic, worker.name)
        await self.announce(worker)
        if worker._executor is not None:
            worker._executor.paused = not worker._active
            worker._executor.resume()
        if worker._table.jobs or worker._default is not None:
            self.bus.serve(worker.name, worker._free_slots)
        if worker._active:
            worker._queue_hook("on_activated", worker._activation_args)
        for name in worker._table.ready:
            await self.registry.watch(name, worker._on_ready, worker._on_lost)

    async def add_children(
        self, parent: BaseWorker, workers: tuple[BaseWorker | Function[Any, Any], ...], *, watch: bool
    ) -> None:
        """Add children of a worker."""
        for given in workers:
            worker = given.worker() if isinstance(given, Function) else given
            await self._roster.add(worker, parent=parent)
            if watch:
                await parent.watch_workers(worker.name)

    async def supervise_children(
        self, parent: BaseWorker, factories: tuple[Factory, ...], restart: RestartPolicy | None
    ) -> None:
        """Add supervised children of a worker."""
        await Supervisor(self._roster, parent, factories, restart or RestartPolicy()).start()

    async def stop_worker(self, worker: BaseWorker) -> None:
        """Stop a worker for its own `stop()`; does nothing while the roster stops it."""
        entry = self._roster.entries.get(worker.name)
        if entry is not None and entry.worker is worker and not entry.stopping:
            self.end_worker(worker, "stop() was called", drain=False)
            await worker.wait()

    def end_worker(self, worker: BaseWorker, reason: str | None, *, drain: bool = True) -> None:
        """Begin to end a worker and its children."""

        async def end_it() -> None:
            if drain:
                await self._end_tree(worker, reason or "it was ended")
            else:
                await self._roster.stop(worker, reason or "it was cancelled")

        self.tasks.spawn(end_it)

    def worker_stopped(self, worker: BaseWorker) -> None:
        """A worker is gone; with the last root worker the runner ends."""
        self.drained.wake()
        if self._auto_end and worker.parent is None and not self._roster.entries:
            self._end("its last worker stopped")

    def failed(self, error: BaseException) -> None:
        """Something the runner cannot go on without has failed."""
        log().error("runner failed", runner=self.name, error=str(error))
        self._failure = error
        self.cancelling = True
        self._end(str(error))

    # --- inside ---

    async def _run(self) -> None:
        interrupted: BaseException | None = None
        async with anyio.create_task_group() as task_group:
            current_job.set(None)
            self.tasks = Tasks(task_group)
            self.deadlines = Deadlines(self.tasks)
            self._mailbox = Mailbox(self.name, self._handle, self.tasks)
            self.tasks.spawn(self.deadlines.run)
            if self._signals and signals.can_watch():
                self.tasks.spawn(signals.watch, self._signals, self._on_signal)
            self.running = self.accepting = True
            self.registry.listen(self.registry_changed)
            forget_stop = self.bus.on_stop(self._bus_stopped)
            try:
                self.bus.route(self.name, self._route, runner=True)
                await self._roster.open()
                for data in self.bus.known_workers():
                    await self.registry.register(data)
                await self._emit("on_ready")
                if self._ready_event is not None:
                    self._ready_event.set()
                while not self._shutdown:
                    await self.drained.wait()
            except BaseException as error:  # noqa: BLE001 - re-raised once everybody has been told
                interrupted = error
                self.cancelling = True
            with CancelScope(shield=True):
                await self._tear_down()
            forget_stop()
            self.bus.detach(self.registry)
            task_group.cancel_scope.cancel()
        self.running = False
        if interrupted is not None:
            raise interrupted

    async def _tear_down(self) -> None:
        self.accepting = False
        reason = self._ending or "the runner was cancelled"
        if not self.cancelling and not await self._roster.drain(self._roster.children_first(), self.drain_timeout):
            log().warning("jobs did not drain in time", runner=self.name, seconds=self.drain_timeout)
        for worker in self._roster.children_first():
            await self._roster.stop(worker, reason)
        for group in tuple(self.open_groups):
            group.cancel(reason)
        self.bus.unroute(self.name)
        self.registry.unlisten(self.registry_changed)

    async def _end_tree(self, worker: BaseWorker, reason: str) -> None:
        await self._roster.drain(self._roster.children_first(worker), self.drain_timeout)
        await self._roster.stop(worker, reason)

    def _end(self, reason: str) -> None:
        self._ending = self._ending or reason
        self.accepting = False
        self._shutdown = True
        if self.running:
            self.drained.wake()

    def _bus_stopped(self) -> None:
        self.cancelling = True
        self._end("its bus was stopped")

    def _route(self, message: BusMessage, *, force: bool = False) -> Room | None:  # noqa: ARG002 - its room is unbounded
        assert self._mailbox is not None
        self._mailbox.put(message)
        return None

    async def _handle(self, message: BusMessage) -> None:
        if isinstance(message, (BusEndMessage, BusCancelMessage)):
            same = message.session is not None and message.session == self.session
            if same or (not message.origin and self.get_worker(message.source) is not None):
                self.cancelling = self.cancelling or isinstance(message, BusCancelMessage)
                self._end(message.reason or f"worker {message.source!r} ended the session")
        elif isinstance(message, BusWorkerReadyMessage):
            await self.registry.register(
                WorkerReadyData(
                    worker_name=message.worker_name,
                    runner=message.runner,
                    parent=message.parent,
                    active=message.active,
                    started_at=message.started_at,
                    address=message.origin,
                )
            )
        elif isinstance(message, BusWorkerLostMessage):
            await self.registry.unregister(message.worker_name, message.runner, reason=message.reason)
        elif isinstance(message, BusWorkerRegistryMessage):
            await self.registry.replace_runner(message.runner, message.origin, message.workers)
        elif isinstance(message, BusAddWorkerMessage):
            await self.add_workers(message.worker)
        elif isinstance(message, BusWorkerErrorMessage):
            self.tell_error(WorkerErrorData(worker_name=message.source, error=message.error))

    async def _run_in_background(self) -> None:
        try:
            await self.run(auto_end=False)
        except Exception as error:
            if self._ready_event is not None and not self._ready_event.is_set():
                self._ready_event.set()
            if error is not self._failure:
                raise

    def _on_signal(self, number: signal.Signals) -> None:
        if self._shutdown:
            log().warning("second signal: stopping at once", signal=number.name)
            self.cancelling = True
            self.drained.wake()
        else:
            log().info("signal: ending gracefully, once more to stop at once", signal=number.name)
            self._end(f"received {number.name}")
