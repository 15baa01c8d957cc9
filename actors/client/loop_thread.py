"""The event loop of a sync client: in a thread of its own, it does what other threads wait for."""

from __future__ import annotations

import atexit
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractAsyncContextManager, ExitStack
from contextvars import Context, copy_context
from functools import partial
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import anyio
from anyio import CancelScope
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import current_token

from actors.jobs.errors import RunnerStateError
from actors.jobs.nesting import current_event, current_hook, current_job

if TYPE_CHECKING:
    from types import TracebackType


ParamsP = ParamSpec("ParamsP")
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")

_USE = "use it inside 'with Client.sync(...) as client'"

LONGEST_WAIT = 1.0
"""Seconds after which a caller looks up: a signal that comes just before it waits does not end its wait."""
CLOSED_MEANWHILE = "the client was closed while this waited"


class _Call(Generic[ResultT]):
    """A function on its way into the event loop, where it may be cancelled before its caller knows that it began."""

    def __init__(self, function: Callable[[], Awaitable[ResultT]]) -> None:
        self._function = function
        self._scope: CancelScope | None = None
        self._cancelled = False
        self.ended = False

    async def run(self) -> ResultT:
        try:
            if not self._cancelled:
                with CancelScope() as self._scope:
                    return await self._function()
            raise RunnerStateError(CLOSED_MEANWHILE)
        finally:
            self.ended = True

    def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()


class LoopThread:
    """Runs one async context, and calls of any thread inside it. It lives once.

    Whoever is interrupted while waiting, as by Ctrl-C, cancels what was called. When it is closed nothing is left: what
    is still called is cancelled, and the thread has ended. An interpreter that exits closes it too.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # a signal handler may call too
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()
        self._calls: dict[_Call[Any], None] = {}
        self._opened = False
        self._process = os.getpid()

    def open(self, context: AbstractAsyncContextManager[object]) -> None:
        """Start the thread and enter the context in it."""
        refuse_inside_a_loop()
        with self._lock:
            if self._opened:
                raise RunnerStateError("a sync client lives once: make a new one with Client.sync(...)")
            self._opened = True
        with ExitStack() as stack:
            portal = _started(stack)
            stack.callback(self._cancel_calls, portal)
            _outside_jobs().run(stack.enter_context, portal.wrap_async_context_manager(context))
            stack.callback(self._refuse_calls)
            atexit.register(self.close, None, None, None)
            self._portal = portal
            self._stack = stack.pop_all()

    def close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Leave the context and end the thread."""
        if os.getpid() != self._process:
            return None  # a fork of the process that has the thread
        atexit.unregister(self.close)
        with self._lock:
            stack, self._stack = self._stack, ExitStack()
        return stack.__exit__(kind, error, trace)

    def call(
        self, function: Callable[ParamsP, Awaitable[ResultT]], *args: ParamsP.args, **keywords: ParamsP.kwargs
    ) -> ResultT:
        """Await a function in the event loop, and return or raise what it does.

        Raises:
            RunnerStateError: It is not open, or was closed meanwhile, or an event loop runs in this thread.
        """
        call = _Call(partial(function, *args, **keywords))
        portal = self.require_open()
        try:
            with self._lock:
                self.require_open()  # it may be closed by now
                self._calls[call] = None
                future = _outside_jobs().run(portal.start_task_soon, call.run)
            try:
                while not wait((future,), LONGEST_WAIT).done:
                    pass
                return future.result()
            finally:
                del future  # it holds what was raised, whose traceback holds this frame
        except CancelledError:
            raise RunnerStateError(CLOSED_MEANWHILE) from None
        except BaseException:
            if not call.ended:  # it was raised in this thread, by a signal
                with self._lock:
                    if self._portal is portal:
                        portal.call(call.cancel)
            raise
        finally:
            self._calls.pop(call, None)

    def require_open(self) -> BlockingPortal:
        """What calls are made through.

        Raises:
            RunnerStateError: It is not open, or an event loop runs in this thread.
        """
        refuse_inside_a_loop()
        if os.getpid() != self._process:
            raise RunnerStateError("this client was made before the process forked: make a new one in each process")
        if self._portal is None:
            state = "is closed: make a new one and" if self._opened else "is not connected:"
            raise RunnerStateError(f"the client {state} {_USE}")
        return self._portal

    def _refuse_calls(self) -> None:
        with self._lock:
            self._portal = None

    def _cancel_calls(self, portal: BlockingPortal) -> None:
        for call in tuple(self._calls):
            portal.call(call.cancel)


def refuse_inside_a_loop() -> None:
    """Raise if an event loop runs in this thread: whoever blocks it waits for ever.

    Raises:
        RunnerStateError: One does.
    """
    try:
        current_token()
    except RuntimeError:
        return
    raise RunnerStateError(
        "a sync client would block the event loop that runs in this thread: use 'async with Client(...) as client' here"
    )


def _started(stack: ExitStack) -> BlockingPortal:
    """Start a thread with an event loop, which ends with the stack, at once if that unwinds.

    `anyio.from_thread.start_blocking_portal` waits for ever if it is interrupted while the thread starts, and, being a
    generator, when it is collected in a fork of the process.
    """
    ready: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    def run() -> None:
        try:
            anyio.run(serve)
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def stop(kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        try:
            portal = ready.result()
            portal.call(portal.stop, kind is not None)
        finally:
            thread.join()

    thread = Thread(target=run, name="actorbus-sync-client", daemon=True)
    thread.start()
    stack.push(stop)
    return ready.result()


def _outside_jobs() -> Context:
    """The caller's context, but inside no job: one that runs in another event loop cannot be a parent in this one."""
    context = copy_context()
    for variable in current_job, current_hook, current_event:
        context.run(variable.set, None)
    return context
