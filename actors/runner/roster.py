"""The workers of one runner: adding, starting, draining and stopping them, as the tree that they are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio
import msgspec
from anyio import CancelScope

from actors.jobs.errors import RunnerStateError, describe
from actors.jobs.lifecycle import ALIVE, WorkerState
from actors.jobs.outcome import cancelled
from actors.worker.core import WorkerCore, WorkerHost
from actors.worker.dispatch import deliver, say
from actors.worker.verbs import core_of
from actors.worker.worker import BaseWorker, MakesWorker, WorkerParams, attach
from bus import BusWorkerLostMessage, DuplicateNameError, WorkerErrorData
from bus.local.subscriber import Route
from bus.local.tasks import PooledTask, is_cancellation
from bus.log import log

if TYPE_CHECKING:
    from actors.runner.supervisor import Supervisor


STOP_TIMEOUT = 10.0
"""Seconds a worker's own `stop()` may take before it is left behind."""


class RosterHost(WorkerHost, Protocol):
    """A runner, to its roster."""

    cancelling: bool
    """Whether everything is to stop at once."""
    drain_timeout: float

    def require_accepting(self) -> None:
        """Refuse new work while the runner ends."""

    def worker_stopped(self) -> None:
        """A worker is gone, and made again or not."""

    def failed(self, error: BaseException) -> None:
        """Something the runner cannot go on without has failed."""


class Entry(msgspec.Struct, eq=False):
    """One worker on the roster.

    Attributes:
        core: The worker.
        supervisor: Who makes it again when it fails; None for nobody.
        task: Runs its `run()`, if that is not the built-in one, until it has returned.
        routed: Whether its name on the bus is its own.
        stopping: Whether somebody stops it already.
        failed: Whether its own code has failed.
        cleaned_up: Whether its `stop()` need not be called: that was what began it.
        patience: Limits its `stop()`, while that runs.
    """

    core: WorkerCore
    supervisor: Supervisor | None = None
    task: PooledTask | None = None
    routed: bool = False
    stopping: bool = False
    failed: bool = False
    cleaned_up: bool = False
    patience: CancelScope | None = None


class Roster:
    """All workers of a runner, by name. Children are stopped before their parents, always."""

    def __init__(self, host: RosterHost) -> None:
        self.host = host
        self.entries: dict[str, Entry] = {}
        self.recovering: dict[WorkerCore, None] = {}
        self._open = False

    def find(self, name: str) -> WorkerCore | None:
        """The worker of that name."""
        entry = self.entries.get(name)
        return entry.core if entry is not None else None

    async def add(
        self,
        given: BaseWorker | MakesWorker,
        *,
        parent: WorkerCore | None = None,
        supervisor: Supervisor | None = None,
    ) -> WorkerCore:
        """Take a worker in, and start it if the runner runs.

        Raises:
            TypeError: It is no worker, and makes none.
            DuplicateNameError: Its name is taken in this runner or on this bus.
            RunnerStateError: It was added before, or its parent or the runner is ending.
        """
        worker = given if isinstance(given, BaseWorker) or not hasattr(given, "worker") else given.worker()
        core = core_of(worker)
        self._require_addable(core, parent)
        attach(core, self.host)
        if not _built_in(core.instance.attach, BaseWorker.attach):
            host = self.host
            await core.instance.attach(registry=host.registry, bus=host.bus, worker_runner=host.face)
            self._require_addable(core, parent)
        entry = Entry(core, supervisor)
        if self._open:
            self._route(entry)
        self.entries[core.name] = entry
        if parent is not None:
            core.parent = parent
            if parent.children is None:
                parent.children = {}
            parent.children[core] = None
        if self._open:
            await self._launch(entry)
        return core

    async def open(self) -> None:
        """Start every worker that was added so far, and from now on each when it is added."""
        for entry in self.entries.values():
            self._route(entry)
        self._open = True
        for entry in tuple(self.entries.values()):
            if entry.core.state is WorkerState.ATTACHED:
                await self._launch(entry)

    def children_first(self, root: WorkerCore | None = None) -> list[WorkerCore]:
        """A worker's tree, or all trees: children before their parents, the last added first."""
        order: list[WorkerCore] = []
        roots = (
            [root] if root is not None else [entry.core for entry in self.entries.values() if entry.core.parent is None]
        )
        stack = roots[::-1]
        while stack:
            core = stack.pop()
            order.append(core)
            stack.extend(reversed(core.children or ()))
        order.reverse()
        return order

    def hooks_under_way(self, cores: list[WorkerCore]) -> dict[WorkerCore, int]:
        """Whose hooks run or wait now, and how many of each were called so far."""
        return {core: core.mailbox.handled for core in cores if core.mailbox is not None and core.mailbox.busy}

    async def drain(self, cores: list[WorkerCore], seconds: float, before: dict[WorkerCore, int]) -> bool:
        """Let nothing new begin on `cores` and wait until what runs has ended. False if it had not in time.

        Args:
            cores: Those of the workers.
            seconds: How long to wait at most.
            before: `hooks_under_way` as the end began. These are not awaited; those of what ends meanwhile are.
        """
        for core in cores:
            if core.state in ALIVE:
                ready = core.state is WorkerState.READY
                core.move(WorkerState.DRAINING)
                if core.admission is not None:
                    core.admission.drain()
                if ready:
                    await self.host.announce(core, ready=False)
        with anyio.move_on_after(seconds):
            busy = True
            while busy:  # a job on one worker may give work to another that was done
                busy = False
                for core in cores:
                    while core.busy:
                        busy = True
                        if self.host.cancelling:
                            return False
                        await self.host.drained.wait(self.host.tasks)
            await self._last_hooks(cores, before)
            return True
        return False

    async def _last_hooks(self, cores: list[WorkerCore], before: dict[WorkerCore, int]) -> None:
        """Let hooks hear of what has ended last, for the grace period; those that ran before are not awaited."""
        with anyio.move_on_after(self.host.cancel_grace):
            for core in cores:
                mailbox = core.mailbox
                while mailbox is not None and mailbox.busy and before.get(core) != mailbox.handled:
                    if self.host.cancelling:
                        return
                    mailbox.when_idle(self.host.drained.wake)
                    await self.host.drained.wait(self.host.tasks)

    async def stop(self, core: WorkerCore, reason: str) -> None:
        """Stop one core, its children first, these side by side. Returns when it has stopped, whoever began it."""
        if core.children:
            await self._stop_together(list(core.children), reason)
        await self._stop_one(core, reason)

    async def stop_all(self, reason: str) -> None:
        """Stop every core."""
        for core in self.children_first():  # first, so that no handler waits for the ones of other workers to end
            self._cancel_jobs(core, reason)
        await self._stop_together([entry.core for entry in self.entries.values() if entry.core.parent is None], reason)

    async def _stop_together(self, cores: list[WorkerCore], reason: str) -> None:
        """Stop siblings, side by side: the slowest says how long it takes."""
        async with anyio.create_task_group() as together:
            for core in reversed(cores):
                together.start_soon(self.stop, core, reason)

    def hurry(self) -> None:
        """Leave each `stop()` that runs now no more than `cancel_grace`."""
        for entry in self.entries.values():
            if entry.patience is not None:
                entry.patience.deadline = min(entry.patience.deadline, anyio.current_time() + self.host.cancel_grace)

    def end(self, core: WorkerCore, reason: str, *, drain: bool = True) -> None:
        """Begin to end a worker and its children."""
        before = self.hooks_under_way(self.children_first(core))

        async def end_it() -> None:
            if drain:
                try:
                    await self.drain(self.children_first(core), self.host.drain_timeout, before)
                except Exception as error:  # noqa: BLE001 - the others on this runner have done nothing
                    self.host.report(core, "could not be drained", error)
            await self.stop(core, reason)

        self.host.tasks.spawn(end_it)

    async def stop_itself(self, core: WorkerCore) -> None:
        """Stop a worker for its own `stop()`; does nothing while somebody stops it already."""
        entry = self.entries.get(core.name)
        if entry is None or entry.core is not core or entry.stopping:
            return
        entry.cleaned_up = True
        if self.host.running:
            self.end(core, "stop() was called", drain=False)
            await core.wait()
        else:
            await self.stop(core, "stop() was called")

    def may_restart(self, parent: WorkerCore | None) -> bool:
        """Whether children of `parent` may be started now."""
        if parent is not None and parent.state not in ALIVE:
            return False
        return self.host.accepting

    def parent_failed(self, parent: WorkerCore | None, error: BaseException) -> None:
        """A supervisor has given up: its parent fails."""
        if parent is None:
            self.host.failed(error)
        else:
            self.crashed(parent, error)

    def crashed(self, core: WorkerCore, error: BaseException) -> None:
        """A worker's own code has failed, beside its `run()`: it fails as if that had raised."""
        self.host.tasks.spawn(self._failed, core, error)

    def _require_addable(self, core: WorkerCore, parent: WorkerCore | None) -> None:
        known = self.entries.get(core.name)
        if known is not None:
            if known.core is core:
                raise RunnerStateError(f"worker {core.name!r} was added to runner {self.host.name!r} before")
            holder = f"{known.core!r} of runner {self.host.name!r}"
            raise DuplicateNameError("worker name", core.name, holder, f"choose another name for {core!r}")
        if parent is not None and parent.state not in ALIVE:
            raise RunnerStateError(f"{parent!r} is ending: it takes no new children")
        if self._open and parent is None:
            self.host.require_accepting()
        if self._open and core.name:
            self.host.bus.require_free(core.name)

    def _route(self, entry: Entry) -> None:
        core = entry.core
        core.route = Route(partial(deliver, core), core.request, says=partial(say, core))
        core.look_at_doors()
        self.host.bus.route(core.name, core.route, listens=core.wants_messages)
        entry.routed = True

    async def _launch(self, entry: Entry) -> None:
        core = entry.core
        core.move(WorkerState.STARTING)
        worker = core.instance
        if _built_in(worker.run, BaseWorker.run) and _built_in(worker.start, BaseWorker.start):
            await self.host.ready(core)  # nothing of the user's to wait for: no task
        else:
            entry.task = self.host.tasks.start(self._drive, entry)

    async def _drive(self, entry: Entry) -> None:
        core = entry.core
        error: BaseException | None = None
        try:
            await core.instance.run(WorkerParams())
        except BaseException as failure:
            if is_cancellation(failure):
                raise
            error = failure
        finally:
            entry.task = None
            self.host.drained.wake()
        if entry.stopping:
            if error is not None:
                self.host.report(core, "run() failed while the worker was stopping", error)
        elif error is not None:
            await self._failed(core, error)
        else:
            if entry.supervisor is not None and self.may_restart(self._parent_of(core)):
                entry.supervisor.child_returned(core)
            await self.stop(core, "its run() returned")

    async def _failed(self, core: WorkerCore, error: BaseException) -> None:
        """A worker's own code has failed: stop it, tell its parent, and let its supervisor decide."""
        entry = self.entries.get(core.name)
        self.host.report(core, "worker failed", error)
        if entry is None or entry.core is not core or entry.failed or entry.stopping:
            return
        entry.failed = True
        supervisor = entry.supervisor
        text = str(describe(error))
        parent = self._parent_of(core)
        restarting = supervised = False
        if supervisor is not None and self.may_restart(parent):
            supervised = supervisor.child_failed(core, text)
            restarting = supervised and not supervisor.exhausted()
        data = WorkerErrorData(core.name, text, restarting=restarting)
        if supervised and parent is not None:  # before the supervisor may give up, and fail the parent
            parent.queue_hook("on_worker_failed", data)
        await self.stop(core, f"it failed: {text}")
        if not supervised and parent is not None:  # who makes it again there finds its name free
            parent.queue_hook("on_worker_failed", data)

    def _parent_of(self, core: WorkerCore) -> WorkerCore | None:
        return core.parent if core.parent is not None and self.find(core.parent.name) is core.parent else None

    async def _stop_one(self, core: WorkerCore, reason: str) -> None:
        entry = self.entries.get(core.name)
        if entry is None or entry.core is not core:
            return
        if entry.stopping:
            await core.wait()
            return
        entry.stopping = True
        core.move(WorkerState.STOPPING)
        for child in tuple(core.children or ()):  # added while others were being stopped
            await self.stop(child, reason)
        self._cancel_jobs(core, reason)
        with anyio.move_on_after(self.host.cancel_grace + 1):
            while core.busy:
                await self.host.drained.wait(self.host.tasks)
        if not entry.cleaned_up:
            await self._clean_up(entry)
        await self._cancel_rest(entry)
        await self._forget(entry, reason)

    async def _clean_up(self, entry: Entry) -> None:
        core = entry.core
        limit = min(STOP_TIMEOUT, self.host.cancel_grace) if self.host.cancelling else STOP_TIMEOUT
        with anyio.move_on_after(limit) as entry.patience:
            await self.host.guarded(core, "stop", core.instance.stop)
        if entry.patience.cancelled_caught:
            log().error("stop() took too long and was cancelled", worker=core.name)
        entry.patience = None

    async def _cancel_rest(self, entry: Entry) -> None:
        """Cancel what a worker has running beside its jobs: `run()`, hooks and background tasks."""
        core = entry.core
        if entry.task is not None:
            entry.task.cancel()
        for task in tuple(core.background or ()):
            task.cancel()
        core.close_hooks(self.host.drained.wake)
        if entry.task is None and not core.background and not core.hooks_busy:
            return
        with anyio.move_on_after(self.host.cancel_grace) as patience:
            while entry.task is not None or core.background or core.hooks_busy:
                await self.host.drained.wait(self.host.tasks)
        if patience.cancelled_caught:
            log().error("run(), a hook or a background task swallows its cancellation", worker=core.name)
            if entry.task is not None:
                entry.task.shield()
            for task in tuple(core.background or ()):
                task.shield()
            core.shield_hooks()

    def _cancel_jobs(self, core: WorkerCore, reason: str) -> None:
        reason = f"worker {core.name!r} stopped: {reason}"
        for group in tuple(core.groups.values()):
            group.cancel(reason)
        admission = core.admission
        if admission is not None:
            admission.close()
            for job_id in tuple(admission.executions):
                admission.stop(job_id, cancelled(reason))

    async def _forget(self, entry: Entry, reason: str) -> None:
        core, host = entry.core, self.host
        for group in tuple(core.groups.values()):  # what its own stop() still asked for
            group.cancel(f"worker {core.name!r} stopped: {reason}")
        if entry.routed:
            host.bus.unroute(core.name)
        del self.entries[core.name]
        parent = self._parent_of(core)
        if parent is not None and parent.children is not None:
            parent.children.pop(core, None)
        core.move(WorkerState.STOPPED)
        if core.room is not None:
            core.room.close()
        host.bus.undelivered(core.name, (core.mailbox.dropped if core.mailbox else 0) + len(core.held or ()))
        for name in (*core.definition.ready, *(core.watched or ())):
            await host.registry.unwatch(name, core.on_ready)
        if await host.registry.unregister(core.name, reason=reason):
            host.bus.post(
                BusWorkerLostMessage(source=host.name, runner=host.name, worker_name=core.name, reason=reason)
            )
        if parent is not None and entry.supervisor is None and not parent.watches(core.name):
            await host.registry.unwatch(core.name, parent.on_ready)
        core.stopped()
        host.worker_stopped()


def _built_in(method: object, own: object) -> bool:
    """Whether a method of a worker is the built-in one: neither its class nor the worker has another."""
    return getattr(method, "__func__", None) is own
