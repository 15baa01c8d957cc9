"""Threads for plain handlers: `def` and not `async def`.

1. No thread can be stopped. Who is cancelled while a thread works for it leaves that behind, and is told when it ends.
2. No thread keeps the process from ending: all are daemons.
3. `anyio.from_thread` works in them, and tells them there when they have been left behind.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, copy_context
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

import anyio.from_thread
import anyio.to_thread
import msgspec
from anyio import CancelScope, CapacityLimiter, RunFinishedError, get_cancelled_exc_class
from anyio.lowlevel import EventLoopToken, checkpoint_if_cancelled, current_token

from actors.jobs.errors import JobStateError, RunnerStateError
from actors.jobs.nesting import OuterJob, current_job
from bus.local.tasks import Tasks, Waiter, on_asyncio, wake
from bus.log import log

ParamsP = ParamSpec("ParamsP")
ResultT = TypeVar("ResultT")

THREADS = 40
"""Plain handlers of one worker that work at once: as many as anyio has threads. Who waits for a job is not counted."""

MAX_IDLE_SECONDS = 10.0
"""How long a thread is kept for the next handler."""


class ThreadStatistics(msgspec.Struct, frozen=True):
    """A snapshot of the threads of plain handlers.

    Attributes:
        running: Threads that run a handler now.
        abandoned: Those of them whose job has been answered without them, after a timeout or a cancellation.
    """

    running: int = 0
    abandoned: int = 0


_current_call: ContextVar[_Call | None] = ContextVar("current_call", default=None)
"""The call that the current thread works for."""


class _Call:
    """One call of a plain function, from its begin until its thread is back."""

    __slots__ = ("asks", "context", "ended", "error", "function", "name", "over", "result", "scope", "waiter")

    def __init__(self, function: Callable[[], Any], name: str, ended: Callable[[], None], waiter: Waiter) -> None:
        self.function = function
        self.name = name
        self.ended = ended
        self.waiter = waiter
        self.context = _outside_the_loop()
        self.context.run(_current_call.set, self)
        self.asks: dict[CancelScope, None] = {}
        """What it waits for in the event loop."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.scope: CancelScope | None = None
        self.over = True  # it has not begun

    def run(self) -> None:
        """Call the function, in a thread. What it raises is a value: a GeneratorExit in a future closes who awaits."""
        try:
            self.result = self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            self.error = error


class Threads:
    """The threads of one runner. It is used in its event loop alone."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._token = current_token()
        native: Any = self._token.native_token
        self._on_asyncio = on_asyncio()
        self._soon: Callable[..., object] = native.call_soon_threadsafe if self._on_asyncio else native.run_sync_soon
        self._limiter = CapacityLimiter(math.inf)  # who gives slots counts threads
        self._idle: deque[tuple[float, _Worker]] = deque()
        self._running = 0
        self._abandoned: dict[_Call, None] = {}
        self._closed = False

    def statistics(self) -> ThreadStatistics:
        """How many there are now."""
        return ThreadStatistics(self._running, sum(not call.over for call in self._abandoned))

    async def call(self, function: Callable[[], Any], name: str, ended: Callable[[], None]) -> Any:
        """Call a plain function in a thread, return what it returns and raise what it raises.

        Args:
            function: What to call, in a copy of the caller's context.
            name: What it is called in logs.
            ended: Called when the thread is back: before this returns, or at any time after it was cancelled.
        """
        call = _Call(function, name, ended, self._tasks.waiter())
        scope = call.scope = CancelScope()
        try:
            with scope:
                await self._begin(call)
        except BaseException:
            for asking in (scope, *call.asks):
                asking.cancel()  # so that the thread, if it asks, is told
            self._abandoned[call] = None
            call.waiter = self._tasks.waiter()
            self._tasks.start(self._await_end, call)
            raise
        ended()
        if call.error is not None:
            raise call.error
        return call.result

    def blocking(self, job: OuterJob) -> ThreadBlocking:
        """The way from a thread that works for a job into the event loop."""
        return ThreadBlocking(job, self._token)

    def close(self) -> None:
        """Let the threads that do nothing end; the others are left behind, and named."""
        self._closed = True
        while self._idle:
            self._idle.pop()[1].put(None)
        handlers = Counter(call.name for call in self._abandoned if not call.over)
        if handlers:
            log().warning("threads left behind: they end with their handlers, or with the process", handlers=handlers)

    async def _begin(self, call: _Call) -> None:
        """Give a call to a thread, and wait until it is over."""
        if self._on_asyncio:
            thread = self._thread()
            self._running += 1
            call.over = False
            thread.put(call)
            await call.waiter
        else:
            await checkpoint_if_cancelled()
            self._running += 1
            call.over = False
            await anyio.to_thread.run_sync(self._work, call, abandon_on_cancel=True, limiter=self._limiter)

    async def _await_end(self, call: _Call) -> None:
        """See a call to its end that nobody waits for any more."""
        while not call.over:
            await call.waiter
        del self._abandoned[call]
        call.ended()

    def _thread(self) -> _Worker:
        """A thread that has nothing to do."""
        if not self._idle:
            return _Worker(self._token, self._soon, self._ended)
        thread = self._idle.pop()[1]
        while self._idle and self._tasks.now() - self._idle[0][0] > MAX_IDLE_SECONDS:
            self._idle.popleft()[1].put(None)
        return thread

    def _work(self, call: _Call) -> None:
        """Run a call in a thread of the event loop's own: trio's are daemons."""
        try:
            call.run()
        finally:
            _tell(self._soon, self._ended, None, call)

    def _ended(self, thread: _Worker | None, call: _Call) -> None:
        call.over = True
        self._running -= 1
        if thread is not None and self._closed:
            thread.put(None)
        elif thread is not None:
            self._idle.append((self._tasks.now(), thread))
        wake(call.waiter)  # no more than that: this is no task, and nothing that needs one works here


class ThreadBlocking:
    """The way from a thread of a plain handler into the event loop. What it does there belongs to the handler's job."""

    def __init__(self, job: OuterJob, token: EventLoopToken) -> None:
        self._job = job
        self._token = token

    def call(
        self, function: Callable[ParamsP, Awaitable[ResultT]], *args: ParamsP.args, **keywords: ParamsP.kwargs
    ) -> ResultT:
        """Await a function in the event loop, and return or raise what it does.

        Raises:
            RunnerStateError: An event loop runs in this thread, or that of the job has ended.
            JobStateError: The job has been told to stop, before or meanwhile.
        """
        self.require_open()
        call = _current_call.get()

        async def run() -> ResultT:
            current_job.set(self._job)
            if call is not None and call.scope is not None and call.scope.cancel_called:
                raise self._stopped()
            with CancelScope(shield=call is not None) as scope:  # what cancels the thread's own scope cancels this one
                if call is not None:
                    call.asks[scope] = None
                try:
                    return await function(*args, **keywords)
                except get_cancelled_exc_class():
                    if scope.cancel_called:
                        raise
                finally:
                    if call is not None:
                        call.asks.pop(scope, None)
            raise self._stopped()

        try:
            return anyio.from_thread.run(run, token=self._token)
        except RunFinishedError:
            raise RunnerStateError(f"the runner of job {self._job.id!r} has ended") from None

    def require_open(self) -> None:
        """Refuse to block an event loop.

        Raises:
            RunnerStateError: One runs in this thread.
        """
        try:
            current_token()
        except RuntimeError:
            return
        raise RunnerStateError("job.sync would block the event loop of this thread: await the verbs of the worker here")

    def _stopped(self) -> JobStateError:
        return JobStateError(f"job {self._job.id!r} of worker {self._job.worker_name!r} has been told to stop")


class _Worker:
    """A thread that runs one call after the other, until it is given None."""

    def __init__(self, token: EventLoopToken, soon: Callable[..., object], ended: Callable[..., None]) -> None:
        self._token = token
        self._soon = soon
        self._ended = ended
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.put = self._calls.put
        Thread(target=self._serve, name="actorbus-handler", daemon=True).start()

    def _serve(self) -> None:
        # What `anyio.from_thread` finds its event loop by; there is no public way in. Without it users name a token.
        known = getattr(anyio.from_thread, "threadlocals", None) or SimpleNamespace()
        known.current_token = self._token
        while (call := self._calls.get()) is not None:
            known.current_cancel_scope = call.scope
            call.run()
            known.current_cancel_scope = None
            if not _tell(self._soon, self._ended, self, call):
                return
            del call  # an idle thread must not keep alive what it did last


def _tell(soon: Callable[..., object], ended: Callable[..., None], thread: _Worker | None, call: _Call) -> bool:
    """Tell the event loop that a call is over. False if that has ended."""
    try:
        soon(ended, thread, call)
    except RuntimeError:
        return False
    return True


def _outside_the_loop() -> Context:
    """The context of the current task, as a thread may have it: no event loop runs there."""
    context = copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context
