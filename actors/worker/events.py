"""The events of a worker: handlers that run in tasks of their own, started in order, and may wait for each other."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Protocol

import msgspec

from actors.jobs.nesting import OpenGroup, OpenMember, OuterJob, current_event, current_hook, current_job
from actors.performer.handler import Handler, Shape, Takes
from bus.local.events import EventHandlers
from bus.local.events import Handler as EventHandler
from bus.local.tasks import PooledTask, Signal, Tasks, Waiter, is_cancellation, wake

MOST_HANDLING = 1024
"""Event handlers of one worker that run at once; past it hooks, and with them events, wait until one has ended."""


class Eventful(Protocol):
    """A worker's core, as its events need it."""

    name: str
    instance: Any

    @property
    def tasks(self) -> Tasks:
        """The tasks of its runner."""

    def reported(self, what: str, error: BaseException) -> None:
        """Log what its own code raised, and tell those who listen for errors."""

    def job_left(self) -> None:
        """Something has ended: who waits for that may look again."""


class Handling(msgspec.Struct, eq=False):
    """One handler that was called for one event.

    Attributes:
        event_name: Of which.
        handler: What is called.
        details: With what, beside the worker.
        reports: Whether what it raises is reported; else somebody looks at `error`.
        job: The job that the event is of, if its handler runs.
        hook: The worker whose hook it goes with, if any.
        event: The event of a job that it goes with, if any.
        begun: Woken when it is called.
        ended: Woken when it has ended.
        error: What it raised.
        task: What runs it.
    """

    event_name: str
    handler: EventHandler
    details: tuple[object, ...]
    reports: bool
    job: OuterJob | None
    hook: str | None
    event: tuple[OpenGroup, OpenMember] | None
    begun: Waiter
    ended: Waiter
    error: BaseException | None = None
    task: PooledTask | None = None


class WorkerEvents(EventHandlers):
    """The handlers of a worker's events. What one raises is reported and stops nobody.

    What a handler asks for belongs to the job or hook that the event is of, as if that had asked.
    """

    __slots__ = ("_core", "_in_line", "_left", "_running", "closed", "serving")

    def __init__(self, core: Eventful, names: tuple[str, ...]) -> None:
        super().__init__(core.instance, names)
        self._core = core
        self._in_line: frozenset[str] = frozenset()
        self._running: dict[Handling, None] = {}
        self._left = Signal()
        self.closed = False
        self.serving = Handler(None, "on_job_request", self._serve, Shape.COROUTINE, Takes.MESSAGE)
        """Does the jobs that no other handler does, by the handlers of `on_job_request`."""

    @property
    def running(self) -> int:
        """How many handlers run."""
        return len(self._running)

    def register(self, event_name: str, *, sync: bool) -> None:
        """Have one more event; its handlers are called in line, one after the other, if it is `sync`."""
        self._names = (*self._names, event_name) if event_name not in self._names else self._names
        if sync:
            self._in_line |= {event_name}

    async def emit(self, event_name: str, *details: object, **keywords: object) -> None:
        """Call the handlers of an event, in order; returns when the last one has begun."""
        if event_name in self._in_line:
            await super().emit(event_name, *details, **keywords)
            return
        for handler in self.of(event_name):
            await self._start(event_name, partial(handler, **keywords) if keywords else handler, details)

    def close(self) -> None:
        """Cancel the handlers that run, and start none any more."""
        self.closed = True
        for handling in self._running:
            if handling.task is not None:
                handling.task.cancel()

    def shield(self) -> None:
        """Stop telling handlers to stop: they swallow that."""
        for handling in self._running:
            if handling.task is not None:
                handling.task.shield()

    async def _serve(self, _instance: object, message: object) -> None:
        """Call the handlers of `on_job_request` for a job, and wait until they have ended."""
        begun: list[Handling] = []
        try:
            for handler in self.of("on_job_request"):
                handling = await self._start("on_job_request", handler, (message,), reports=False)
                if handling is not None:
                    begun.append(handling)
            for handling in begun:
                await handling.ended
        except BaseException:
            for handling in begun:
                if handling in self._running and handling.task is not None:
                    handling.task.cancel()
            raise
        failed = next((handling.error for handling in begun if handling.error is not None), None)
        if failed is not None:
            raise failed

    async def _start(
        self, event_name: str, handler: EventHandler, details: tuple[object, ...], *, reports: bool = True
    ) -> Handling | None:
        tasks = self._core.tasks
        while len(self._running) >= MOST_HANDLING:
            await self._left.wait(tasks)
        if self.closed:
            return None
        handling = Handling(
            event_name,
            handler,
            details,
            reports,
            current_job.get(),
            current_hook.get(),
            current_event.get(),
            tasks.waiter(),
            tasks.waiter(),
        )
        self._running[handling] = None
        handling.task = tasks.start(self._run, handling)
        await handling.begun
        return handling

    async def _run(self, handling: Handling) -> None:
        current_job.set(handling.job)
        current_hook.set(handling.hook)
        current_event.set(handling.event)
        wake(handling.begun)
        try:
            result = handling.handler(self._core.instance, *handling.details)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if is_cancellation(error):
                raise
            handling.error = error
            if handling.reports:
                self._core.reported(f"event handler of {handling.event_name} failed", error)
        finally:
            del self._running[handling]
            wake(handling.ended)
            self._left.wake()
            self._core.job_left()
            current_job.set(None)
            current_hook.set(None)
            current_event.set(None)
