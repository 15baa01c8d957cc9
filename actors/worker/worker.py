"""The worker: a name, hooks, job handlers, and verbs to reach others."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import msgspec

from actors.jobs.errors import HandlerError, RunnerStateError
from actors.jobs.lifecycle import ENDING, WORKER_STEPS, WorkerState, moved
from actors.jobs.nesting import current_event, current_hook, current_job
from actors.jobs.params import _Dataclass
from actors.performer.admission import WorkerStatistics
from actors.performer.handler import Handler
from actors.worker.background import BackgroundTask
from actors.worker.dispatch import DISPATCH, deliver_other
from actors.worker.handlers import HandlerTable, collect, make_handler
from actors.worker.hooks import Hooks
from actors.worker.peer import Peer
from actors.worker.performer import Performer
from actors.worker.requester import Requester
from bus import (
    BusCancelMessage,
    BusEndMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSubscriber,
    WorkerLostData,
    WorkerReadyData,
    check_name,
)
from bus.local.mailbox import DEFAULT_MAILBOX_SIZE, Mailbox, Room

if TYPE_CHECKING:
    from actors.performer.execution import Executor
    from actors.requester.group import JobGroup
    from actors.runner.runner import WorkerRunner
    from bus import WorkerBus, WorkerRegistry
    from bus.local.tasks import Waiter


class WorkerParams(msgspec.Struct, kw_only=True):
    """What a worker's `run` is given; kept for programs that override it."""

    task_manager: Any = None


class WorkerActivationArgs(_Dataclass):
    """What a worker is activated with; subclass it to add fields.

    Attributes:
        metadata: Anything that can travel.
    """

    metadata: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make it from a mapping; unknown keys are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in names})

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class BaseWorker(Requester, Performer, Peer, Hooks, BusSubscriber):
    """An actor: subclass it, give it `@job` handlers or hooks, and add it to a `WorkerRunner`.

    Its jobs run concurrently up to `max_concurrency`, its hooks one at a time. Whatever its code does, every job it was
    given is answered once, and every job it asked for ends.

    Attributes:
        max_concurrency: Jobs that may run at once, 1 or more; jobs asked for inside one of them do not count.
        mailbox_size: Jobs that may wait, and messages of others, 1 or more each; past it senders wait or are refused.
        when_full: `wait` lets senders wait until their deadline, `refuse` fails them at once.
    """

    max_concurrency: int = 1024
    mailbox_size: int = DEFAULT_MAILBOX_SIZE
    when_full: Literal["wait", "refuse"] = "wait"

    _table: ClassVar[HandlerTable] = HandlerTable({}, {}, {})
    _default: ClassVar[Handler | None] = None
    _wanted: frozenset[str] = frozenset()  # hooks that are overridden or have event handlers

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls._wanted = frozenset(hook for hook in cls.event_names if getattr(cls, hook) is not getattr(BaseWorker, hook))
        cls._table = collect(cls)
        for handler in cls._table.jobs.values():
            if hasattr(BaseWorker, handler.attribute):
                raise HandlerError(
                    f"{cls.__name__}.{handler.attribute} would replace BaseWorker.{handler.attribute}: "
                    f"rename the method and mark it @job(name={handler.name!r})"
                )
        cls._default = None
        if "on_job_request" in cls._wanted:
            if not inspect.iscoroutinefunction(cls.on_job_request):
                raise HandlerError(f"{cls.__name__}.on_job_request must be 'async def'; for a plain function use @job")
            cls._default = make_handler(cls, "on_job_request", cls.on_job_request, name=None)

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        """Make a worker; it does nothing until it is added to a runner.

        Args:
            name: The name others ask it under; None makes one up when it is added.
            active: Whether it takes jobs from the start, or only after `activate_worker`.

        Raises:
            InvalidNameError: The name breaks the rule for names.
        """
        self._name = check_name("worker name", name) if name is not None else ""
        self._active = active
        self._state = WorkerState.NEW
        self._host: WorkerRunner | None = None
        self._parent: str | None = None
        self._children: dict[BaseWorker, None] | None = None
        self._started_at: float | None = None
        self._activation_args: dict[str, Any] | None = None
        self._groups: dict[str, JobGroup] = {}
        self._executor: Executor | None = None
        self._mailbox: Mailbox | None = None
        self._room: Room | None = None
        self._held: list[tuple[Any, ...]] | None = None
        self._waiters: dict[Waiter, None] | None = None
        self._background: dict[BackgroundTask, None] | None = None
        self._watched: dict[str, None] | None = None
        self._hears = "on_bus_message" in self._wanted

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name or '(unnamed)'} {self._state.name.lower()}>"

    # --- properties ---

    @property
    def name(self) -> str:
        """The name others ask it under."""
        return self._name

    @property
    def bus(self) -> WorkerBus:
        """The bus it is attached to; raises `RunnerStateError` before it is added to a runner."""
        return self.worker_runner.bus

    @property
    def registry(self) -> WorkerRegistry:
        """The registry of its runner; raises as `bus`."""
        return self.worker_runner.registry

    @property
    def worker_runner(self) -> WorkerRunner:
        """The runner that hosts it; raises as `bus`."""
        if self._host is None:
            raise RunnerStateError(f"worker {self._name!r} has no runner yet: add it with runner.add_workers(worker)")
        return self._host

    @property
    def active(self) -> bool:
        """Whether it is given new jobs."""
        return self._active

    @property
    def activation_args(self) -> dict[str, Any] | None:
        """The arguments of the last activation; None while inactive."""
        return self._activation_args

    @property
    def parent(self) -> str | None:
        """Name of its parent; None for a root worker."""
        return self._parent

    @property
    def started_at(self) -> float | None:
        """Unix time when it became ready; None before."""
        return self._started_at

    @property
    def bridged(self) -> bool:
        """Always False: there is no media pipeline here; kept for compatibility."""
        return False

    @property
    def children(self) -> list[BaseWorker]:
        """Its children that live."""
        return list(self._children or ())

    @property
    def state(self) -> WorkerState:
        """Where it is in its life."""
        return self._state

    def statistics(self) -> WorkerStatistics:
        """What it holds now."""
        jobs = self._executor.statistics() if self._executor is not None else None
        room = self._room.statistics() if self._room is not None else None
        lanes = self._mailbox.statistics() if self._mailbox is not None else None
        return WorkerStatistics(
            running=jobs.running if jobs else 0,
            pending=jobs.pending if jobs else 0,
            quarantined=jobs.quarantined if jobs else 0,
            messages=room.taken if room else 0,
            hooks=lanes.data + lanes.system + lanes.apart if lanes else 0,
            senders=(jobs.senders if jobs else 0) + (room.waiting if room else 0),
            groups=len(self._groups),
        )

    # --- life ---

    async def attach(  # the runner knows its registry and bus; they are named for programs that call this
        self,
        *,
        registry: WorkerRegistry,  # noqa: ARG002
        bus: WorkerBus,  # noqa: ARG002
        worker_runner: WorkerRunner,
    ) -> None:
        """Belong to a runner; called by `add_workers`, once.

        Raises:
            RunnerStateError: It belongs to one already, or was stopped: make a new worker.
            ValueError: `max_concurrency`, `mailbox_size` or `when_full` is out of its range.
        """
        if self._state is not WorkerState.NEW:
            raise RunnerStateError(f"worker {self._name!r} is {self._state.name.lower()}: add a new one")
        for bound in ("max_concurrency", "mailbox_size"):
            if not isinstance(getattr(self, bound), int) or getattr(self, bound) < 1:
                raise ValueError(f"{bound} of {self!r} must be a number, 1 or more; got {getattr(self, bound)!r}")
        if self.when_full not in {"wait", "refuse"}:
            raise ValueError(f"when_full of {self!r} must be 'wait' or 'refuse', got {self.when_full!r}")
        if not self._name:
            self._name = worker_runner.new_name(type(self).__name__)
        self._host = worker_runner
        self._move(WorkerState.ATTACHED)

    async def run(self, params: WorkerParams) -> None:  # noqa: ARG002 - overriding methods use it
        """Live: start, then wait to be stopped. Override it to drive the worker yourself; call `start()` first."""
        await self.start()
        await self.wait()

    async def start(self) -> None:
        """Become ready: registered, watched for, given jobs if active. Override to prepare; call `super().start()`."""
        host = self._host_for("start")
        if self._state is WorkerState.ATTACHED:
            self._move(WorkerState.STARTING)
        if self._state is not WorkerState.STARTING:
            return
        await host.worker_ready(self)

    async def stop(self) -> None:
        """Stop now: its jobs and groups are cancelled and their other ends told, its children stopped first.

        Its hooks and background tasks are cancelled. Returns when it has stopped. Override to clean up; call
        `super().stop()`.
        """
        if self._host is not None and self._state is not WorkerState.STOPPED:
            await self._host._roster.stop_itself(self)

    async def cleanup(self) -> None:
        """The same as `stop()`; kept for compatibility."""
        await self.stop()

    async def wait(self) -> None:
        """Wait until it has stopped."""
        while self._state is not WorkerState.STOPPED:
            waiter = self._host_for("wait").tasks.waiter()
            if self._waiters is None:
                self._waiters = {}
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)

    async def end(self, *, reason: str | None = None) -> None:
        """Ask the runners of this session to end gracefully, and return."""
        host = self._host_for("end the session")
        host.bus.post(BusEndMessage(source=self._name, reason=reason, session=host.session))

    async def cancel(self, *, reason: str | None = None) -> None:
        """Ask the runners of this session to stop at once, and return."""
        host = self._host_for("cancel the session")
        host.bus.post(BusCancelMessage(source=self._name, reason=reason, session=host.session))

    def create_task(self, coroutine: Coroutine[Any, Any, Any], name: str | None = None) -> BackgroundTask:
        """Run a coroutine beside hooks and jobs; it is cancelled when the worker stops. What it raises is reported."""
        try:
            host = self._host_for("start a background task")
        except RunnerStateError:
            coroutine.close()
            raise
        task = BackgroundTask(coroutine, f"{self._name}::{name or 'task'}", host.tasks, self._background_ended)
        if self._background is None:
            self._background = {}
        self._background[task] = None
        return task

    async def cancel_task(self, task: BackgroundTask) -> None:
        """Cancel a background task and wait until it has ended."""
        task.cancel()
        await task.wait()

    # --- machinery ---

    def add_event_handler(self, event_name: str, handler: Any) -> None:
        """Call `handler(worker, argument)` after the hook of that name."""
        super().add_event_handler(event_name, handler)
        self._wanted |= {event_name}
        self._hears = "on_bus_message" in self._wanted
        if self._hears and self._host is not None and self._host.running:
            self._host.bus.listen(self._name)

    def _route(self, message: BusMessage, *, force: bool = False) -> Room | None:
        deliver = DISPATCH.get(type(message))
        room = deliver(self, message, force) if deliver is not None else deliver_other(self, message, force)
        if self._hears and deliver is not None and room is None and deliver is not DISPATCH[BusJobResponseMessage]:
            self._queue_hook("on_bus_message", message)
        return room

    def _handler_for(self, job_name: str | None) -> Handler | None:
        handler = self._table.jobs.get(job_name) if job_name is not None else None
        return handler or self._default

    def _free_slots(self) -> int:
        if self._executor is not None:
            return self._executor.free_slots
        limit = min(self.max_concurrency, self.worker_runner.concurrency)
        return limit if self._active and self._state is WorkerState.READY else 0

    def _queue_hook(
        self, hook: str, argument: Any, group: JobGroup | None = None, member: Any = None, *, last: bool = True
    ) -> bool:
        """Put a hook in line, if anybody wants it. Whether it was."""
        if hook not in self._wanted:
            return False
        job_id = getattr(argument, "job_id", None)
        item = (job_id, self._call_hook, hook, argument, group, member, last)
        if getattr(argument, "urgent", False):
            self._lanes().put_urgent(item, job_id)
        else:
            self._lanes().put(item, job_id)
        return True

    def _queue_event(self, hook: str, message: Any, group: JobGroup, member: Any) -> bool:
        """Put the hooks of a job's event in line; the last of them tells the group. Whether there is any."""
        if not self._hears:
            return self._queue_hook(hook, message, group, member)
        self._queue_hook(hook, message, group, member, last=False)
        return self._queue_hook("on_bus_message", message, group, member)

    def _lanes(self) -> Mailbox:
        if self._mailbox is None:
            self._mailbox = Mailbox(self._name, self._handle, self.worker_runner.tasks)
        return self._mailbox

    async def _handle(self, item: tuple[Any, ...]) -> None:
        token = current_hook.set(self._name)
        try:
            await item[1](*item[2:])
        finally:
            current_hook.reset(token)

    def _waits_inside_hook(self) -> bool:
        """Whether a hook of this worker, if it has any, would wait for whatever the current task waits for."""
        if not self._wanted:
            return False
        job = current_job.get()
        return current_hook.get() == self._name if job is None else f"@{self._name}" in job.request.lineage

    async def _call_hook(
        self,
        hook: str,
        argument: Any,
        group: JobGroup | None,
        member: Any,
        last: bool = True,  # noqa: FBT002 - comes from a tuple in the mailbox
    ) -> None:
        arguments = () if hook == "on_deactivated" else (argument,)
        token = current_event.set(None if group is None else (group, member))
        try:
            await self.worker_runner.guarded(self, hook, getattr(self, hook), *arguments)
            await self._emit(hook, *arguments)
        finally:
            current_event.reset(token)
            if group is not None and last:
                group.hook_done(member)

    def _watches(self, worker_name: str) -> bool:
        """Whether it asked itself to be told of a worker, as opposed to being told of its children."""
        return worker_name in self._table.ready or worker_name in (self._watched or ())

    def _on_ready(self, data: WorkerReadyData) -> None:
        method = self._table.ready.get(data.worker_name)
        if method is not None:
            self._lanes().put((None, self.worker_runner.guarded, self, method, getattr(self, method), data))
        self._queue_hook("on_worker_ready", data)

    def _on_lost(self, data: WorkerLostData) -> None:
        self._queue_hook("on_worker_lost", data)

    def _background_ended(self, task: BackgroundTask, error: BaseException | None) -> None:
        if self._background is not None:
            self._background.pop(task, None)
        if self._state in ENDING and self._host is not None:
            self._host.drained.wake()
        if error is not None and self._host is not None:
            self._host.report(self, f"background task {task.get_name()!r} failed", error)

    def _move(self, state: WorkerState) -> None:
        self._state = moved(WORKER_STEPS, self._state, state)

    def _host_for(self, action: str) -> WorkerRunner:
        host = self._host
        if host is None or not host.running or self._state is WorkerState.STOPPED:
            raise RunnerStateError(
                f"worker {self._name or type(self).__name__!r} cannot {action}: it is {self._state.name.lower()}; "
                "add it to a runner and run that (`await runner.run()` or `async with runner:`)"
            )
        return host

    def _job_left(self) -> None:
        """A job has ended; whoever drains or stops this worker looks again."""
        if self._state in ENDING and self._host is not None:
            self._host.drained.wake()
