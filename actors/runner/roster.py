"""The workers of one runner: adding, starting, draining and stopping them, as the tree that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import msgspec
from anyio import CancelScope

from actors.jobs.errors import RunnerStateError, describe
from actors.jobs.lifecycle import ALIVE, WorkerState
from actors.worker.worker import WorkerParams
from bus import BusWorkerLostMessage, DuplicateNameError, WorkerErrorData
from bus.local.tasks import PooledTask, is_cancellation, wake
from bus.log import log

if TYPE_CHECKING:
    from actors.runner.runner import WorkerRunner
    from actors.runner.supervisor import Supervisor
    from actors.worker.worker import BaseWorker


STOP_TIMEOUT = 10.0
"""Seconds a worker's own `stop()` may take before it is left behind."""


class Entry(msgspec.Struct, eq=False):
    """One worker on the roster.

    Attributes:
        worker: The worker.
        supervisor: Who makes it again when it fails; None for nobody.
        task: Runs its `run()`, if that is not the built-in one, until it has returned.
        routed: Whether its name on the bus is its own.
        stopping: Whether somebody stops it already.
        cleaned_up: Whether its `stop()` need not be called: that was what began it.
        patience: Limits its `stop()`, while that runs.
    """

    worker: BaseWorker
    supervisor: Supervisor | None = None
    task: PooledTask | None = None
    routed: bool = False
    stopping: bool = False
    cleaned_up: bool = False
    patience: CancelScope | None = None


class Roster:
    """All workers of a runner, by name. Children are stopped before their parents, always."""

    def __init__(self, host: WorkerRunner) -> None:
        self.host = host
        self.entries: dict[str, Entry] = {}
        self.recovering: dict[Supervisor, None] = {}
        self._open = False

    async def add(
        self, worker: BaseWorker, *, parent: BaseWorker | None = None, supervisor: Supervisor | None = None
    ) -> None:
        """Take a worker in, and start it if the runner runs.

        Raises:
            DuplicateNameError: Its name is taken in this runner or on this bus.
            RunnerStateError: It was added before, or its parent or the runner is ending.
        """
        self._require_addable(worker, parent)
        await worker.attach(registry=self.host.registry, bus=self.host.bus, worker_runner=self.host)
        entry = Entry(worker, supervisor)
        if self._open:
            self._route(entry)
        self.entries[worker.name] = entry
        if parent is not None:
            worker._parent = parent.name
            if parent._children is None:
                parent._children = {}
            parent._children[worker] = None
        if self._open:
            await self._launch(entry)

    async def open(self) -> None:
        """Start every worker that was added so far, and from now on each when it is added."""
        for entry in self.entries.values():
            self._route(entry)
        self._open = True
        for entry in tuple(self.entries.values()):
            if entry.worker._state is WorkerState.ATTACHED:
                await self._launch(entry)

    def children_first(self, root: BaseWorker | None = None) -> list[BaseWorker]:
        """A worker's tree, or all trees: children before their parents, the last added first."""
        order: list[BaseWorker] = []
        roots = (
            [root]
            if root is not None
            else [entry.worker for entry in self.entries.values() if entry.worker.parent is None]
        )
        stack = roots[::-1]
        while stack:
            worker = stack.pop()
            order.append(worker)
            stack.extend(reversed(worker.children))
        order.reverse()
        return order

    async def drain(self, workers: list[BaseWorker], seconds: float) -> bool:
        """Let nothing new begin on `workers` and wait until what runs has ended. False if it had not in time."""
        for worker in workers:
            if worker._state in ALIVE:
                ready = worker._state is WorkerState.READY
                worker._move(WorkerState.DRAINING)
                if worker._executor is not None:
                    worker._executor.drain()
                if ready:
                    await self.host.announce(worker, ready=False)
        with anyio.move_on_after(seconds):
            busy = True
            while busy:  # a job on one worker may give work to another that was done
                busy = False
                for worker in workers:
                    while _busy(worker):
                        busy = True
                        if self.host.cancelling:
                            return False
                        await self.host.drained.wait()
            return True
        return False

    async def stop(self, worker: BaseWorker, reason: str) -> None:
        """Stop one worker, its children first. Returns when it has stopped, whoever began it."""
        for each in self.children_first(worker):
            await self._stop_one(each, reason)

    async def stop_all(self, reason: str) -> None:
        """Stop every worker, one after the other; once the runner is cancelled, all that are left together."""
        order = self.children_first()
        for worker in order:  # first, so that no handler waits for the ones of other workers to end
            self._cancel_jobs(worker, reason)
        async with anyio.create_task_group() as together:
            for worker in order:
                if self.host.cancelling:
                    together.start_soon(self._stop_one, worker, reason)
                else:
                    await self._stop_one(worker, reason)

    def hurry(self) -> None:
        """Leave each `stop()` that runs now no more than `cancel_grace`."""
        for entry in self.entries.values():
            if entry.patience is not None:
                entry.patience.deadline = min(entry.patience.deadline, anyio.current_time() + self.host.cancel_grace)

    def end(self, worker: BaseWorker, reason: str, *, drain: bool = True) -> None:
        """Begin to end a worker and its children."""

        async def end_it() -> None:
            if drain:
                await self.drain(self.children_first(worker), self.host.drain_timeout)
            await self.stop(worker, reason)

        self.host.tasks.spawn(end_it)

    async def stop_itself(self, worker: BaseWorker) -> None:
        """Stop a worker for its own `stop()`; does nothing while somebody stops it already."""
        entry = self.entries.get(worker.name)
        if entry is None or entry.worker is not worker or entry.stopping:
            return
        entry.cleaned_up = True
        if self.host.running:
            self.end(worker, "stop() was called", drain=False)
            await worker.wait()
        else:
            await self.stop(worker, "stop() was called")

    def may_restart(self, parent: BaseWorker | None) -> bool:
        """Whether children of `parent` may be started now."""
        if parent is not None and parent._state is not WorkerState.READY:
            return False
        return self.host.accepting

    def parent_failed(self, parent: BaseWorker | None, error: BaseException) -> None:
        """A supervisor has given up: its parent fails."""
        if parent is None:
            self.host.failed(error)
        else:
            self.host.tasks.spawn(self._failed, parent, error)

    def _require_addable(self, worker: BaseWorker, parent: BaseWorker | None) -> None:
        from actors.worker.worker import BaseWorker  # noqa: PLC0415 - the two know each other

        if not isinstance(worker, BaseWorker):
            raise TypeError(f"a worker or a function marked with @function() is needed, not {worker!r:.100}")
        if not hasattr(worker, "_state"):
            raise RunnerStateError(f"{type(worker).__name__}.__init__ does not call super().__init__(name)")
        _require_bounds(worker)
        known = self.entries.get(worker.name)
        if known is not None:
            if known.worker is worker:
                raise RunnerStateError(f"worker {worker.name!r} was added to runner {self.host.name!r} before")
            holder = f"{known.worker!r} of runner {self.host.name!r}"
            raise DuplicateNameError("worker name", worker.name, holder, f"choose another name for {worker!r}")
        if parent is not None and parent._state not in ALIVE:
            raise RunnerStateError(f"{parent!r} is ending: it takes no new children")
        if self._open and parent is None:
            self.host.require_accepting()
        if self._open and worker.name:
            self.host.bus.require_free(worker.name)

    def _route(self, entry: Entry) -> None:
        worker = entry.worker
        self.host.bus.route(worker.name, worker._route, listens=worker._hears)
        entry.routed = True

    async def _launch(self, entry: Entry) -> None:
        from actors.worker.worker import BaseWorker  # noqa: PLC0415 - the two know each other

        worker = entry.worker
        worker._move(WorkerState.STARTING)
        kind = type(worker)
        if kind.run is BaseWorker.run and kind.start is BaseWorker.start:
            await worker.start()  # nothing of the user's to wait for: no task
        else:
            entry.task = self.host.tasks.start(self._drive, entry)

    async def _drive(self, entry: Entry) -> None:
        worker = entry.worker
        error: BaseException | None = None
        try:
            await worker.run(WorkerParams())
        except BaseException as failure:
            if is_cancellation(failure):
                raise
            error = failure
        finally:
            entry.task = None
            self.host.drained.wake()
        if entry.stopping:
            if error is not None:
                self.host.report(worker, "run() failed while the worker was stopping", error)
        elif error is not None:
            await self._failed(worker, error)
        else:
            await self.stop(worker, "its run() returned")

    async def _failed(self, worker: BaseWorker, error: BaseException) -> None:
        """A worker's own code has failed: stop it, tell its parent, and let its supervisor decide."""
        entry = self.entries.get(worker.name)
        supervisor = entry.supervisor if entry is not None and entry.worker is worker else None
        self.host.report(worker, "worker failed", error)
        text = str(describe(error))
        parent = self._parent_of(worker)
        restarting = supervised = False
        if supervisor is not None and self.may_restart(parent):
            supervised = supervisor.child_failed(worker, text)
            restarting = supervised and not supervisor.exhausted()
        data = WorkerErrorData(worker.name, text, restarting=restarting)
        if supervised and parent is not None:  # before the supervisor may give up, and fail the parent
            parent._queue_hook("on_worker_failed", data)
        await self.stop(worker, f"it failed: {text}")
        if not supervised and parent is not None:  # who makes it again there finds its name free
            parent._queue_hook("on_worker_failed", data)

    def _parent_of(self, worker: BaseWorker) -> BaseWorker | None:
        entry = self.entries.get(worker.parent) if worker.parent is not None else None
        return entry.worker if entry is not None else None

    async def _stop_one(self, worker: BaseWorker, reason: str) -> None:
        entry = self.entries.get(worker.name)
        if entry is None or entry.worker is not worker:
            return
        if entry.stopping:
            await worker.wait()
            return
        entry.stopping = True
        worker._move(WorkerState.STOPPING)
        for child in worker.children:  # added while others were being stopped
            await self.stop(child, reason)
        self._cancel_jobs(worker, reason)
        with anyio.move_on_after(self.host.cancel_grace + 1):
            while _busy(worker):
                await self.host.drained.wait()
        if not entry.cleaned_up:
            await self._clean_up(entry)
        await self._cancel_rest(entry)
        await self._forget(entry, reason)

    async def _clean_up(self, entry: Entry) -> None:
        worker = entry.worker
        limit = min(STOP_TIMEOUT, self.host.cancel_grace) if self.host.cancelling else STOP_TIMEOUT
        with anyio.move_on_after(limit) as entry.patience:
            await self.host.guarded(worker, "stop", worker.stop)
        if entry.patience.cancelled_caught:
            log().error("stop() took too long and was cancelled", worker=worker.name)
        entry.patience = None

    async def _cancel_rest(self, entry: Entry) -> None:
        """Cancel what a worker has running beside its jobs: `run()`, hooks and background tasks."""
        worker = entry.worker
        if entry.task is not None:
            entry.task.cancel()
        for task in tuple(worker._background or ()):
            task.cancel()
        hooks = worker._mailbox
        if hooks is not None:
            hooks.close(self.host.drained.wake)
        if entry.task is None and not worker._background and not (hooks is not None and hooks.busy):
            return
        with anyio.move_on_after(self.host.cancel_grace) as patience:
            while entry.task is not None or worker._background or (hooks is not None and hooks.busy):
                await self.host.drained.wait()
        if patience.cancelled_caught:
            log().error("run(), a hook or a background task swallows its cancellation", worker=worker.name)
            if entry.task is not None:
                entry.task.shield()
            for task in tuple(worker._background or ()):
                task.shield()
            if hooks is not None:
                hooks.shield()

    def _cancel_jobs(self, worker: BaseWorker, reason: str) -> None:
        reason = f"worker {worker.name!r} stopped: {reason}"
        for group in tuple(worker._groups.values()):
            group.cancel(reason)
        executor = worker._executor
        if executor is None:
            return
        executor.close()
        for job_id in tuple(executor.jobs):
            executor.cancel(job_id, reason)

    async def _forget(self, entry: Entry, reason: str) -> None:
        worker, host = entry.worker, self.host
        for group in tuple(worker._groups.values()):  # what its own stop() still asked for
            group.cancel(f"worker {worker.name!r} stopped: {reason}")
        if entry.routed:
            host.bus.unroute(worker.name)
        del self.entries[worker.name]
        parent = self._parent_of(worker)
        if parent is not None and parent._children is not None:
            parent._children.pop(worker, None)
        worker._move(WorkerState.STOPPED)
        if worker._room is not None:
            worker._room.close()
        host.bus.undelivered(worker.name, (worker._mailbox.dropped if worker._mailbox else 0) + len(worker._held or ()))
        for name in (*worker._table.ready, *(worker._watched or ())):
            await host.registry.unwatch(name, worker._on_ready)
        if await host.registry.unregister(worker.name, reason=reason):
            host.bus.post(
                BusWorkerLostMessage(source=host.name, runner=host.name, worker_name=worker.name, reason=reason)
            )
        if parent is not None and entry.supervisor is None and not parent._watches(worker.name):
            await host.registry.unwatch(worker.name, parent._on_ready)
        for waiter in tuple(worker._waiters or ()):
            wake(waiter)
        host.worker_stopped()


def _require_bounds(worker: BaseWorker) -> None:
    """Refuse bounds under which jobs would wait for ever."""
    for limit in ("max_concurrency", "mailbox_size"):
        if not getattr(worker, limit) >= 1:
            raise ValueError(f"{type(worker).__name__}.{limit} must be 1 or more, got {getattr(worker, limit)!r}")
    if worker.when_full not in {"wait", "refuse"}:
        raise ValueError(f"{type(worker).__name__}.when_full must be 'wait' or 'refuse', got {worker.when_full!r}")


def _busy(worker: BaseWorker) -> bool:
    executor = worker._executor
    return executor is not None and bool(executor.jobs or executor.statistics().running)
