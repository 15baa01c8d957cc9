"""The runner: hosts workers in one process, from the first to the last of them."""

from __future__ import annotations

import contextlib
from random import Random
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio import CancelScope, get_cancelled_exc_class

from actors.jobs.errors import RunnerStateError
from actors.jobs.nesting import current_job
from actors.jobs.policies import RestartPolicy
from actors.observability.trace import current_trace
from actors.runner.core import Host, RunnerStatistics, hear_end, obey, opened, seconds, statistics_of
from actors.runner.roster import Roster
from actors.runner.signals import EndSignals
from actors.runner.supervisor import Factory, Supervisor
from actors.worker.function import Function
from actors.worker.worker import BaseWorker
from bus import BusCancelMessage, BusEndMessage, BusMessage, WorkerBus
from bus.local.deadlines import Deadlines
from bus.local.mailbox import Mailbox, Room
from bus.local.tasks import Tasks
from bus.log import log

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup


class WorkerRunner(Host):
    """Runs workers: `await runner.add_workers(...)`, then `await runner.run()` or `async with runner:`.

    A runner lives once. When it ends, running jobs drain, children stop before their parents, and every requester that
    still waits is told.
    """

    def __init__(
        self,
        name: str | None = None,
        bus: WorkerBus | str | None = None,
        *,
        concurrency: int | None = None,
        handle_sigint: bool = True,
        handle_sigterm: bool = True,
        session: str | None = None,
        ready_timeout: float = 30.0,
        cancel_grace: float = 5.0,
        drain_timeout: float = 30.0,
        tracebacks: bool = False,
        rng: Random | None = None,
        **bus_options: Any,
    ) -> None:
        """Make a runner.

        Args:
            name: Unique in a fleet, and stable across restarts; None makes one up.
            bus: How messages travel: a bus, or the URL of one as `open_bus` takes it; None is an `AsyncQueueBus` of its
                own. A bus that is not started is started and stopped by the runner.
            concurrency: Jobs that each of its workers may run at once, 1 or more, where the worker's own
                `max_concurrency` is not lower; None leaves it to the workers.
            handle_sigint: End gracefully on the first Ctrl-C, at once on the second.
            handle_sigterm: The same for SIGTERM.
            session: `end()` and `cancel()` of its workers reach all runners of this session; None is one of its own.
            ready_timeout: Seconds a job waits for somebody to serve its name; long enough for a process to start.
            cancel_grace: Seconds a cancelled handler may take before its job is answered without it, and a `stop()`
                once the runner is cancelled.
            drain_timeout: Seconds running jobs may take when the runner ends.
            tracebacks: Whether requesters get the tracebacks of handlers; they may hold secrets.
            rng: Where ids and jitter come from; give a seeded one for reproducible runs.
            bus_options: What `open_bus` takes beside the URL: `prefetch`, `consumer_id`, `signing_key` and the like.

        Raises:
            InvalidNameError: A name breaks the rule for names.
            ValueError: A number is out of its range, or no bus is known for the URL.
            TypeError: The bus has no such option, or was made already.
        """
        super().__init__(
            name,
            opened(bus, bus_options),
            concurrency=concurrency,
            session=session,
            ready_timeout=ready_timeout,
            cancel_grace=cancel_grace,
            tracebacks=tracebacks,
            rng=rng,
        )
        self.drain_timeout = seconds("drain_timeout", drain_timeout)
        self.cancelling = False
        self._signals = EndSignals(self, sigint=handle_sigint, sigterm=handle_sigterm)
        self._roster = Roster(self)
        self._used = False
        self._connecting = False
        self._auto_end = True
        self._ending: str | None = None
        self._failure: BaseException | None = None
        self.ends = False
        self._mailbox: Mailbox | None = None
        self._background: TaskGroup | None = None
        self._begun = anyio.Event()
        self._joined = False
        self._over = anyio.Event()

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
        another worker of that name. Cancelling the call does not stop the removal. Inside a job that the worker, or one
        of its children, takes part in, this returns at once: the removal waits for that job.
        """
        worker = self.get_worker(name)
        if worker is None:
            return False
        if not self.running:
            await self._roster.stop(worker, "it was removed")
            return True
        self._roster.end(worker, "it was removed")
        job = current_job.get()
        if job is None or job.takes_part.isdisjoint(each.name for each in self._roster.children_first(worker)):
            await worker.wait()
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
        self._require_new()
        self._used = True
        self._auto_end = auto_end
        await self.bus.attach(self.registry)
        owns_bus = not self.bus.started
        try:
            if owns_bus:
                self._connecting = True
                self.bus.on_start(self._signals.watch)
                await self.bus.start()
                self._connecting = False
            if self.bus.started:  # else it was ended while it waited for the network
                await self._run()
        finally:
            if owns_bus:
                await self.bus.stop()
            self.bus.detach(self.registry)
        if self._failure is not None:
            raise self._failure

    async def end(self, reason: str | None = None) -> None:
        """Begin to end gracefully, and return; `run()` returns when it has. Once is enough."""
        self.finish(reason or "the runner ended")

    async def cancel(self, reason: str | None = None) -> None:
        """Begin to stop at once, also while it ends gracefully, and return."""
        self.finish(reason or "the runner was cancelled", at_once=True)

    async def __aenter__(self) -> Self:
        """Run in the background; returns when the workers added so far were started, raises what `run()` raises."""
        self._require_new()
        self._background = anyio.create_task_group()
        await self._background.__aenter__()
        self._background.start_soon(self._run_in_background)
        try:
            await self._begun.wait()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        if self._failure is not None:
            await self.__aexit__(None, None, None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End gracefully and wait; at once if the body raised. What the body raised goes on as it is.

        When the runner fails, the body is cancelled and this raises what `run()` raises.
        """
        self.finish("its context was left", at_once=error is not None)
        assert self._background is not None
        suppressed = error is None
        if isinstance(error, get_cancelled_exc_class()):
            suppressed = bool(await self._background.__aexit__(kind, error, trace))
        else:
            await self._background.__aexit__(None, None, None)
        if self._failure is not None and suppressed:
            raise self._failure from None
        return suppressed

    def statistics(self) -> RunnerStatistics:
        """What it holds now."""
        return statistics_of(self)

    # --- what workers and the roster use ---

    async def add_children(
        self, parent: BaseWorker, workers: tuple[BaseWorker | Function[Any, Any], ...], *, watch: bool
    ) -> None:
        """Add children of a worker."""
        for given in workers:
            worker = given.worker() if isinstance(given, Function) else given
            await self._roster.add(worker, parent=parent)
            if watch:  # for as long as the child lives
                await self.registry.watch(worker.name, parent._on_ready, parent._on_lost)

    async def supervise_children(
        self, parent: BaseWorker, factories: tuple[Factory, ...], restart: RestartPolicy | None
    ) -> None:
        """Add supervised children of a worker."""
        supervisor = Supervisor(self._roster, parent, factories, restart or RestartPolicy())
        await supervisor.start()
        await parent.watch_workers(*supervisor.names)

    def worker_stopped(self) -> None:
        """A worker is gone, and made again or not; with the last one the runner ends."""
        self.drained.wake()
        if self.running and self._auto_end and not self._roster.entries and not self._roster.recovering:
            self.finish("its last worker stopped")

    def failed(self, error: BaseException) -> None:
        """Something the runner cannot go on without has failed."""
        log().error("runner failed", runner=self.name, error=str(error))
        self._failure = error
        self.finish(str(error), at_once=True)

    def finish(self, reason: str, *, at_once: bool = False) -> None:
        """Begin to end."""
        if at_once:
            self.cancelling = True
            self._roster.hurry()
        self._ending = self._ending or reason
        self.accepting = False
        self.ends = True
        self.drained.wake()
        if self._connecting:
            self.bus.give_up()

    # --- inside ---

    def _require_new(self) -> None:
        if self._used:
            raise RunnerStateError(f"runner {self.name!r} has been run before: make a new one")

    async def _run(self) -> None:
        interrupted: BaseException | None = None
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._live)
            try:
                await self._over.wait()
            except BaseException as error:  # noqa: BLE001 - re-raised once everybody has been told
                interrupted = error
                self.finish("the runner was cancelled", at_once=True)
            with CancelScope(shield=True):
                while not self._over.is_set():
                    with contextlib.suppress(get_cancelled_exc_class()):  # a bare asyncio task may be cancelled again
                        await self._over.wait()
        if interrupted is not None:
            raise interrupted

    async def _live(self) -> None:
        """Run everything, shielded from whoever cancels `run()`: that ends it in order, like any other end."""
        try:
            with CancelScope(shield=True):
                async with anyio.create_task_group() as task_group:
                    await self._live_in(task_group)
        except BaseException as error:  # noqa: BLE001 - raised by `run()`
            self._failure = self._failure or error
        finally:
            self.running = False
            self._over.set()

    async def _live_in(self, task_group: TaskGroup) -> None:
        current_job.set(None)
        if current_trace.get() is not None:  # else there is one variable less to look at after each job
            current_trace.set(None)
        self.tasks = Tasks(task_group)
        self.deadlines = Deadlines(self.tasks)
        self._mailbox = Mailbox(self.name, self._handle, self.tasks)
        self.tasks.spawn(self.deadlines.run)
        self._signals.watch(self.tasks)
        self.running = self.accepting = True
        self.registry.listen(self.registry_changed)
        forget_stop = self.bus.on_stop(self._bus_stopped)
        try:
            self.bus.route(self.name, self._route, runner=True)
            self._joined = True
            await self._roster.open()
            for data in self.bus.known_workers():
                await self.registry.register(data)
            self.tasks.start(self._tell_ready, None)
            while not self.ends:
                await self.drained.wait()
            await self._drain()
        except BaseException as error:  # noqa: BLE001 - raised by `run()` once everybody has been told
            if not isinstance(error, get_cancelled_exc_class()):  # else the task group says who failed
                self._failure = self._failure or error
            self.finish(f"the runner failed: {type(error).__name__}", at_once=True)
        with CancelScope(shield=True):
            await self._tear_down()
        forget_stop()
        self.tasks.close()

    async def _tell_ready(self, _argument: None) -> None:
        await self._emit("on_ready")
        self._begun.set()

    async def _drain(self) -> None:
        if self.cancelling or await self._roster.drain(self._roster.children_first(), self.drain_timeout):
            return
        if not self.cancelling:  # else it was cut short on purpose
            log().warning("jobs did not drain in time", runner=self.name, seconds=self.drain_timeout)

    async def _tear_down(self) -> None:
        reason = self._ending or "the runner ended"
        await self._roster.stop_all(reason)
        await self.job_events.flush()
        if self._joined:
            self.bus.unroute(self.name)
        self.registry.unlisten(self.registry_changed)

    def _bus_stopped(self) -> None:
        self.finish("its bus was stopped", at_once=True)

    def _route(self, message: BusMessage, *, force: bool = False) -> Room | None:  # noqa: ARG002 - its room is unbounded
        assert self._mailbox is not None
        if isinstance(message, (BusEndMessage, BusCancelMessage)):
            hear_end(self, message)  # at once: its sender may be gone when the mailbox gets to it
        else:
            self._mailbox.put(message)
        return None

    async def _handle(self, message: BusMessage) -> None:
        await obey(self, message)

    async def _run_in_background(self) -> None:
        try:
            await self.run(auto_end=False)
        except Exception as error:  # noqa: BLE001 - raised where the context is entered or left
            self._failure = error
            if self._begun.is_set():
                assert self._background is not None
                self._background.cancel_scope.cancel()
        finally:
            self._begun.set()
