"""The runner that users hold: it hosts workers in one process, from the first to the last of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, ClassVar, Self

from actors.jobs.nesting import current_job, takes_part
from actors.jobs.params import ForeignRunnerKeywords, without_foreign
from actors.jobs.policies import RestartPolicy
from actors.runner.core import EVENTS, RunnerCore, opened
from actors.runner.scope import Scope
from actors.runner.statistics import RunnerStatistics
from actors.worker.worker import BaseWorker, Factory, MakesWorker
from bus import WorkerBus, WorkerRegistry
from bus.local.events import Handler, HandlerT
from bus.log import reason_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from actors.jobs.params import RunnerOptions


class WorkerRunner:
    """Runs workers: `await runner.add_workers(...)`, then `await runner.run()` or `async with runner:`.

    A runner lives once. When it ends, running jobs drain, children stop before their parents, and every requester that
    still waits is told.
    """

    event_names: ClassVar[tuple[str, ...]] = EVENTS

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
        **bus_options: Unpack[RunnerOptions],
    ) -> None:
        """Make a runner.

        Args:
            name: Unique in a fleet, and stable across restarts; None makes one up.
            bus: How messages travel: a bus, or the URL of one as `open_bus` takes it; None is an `AsyncQueueBus` of its
                own. A bus that is not started is started and stopped by the runner.
            concurrency: Jobs that each of its workers may run at once, 1 or more, where the worker's own
                `max_concurrency` is not lower; None leaves it to the workers.
            handle_sigint: End gracefully on the first Ctrl-C, at once on the second. A handler that the program has
                installed itself has the signal alone.
            handle_sigterm: The same for SIGTERM.
            session: `end()` and `cancel()` of its workers reach all runners of this session; None is one of its own.
            ready_timeout: Seconds a job waits for somebody to serve its name; long enough for a process to start.
            cancel_grace: Seconds a cancelled handler may take before its job is answered without it, and a `stop()`
                once the runner is cancelled.
            drain_timeout: Seconds running jobs may take when the runner ends.
            tracebacks: Whether requesters get the tracebacks of handlers; they may hold secrets.
            rng: Where ids and jitter come from; give a seeded one for reproducible runs.
            bus_options: What `open_bus` takes beside the URL: `prefetch`, `consumer_id`, `signing_key` and the like.
                `check_dangling_tasks`, `force_gc`, `loop` and `task_manager` are taken and mean nothing.

        Raises:
            InvalidNameError: A name breaks the rule for names.
            ValueError: A number is out of its range, or no bus is known for the URL.
            TypeError: The bus has no such option, or was made already.
        """
        self.__actorbus__ = RunnerCore(
            self,
            name,
            opened(bus, without_foreign(bus_options, ForeignRunnerKeywords)),
            concurrency=concurrency,
            handle_sigint=handle_sigint,
            handle_sigterm=handle_sigterm,
            session=session,
            ready_timeout=ready_timeout,
            cancel_grace=cancel_grace,
            drain_timeout=drain_timeout,
            tracebacks=tracebacks,
            rng=rng,
        )
        self.__actorbus_scope__ = Scope(self.__actorbus__)

    def __repr__(self) -> str:
        return repr(self.__actorbus__)

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """Its name in the fleet."""
        return self.__actorbus__.name

    @property
    def bus(self) -> WorkerBus:
        """How its messages travel."""
        return self.__actorbus__.bus

    @property
    def registry(self) -> WorkerRegistry:
        """The workers it knows, its own and those of other runners."""
        return self.__actorbus__.registry

    @property
    def running(self) -> bool:
        """Whether it runs: it takes workers and jobs, or is ending."""
        return self.__actorbus__.running

    @property
    def workers(self) -> list[BaseWorker]:
        """The workers it hosts."""
        return [entry.core.instance for entry in self.__actorbus__.roster.entries.values()]

    def get_worker(self, name: str) -> BaseWorker | None:
        """The worker of that name on this runner, or None."""
        core = self.__actorbus__.roster.find(name)
        return core.instance if core is not None else None

    async def add_workers(self, *workers: BaseWorker | MakesWorker) -> None:
        """Add root workers. They start at once if the runner runs, else when it does.

        Args:
            workers: New workers, or functions marked with `@function()`.

        Raises:
            DuplicateNameError: A name is taken; the workers named before it were added.
            RunnerStateError: A worker was added before, or the runner is ending.
        """
        self.__actorbus__.require_here()
        await self.__actorbus__.add(workers)

    async def supervise(self, *factories: Factory, restart: RestartPolicy | None = None) -> None:
        """Add root workers that are made again when they fail; see `BaseWorker.supervise`.

        When the policy gives up, the runner stops and `run()` raises `SupervisionError`.
        """
        self.__actorbus__.require_here()
        await self.__actorbus__.supervise_children(None, factories, restart)

    async def remove_worker(self, name: str) -> bool:
        """End one worker, its children first, and return when its name is free. False if there is none.

        Running jobs drain for up to `drain_timeout`, then they are cancelled; jobs that have not started wait for
        another worker of that name. Cancelling the call does not stop the removal. Inside a job that the worker, or one
        of its children, takes part in, this returns at once: the removal waits for that job.
        """
        self.__actorbus__.require_here()
        roster = self.__actorbus__.roster
        core = roster.find(name)
        if core is None:
            return False
        if not self.__actorbus__.running:
            await roster.stop(core, "it was removed")
            return True
        roster.end(core, "it was removed")
        job = current_job.get()
        if job is None or not takes_part(job, {each.name for each in roster.children_first(core)}):
            await core.wait()
        return True

    async def run(self, worker: BaseWorker | MakesWorker | None = None, *, auto_end: bool = True) -> None:
        """Run until ended.

        Args:
            worker: One more worker to add first.
            auto_end: End when the last root worker has stopped; else only by `end()`, `cancel()` or a signal.

        Raises:
            RunnerStateError: It was run before.
            DuplicateNameError: The name of `worker` is taken.
            SupervisionError: Workers added by `supervise` failed too often.
        """
        self.__actorbus_scope__.require_new()
        self.__actorbus__.auto_end = auto_end
        if worker is not None:
            await self.add_workers(worker)
        await self.__actorbus_scope__.run()

    async def end(self, reason: str | None = None) -> None:
        """Begin to end gracefully, and return; `run()` returns when it has. Once is enough."""
        self.__actorbus__.require_here()
        self.__actorbus__.finish(reason_of(reason, "the runner ended"))

    async def cancel(self, reason: str | None = None) -> None:
        """Begin to stop at once, also while it ends gracefully, and return."""
        self.__actorbus__.require_here()
        self.__actorbus__.finish(reason_of(reason, "the runner was cancelled"), at_once=True)

    async def __aenter__(self) -> Self:
        """Run in the background; returns when the workers added so far were started, raises what `run()` raises.

        When it ends while the block runs (by `end()`, a signal, a worker), what the block waits for is cancelled, and
        the block is left without an error. If it is the block itself that ends it, it may go on until that has ended.
        On asyncio any task may leave the block; on trio, the one that has entered it.
        """
        self.__actorbus_scope__.require_new()
        self.__actorbus__.auto_end = False
        await self.__actorbus_scope__.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End gracefully and wait; at once if the body raised. What the body raised goes on as it is.

        When the runner fails, the body is cancelled and this raises what `run()` raises.
        """
        return await self.__actorbus_scope__.leave(error)

    def statistics(self) -> RunnerStatistics:
        """What it holds now."""
        return self.__actorbus__.statistics()

    # --- events ---

    def event_handler(self, event_name: str) -> Callable[[HandlerT], HandlerT]:
        """Decorate a function, sync or async, to be called when the event happens; see `add_event_handler`.

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
        """Call `handler(runner, ...)` when the event happens; many handlers, sync or async, none changes an outcome.

        `on_ready(runner)` once all workers added before `run` were started, `on_error(runner, WorkerErrorData)` when
        something of a worker failed, and the three job events with a `JobRecord`, one at a time in their order: behind
        a slow handler they wait in memory. `on_job_start` is told when a handler begins, and of each job that its
        workers have answered either `on_job_complete` or `on_job_error`: the latter whatever it is that kept it from
        completing, also when it had not begun. A job that nobody took, or that was lost with who had it, is told to
        `on_job_error` where it was asked for.
        """
        self.__actorbus__.events.add(event_name, handler)
        self.__actorbus__.job_events.look()

    def remove_event_handler(self, event_name: str, handler: Handler) -> None:
        """Stop calling a handler; see `add_event_handler`."""
        self.__actorbus__.events.remove(event_name, handler)
        self.__actorbus__.job_events.look()


def core_of_runner(runner: object) -> RunnerCore:
    """The core of a runner; the machinery's only other way there.

    Raises:
        TypeError: It is no runner.
    """
    if not isinstance(runner, WorkerRunner):
        raise TypeError(f"a WorkerRunner is needed, not {runner!r:.100}")
    core: RunnerCore = object.__getattribute__(runner, "__actorbus__")
    return core
