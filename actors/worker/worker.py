"""The worker that users subclass: its properties, its life, and its verbs towards other workers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import msgspec

from actors.jobs.errors import HandlerError, RunnerStateError
from actors.jobs.lifecycle import WorkerState
from actors.jobs.params import DataclassBase, ForeignKeywords, without_foreign
from actors.jobs.policies import RestartPolicy
from actors.worker.background import AnyTask, BackgroundTask, T, ended
from actors.worker.core import Runner, WorkerCore, WorkerHost, WorkerStatistics
from actors.worker.handlers import define, handler_name
from actors.worker.hooks import Hooks
from actors.worker.verbs import CORE, Verbs, core_of, give_core, send
from bus import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusMessage,
    BusSubscriber,
    BusTopicMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    WorkerBus,
    WorkerRegistry,
    check_name,
    travel,
)
from bus.local.events import Handler, HandlerT
from bus.local.mailbox import DEFAULT_MAILBOX_SIZE
from bus.log import log

if TYPE_CHECKING:
    from typing import Unpack

Factory = Callable[[], "BaseWorker"]
"""Makes a worker; called again for each restart, and must give it the same name every time."""


class MakesWorker(Protocol):
    """Something that can be added in place of a worker: a function marked with `@function()`."""

    def worker(self, name: str | None = None) -> BaseWorker:
        """A new worker."""


class WorkerParams(msgspec.Struct, kw_only=True):
    """What a worker's `run` is given; kept for programs that override it."""

    task_manager: Any = None


class WorkerActivationArgs(DataclassBase):
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


class BaseWorker(Verbs, Hooks, BusSubscriber):
    """An actor: subclass it, give it `@job` handlers or hooks, and add it to a `WorkerRunner`.

    Its jobs run concurrently up to `max_concurrency`, its hooks one at a time. Whatever its code does, every job it was
    given is answered once, and every job it asked for ends. A subclass may override the hooks, `run`, `start`, `stop`,
    `cleanup`, `attach` and the options below, and use every other name that is not public here as it likes.

    Attributes:
        max_concurrency: Jobs that may run at once, 1 or more; jobs asked for inside one of them do not count.
        mailbox_size: Jobs that may wait, and messages of others, 1 or more each; past it senders wait or are refused.
        when_full: `wait` lets senders wait until their deadline, `refuse` fails them at once.
    """

    max_concurrency: int = 1024
    mailbox_size: int = DEFAULT_MAILBOX_SIZE
    when_full: Literal["wait", "refuse"] = "wait"

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _refuse_names(cls)
        define(cls)

    def __init__(self, name: str | None = None, *, active: bool = True, **foreign: Unpack[ForeignKeywords]) -> None:
        """Make a worker; it does nothing until it is added to a runner.

        Args:
            name: The name others ask it under, 1 to 128 printable characters; None makes one up that nobody else has.
            active: Whether it takes jobs from the start, or only after `activate_worker`.
            foreign: `check_dangling_tasks` and `task_manager` are taken and mean nothing.

        Raises:
            TypeError: There is no such keyword.
            InvalidNameError: The name breaks the rule for names.
        """
        for unknown in without_foreign(foreign, ForeignKeywords):
            raise TypeError(f"{type(self).__name__} has no keyword {unknown!r}: there are name and active")
        name = check_name("worker name", name) if name is not None else None
        before = self.__dict__.get(CORE)
        if before is None:
            give_core(self, WorkerCore(self, name, active=active))
        else:  # a class with several bases may come here once for each
            before.again(name, active=active)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTABLE:
            _SETTABLE[name](self, name, value)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return repr(core_of(self))

    # --- properties ---

    @property
    def name(self) -> str:
        """The name others ask it under."""
        return core_of(self).name

    @property
    def bus(self) -> WorkerBus:
        """The bus it is attached to; raises `RunnerStateError` before it is added to a runner."""
        return core_of(self).hosted.bus

    @property
    def registry(self) -> WorkerRegistry:
        """The registry of its runner; raises as `bus`."""
        return core_of(self).hosted.registry

    @property
    def worker_runner(self) -> Runner:
        """The `WorkerRunner` that hosts it; raises as `bus`."""
        return core_of(self).hosted.face

    @property
    def active(self) -> bool:
        """Whether it is given new jobs."""
        return core_of(self).active

    @property
    def activation_args(self) -> dict[str, Any] | None:
        """The arguments of the last activation; None while inactive."""
        return core_of(self).activation_args

    @property
    def parent(self) -> str | None:
        """Name of its parent; None for a root worker."""
        parent = core_of(self).parent
        return parent.name if parent is not None else None

    @property
    def started_at(self) -> float | None:
        """Unix time when it became ready; None before."""
        return core_of(self).started_at

    @property
    def bridged(self) -> bool:
        """Always False: there is no media pipeline here; kept for compatibility."""
        return False

    @property
    def children(self) -> list[BaseWorker]:
        """Its children that live."""
        return [child.instance for child in core_of(self).children or ()]

    def statistics(self) -> WorkerStatistics:
        """What it holds now."""
        return core_of(self).statistics()

    # --- life ---

    async def attach(  # the runner knows its registry and bus; they are named for programs that call this
        self,
        *,
        registry: WorkerRegistry,
        bus: WorkerBus,
        worker_runner: Runner,
    ) -> None:
        """Belong to a runner; called by `add_workers`, once. Override it to look at the runner before `start()`."""

    async def run(self, params: WorkerParams) -> None:  # noqa: ARG002 - overriding methods use it
        """Live: start, then wait to be stopped. Override it to drive the worker yourself; call `start()` first."""
        await self.start()
        await self.wait()

    async def start(self) -> None:
        """Become ready: registered, watched for, given jobs if active. Override to prepare; call `super().start()`."""
        core = core_of(self)
        host = core.host_for("start")
        if core.state is WorkerState.ATTACHED:
            core.move(WorkerState.STARTING)
        if core.state is WorkerState.STARTING:
            await host.ready(core)

    async def stop(self) -> None:
        """Stop now: its jobs and groups are cancelled and their other ends told, its children stopped first.

        Its hooks and background tasks are cancelled. Returns when it has stopped. Override to clean up; call
        `super().stop()`.
        """
        core = core_of(self)
        if core.host is not None and core.state is not WorkerState.STOPPED:
            await core.host.stop(core)

    async def cleanup(self) -> None:
        """The same as `stop()`; kept for compatibility."""
        await self.stop()

    async def wait(self) -> None:
        """Wait until it has stopped."""
        await core_of(self).wait()

    async def end(self, *, reason: str | None = None) -> None:
        """Ask the runners of this session to end gracefully, and return."""
        core = core_of(self)

        async def end(host: WorkerHost) -> None:
            host.bus.post(BusEndMessage(source=core.name, reason=reason, session=host.session))

        await core.act("end the session", end)

    async def cancel(self, *, reason: str | None = None) -> None:
        """Ask the runners of this session to stop at once, and return."""
        core = core_of(self)

        async def cancel(host: WorkerHost) -> None:
            host.bus.post(BusCancelMessage(source=core.name, reason=reason, session=host.session))

        await core.act("cancel the session", cancel)

    def create_task(
        self, coroutine: Coroutine[Any, Any, T], name: str | None = None, *, vital: bool = True
    ) -> BackgroundTask[T]:
        """Run a coroutine beside hooks and jobs; it is cancelled when the worker stops.

        What it raises is raised where the task is awaited. If nobody awaits it then, the worker fails, as if its
        `run()` had raised: it is stopped, its parent is told, and who supervises it makes it again. Before the runner
        runs, it waits for that.

        Args:
            coroutine: What to run, in a context of its own: no context variable of the caller reaches it.
            name: What it is called in logs.
            vital: False for a task whose failure is only reported, and the worker goes on.

        Returns:
            The task, which may be awaited, gathered, asked and cancelled like an `asyncio.Task`.

        Raises:
            TypeError: It is no coroutine.
            RunnerStateError: The worker belongs to no runner, or has ended. The coroutine is closed.
        """
        if not isinstance(coroutine, Coroutine):
            raise TypeError(f"create_task takes a coroutine, what calling an `async def` gives, not {coroutine!r:.100}")
        core = core_of(self)
        try:
            host = core.living_host("start a background task")
        except RunnerStateError:
            coroutine.close()
            raise
        task = BackgroundTask(coroutine, f"{core.name}::{name or 'task'}", core.background_ended, vital=vital)
        if core.background is None:
            core.background = {}
        core.background[task] = None
        if host.running:
            task.begin(host.tasks)
        else:

            async def begin() -> None:
                task.begin(host.tasks)

            host.when_running(core, "start a background task", begin)
        return task

    async def cancel_task(self, task: AnyTask, timeout: float | None = None) -> None:
        """Cancel a task and wait until it has ended; what it raises then is not raised here.

        Args:
            task: One of `create_task`, or any `asyncio.Task`.
            timeout: Seconds to wait at most; None waits for as long as it takes. A task that takes longer is logged.
        """
        if task.cancel() and not await ended(task, timeout):
            log().warning("task did not stop in time", worker=self.name, task=task.get_name(), seconds=timeout)

    # --- events ---

    def event_handler(self, event_name: str) -> Callable[[HandlerT], HandlerT]:
        """Decorate a function, sync or async, to be called as `handler(worker, argument)` after the hook of that name.

        It runs in a task of its own: handlers begin in order, and may wait for each other. What it asks for belongs to
        the job or hook that the event is of. Handlers of `on_job_request` also do the jobs that the class has no
        handler for: they answer with `send_job_response`; if one raises before that, the job ends as ERROR.

        Args:
            event_name: One of `event_names`.

        Raises:
            ValueError: The event does not exist; the text names those that do.
        """

        def decorate(handler: HandlerT) -> HandlerT:
            self.add_event_handler(event_name, handler)
            return handler

        return decorate

    def add_event_handler(self, event_name: str, handler: Handler) -> None:
        """Call `handler(worker, argument)` after the hook of that name; see `event_handler`."""
        core = core_of(self)
        core.events.add(event_name, handler)
        core.want(event_name)

    def _register_event_handler(self, event_name: str, sync: bool = False) -> None:  # noqa: FBT002 - as programs call it
        """Have an event of one's own, for `_call_event_handler`; `sync` ones call their handlers in line."""
        core_of(self).events.register(event_name, sync=sync)

    async def _call_event_handler(self, event_name: str, *arguments: Any) -> None:
        """Call the handlers of an event as `handler(worker, *arguments)`; returns when they have begun.

        Raises:
            RunnerStateError: The worker is not hosted by a running runner, and there are handlers.
        """
        core = core_of(self)
        if core.listens(event_name):
            core.host_for(f"call the handlers of {event_name!r}")
            await core.emit(event_name, *arguments)

    def remove_event_handler(self, event_name: str, handler: Handler) -> None:
        """Stop calling a handler: of one that was added twice, the last time. Does nothing if it was not added."""
        core_of(self).events.remove(event_name, handler)

    # --- other workers ---

    async def send_bus_message(self, message: BusMessage) -> None:
        """Send any message; waits and raises as `WorkerBus.send`."""
        await send(core_of(self), message)

    async def send_bus_error_message(self, error: str) -> None:
        """Report an error: to the parent's `on_worker_failed`, or, from a root worker, to the runners' `on_error`."""
        core = core_of(self)

        async def report(host: WorkerHost) -> None:
            if core.parent is not None:
                host.bus.post(BusWorkerLocalErrorMessage(source=core.name, target=core.parent.name, error=error))
            else:
                host.bus.post(BusWorkerErrorMessage(source=core.name, target=host.name, error=error))

        await core.act("report an error", report)

    async def add_workers(self, *workers: BaseWorker | MakesWorker, watch: bool = True) -> None:
        """Add children: they start now, end before this worker does, and are stopped with it.

        Args:
            workers: New workers, or functions marked with `@function()`.
            watch: Whether this worker's `on_worker_ready` and `on_worker_lost` are called for them.

        Raises:
            DuplicateNameError: A name is taken; the workers named before it were added.
            RunnerStateError: A worker was added before, or this one belongs to no runner, or its runner has ended.
        """
        core = core_of(self)
        await core.living_host("add workers").add_children(core, workers, watch=watch)

    async def supervise(self, *factories: Factory, restart: RestartPolicy | None = None) -> None:
        """Add children that are made again when their `start()` or `run()` raises; this worker watches them.

        Args:
            factories: Functions without arguments that make one worker each, of the same name every time.
            restart: Whom to make again, how often and how soon; the default is `RestartPolicy()`. When it gives up,
                this worker fails with `SupervisionError`.
        """
        core = core_of(self)
        await core.living_host("supervise workers").supervise_children(core, factories, restart)

    async def activate_worker(
        self, worker_name: str, *, args: WorkerActivationArgs | None = None, deactivate_self: bool = False
    ) -> None:
        """Make a worker active; its `on_activated` gets `args`.

        Args:
            worker_name: Whom.
            args: What to hand over.
            deactivate_self: Become inactive first, so that the two are never active together.
        """
        check_name("worker name", worker_name)
        core = core_of(self)
        if deactivate_self and core.active:
            await self.deactivate_worker(core.name)
        given = args.to_dict() if args else None
        await send(core, BusActivateWorkerMessage(source=core.name, target=worker_name, args=given))

    async def deactivate_worker(self, worker_name: str) -> None:
        """Make a worker inactive: it gets no new jobs or data messages; those wait. Jobs that run go on."""
        check_name("worker name", worker_name)
        core = core_of(self)
        await send(core, BusDeactivateWorkerMessage(source=core.name, target=worker_name))

    async def watch_workers(self, *worker_names: str) -> None:
        """Be told when these come up (`on_worker_ready`; at once for those that are) and go (`on_worker_lost`)."""
        core = core_of(self)
        for worker_name in worker_names:
            check_name("worker name", worker_name)

        async def watch(host: WorkerHost) -> None:
            if core.watched is None:
                core.watched = {}
            for worker_name in worker_names:
                core.watched[worker_name] = None
                await host.registry.watch(worker_name, core.on_ready, core.on_lost)

        await core.act("watch workers", watch)

    async def unwatch_workers(self, *worker_names: str) -> None:
        """Stop being told."""
        core = core_of(self)

        async def unwatch(host: WorkerHost) -> None:
            for worker_name in worker_names:
                if core.watched is not None:
                    core.watched.pop(worker_name, None)
                await host.registry.unwatch(worker_name, core.on_ready)

        await core.act("unwatch workers", unwatch)

    async def publish(self, topic: str, data: Any = None) -> int:
        """Send `data` to every worker with a `@subscribe(topic)` method, each a copy, in the order published.

        Over a network each other runner that has a follower gets it once, and no other runner does. It is stored and
        sent again until the network has it, so it arrives in order and once, as long as that runner lives. It does not
        reach a follower that this runner does not know of: not yet, or not any more, after it has ended or this runner
        was cut off for five leases. One that has 10,000 messages more than its mailbox holds waiting drops and counts
        it. Nobody is told whether it was handled.

        Returns:
            How many subscribers in this process got it; those elsewhere are not counted. Before the runner
            runs 0: it is published then.

        Raises:
            EncodeError: It cannot travel, or is too big for the network; nobody got it.
            MailboxFullError: A subscriber in this process had no room within 30 seconds, or so much waits to be sent to
                another runner that there was none. Those before it got it; other runners come first.
        """
        core = core_of(self)
        message = BusTopicMessage(source=core.name, topic=check_name("topic", topic), data=travel(data, "data"))
        count = 0

        async def publish(host: WorkerHost) -> None:
            nonlocal count
            count = await host.bus.publish(message)

        await core.act("publish", publish)
        return count


def attach(core: WorkerCore, host: WorkerHost) -> None:
    """Let a worker belong to a runner.

    Raises:
        RunnerStateError: It belongs to one already, or was stopped.
        ValueError: One of its options is out of its range.
    """
    if core.state is not WorkerState.NEW:
        raise RunnerStateError(f"worker {core.name!r} is {core.state.name.lower()}: add a new one")
    for option in OPTIONS:
        check_option(type(core.instance).__name__, option, getattr(core.instance, option))
    core.host = core.asking = host
    core.move(WorkerState.ATTACHED)


OPTIONS = ("max_concurrency", "mailbox_size", "when_full")
"""Attributes of workers that say how the machinery treats them."""


def check_option(owner: str, name: str, value: object) -> None:
    """Refuse an option under which jobs would wait for ever, or that means nothing.

    Raises:
        ValueError: It is one; the text says what it must be.
    """
    if name == "when_full":
        if value not in ("wait", "refuse"):
            raise ValueError(f"{owner}.when_full must be 'wait' or 'refuse', got {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{owner}.{name} must be 1 or more, got {value!r}")


_MEANT = frozenset({*Hooks.event_names, *OPTIONS, "accepts_bus_message", "run", "start", "stop", "cleanup", "attach"})
"""The public names that a subclass may define."""

_FREE = frozenset({"request", "call", "stream", "gather"})
"""Verbs that came later than the programs of others: one that has a method or handler of that name goes without."""

_KEPT = frozenset(name for name in dir(BaseWorker) if not name.startswith("_")) - _MEANT - _FREE
"""The public names that it may not: a program that reads them must find what they are."""


def _refuse_names(cls: type) -> None:
    """Refuse a class that defines a public name which is not meant for that, or one with nonsense.

    Raises:
        HandlerError: It does; the text says what to do.
    """
    for base in cls.__mro__[: cls.__mro__.index(BaseWorker)]:
        own = vars(base)
        for name in own:
            served = handler_name(own[name])
            if name in _KEPT or (name in _MEANT and served is not None):
                what = f"the method and mark it @job(name={served!r})" if served is not None else "it"
                raise HandlerError(f"{cls.__name__}.{name} would replace BaseWorker.{name}: rename {what}")
            if name in OPTIONS and isinstance(own[name], int | float | str | None):  # a field's is seen later
                try:
                    check_option(cls.__name__, name, own[name])
                except ValueError as error:
                    raise HandlerError(str(error)) from None
            elif name in _MEANT | _FREE and name not in OPTIONS and not _is_method(own[name]):
                raise HandlerError(f"{cls.__name__}.{name} is a hook or method of every worker: define it as a method")


def _is_method(value: object) -> bool:
    return callable(value) or hasattr(value, "__get__")


def _refuse(worker: BaseWorker, name: str, value: object) -> None:
    raise AttributeError(
        f"{name!r} of {type(worker).__name__} belongs to the worker and cannot be set to {value!r:.100}: "
        "choose another name, or define it in the class if it is a hook"
    )


def _check(worker: BaseWorker, name: str, value: object) -> None:
    check_option(type(worker).__name__, name, value)


def _want(worker: BaseWorker, name: str, value: object) -> None:
    """A hook that is set on one worker is called as if its class had it."""
    if not callable(value):
        _refuse(worker, name, value)
    core = worker.__dict__.get(CORE)
    if core is not None:  # else it is set before `super().__init__()`, which looks for it
        core.want(name)


def _guard(worker: BaseWorker, name: str, value: object) -> None:
    """What is set on one worker is asked as if its class had it."""
    if not callable(value) or inspect.iscoroutinefunction(value):
        _refuse(worker, name, value)
    core = worker.__dict__.get(CORE)
    if core is not None:  # else as in `_want`
        core.guard()


_SETTABLE: dict[str, Callable[[BaseWorker, str, object], None]] = {
    **dict.fromkeys((*_KEPT, "on_job_request"), _refuse),
    **dict.fromkeys(OPTIONS, _check),
    "accepts_bus_message": _guard,
    **dict.fromkeys(set(Hooks.event_names) - {"on_job_request"}, _want),
}
"""What is done before a public name of a worker is set."""
