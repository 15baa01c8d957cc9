"""Functions as workers: `@function` on a plain function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, overload

from actors.jobs.errors import HandlerError
from actors.jobs.policies import RetryPolicy
from actors.performer.handler import Handler
from actors.worker.handlers import does_all, handler_of, limit_of, names_around
from actors.worker.hints import hints_of, is_method, without_self
from actors.worker.worker import BaseWorker
from bus import BusJobRequestMessage, check_name

P = ParamSpec("P")
R = TypeVar("R")


class Function(Generic[P, R]):
    """A function that can be called as before, and added to a runner as a worker.

    Attributes:
        call: The function.
        name: Of the worker that it makes.
        handler: How its jobs are done.
    """

    def __init__(self, call: Callable[P, R], name: str, make: Callable[[], Handler]) -> None:
        self.call = call
        self.name = name
        self.handler = make()
        self._worker_class: type[_FunctionWorker] = type("FunctionWorker", (_FunctionWorker,), {})
        does_all(self._worker_class, self.handler)
        update_wrapper(self, call)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.call(*args, **kwargs)

    def worker(self, name: str | None = None) -> BaseWorker:
        """A new worker that serves the function, under its name or another."""
        return self._worker_class(self, name or self.name)


@overload
def function(call: Callable[P, R], /) -> Function[P, R]: ...
@overload
def function(
    *,
    name: str | None = None,
    sequential: bool = False,
    max_concurrency: int | None = None,
    retries: RetryPolicy | None = None,
    timeout: float | None = None,
) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def function(
    call: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    sequential: bool = False,
    max_concurrency: int | None = None,
    retries: RetryPolicy | None = None,
    timeout: float | None = None,
) -> Any:
    """Turn a function into a worker: `@function` over `def hello(name: str) -> str`.

    Ask it like any worker: `await self.job("hello", payload={"name": "you"})`, or call it as before. A single parameter
    takes the payload; several take its keys, and `**rest` those that are left. A parameter that no dict fits, such as a
    `str`, may be given by name too. `Job` and `BusJobRequestMessage` are given where they are asked for by type. Values
    are checked against the annotations, and a default is used when the payload does not give the value. The signature
    alone decides, never the data.

    The returned value is the response; what a generator yields are chunks of a stream. An `async def` runs in the event
    loop, a plain `def` or generator in a thread.

    Args:
        call: The function, when used without parentheses.
        name: The worker's name; default the function's.
        sequential: One at a time, in the order asked.
        max_concurrency: How many at a time; default as many as a worker allows.
        retries: Call it again when it raises.
        timeout: Seconds one job may run; past it the function is cancelled and the job is FAILED.

    Raises:
        HandlerError: It cannot be served; the text says why, and the way out.
    """
    limit = limit_of(sequential=sequential, max_concurrency=max_concurrency, timeout=timeout)
    around = names_around()

    def mark(called: Callable[..., Any]) -> Function[Any, Any]:
        if not is_method(called) or not callable(called):
            raise HandlerError(f"@function stands on a function, not on {called!r:.100}; a name goes into name=")
        own = getattr(called, "__name__", "")
        if name is None and not own.isidentifier():
            raise HandlerError(f"{called!r}: a function without a name of its own needs one: name=")
        served = check_name("function name", own if name is None else name)

        def make() -> Handler:
            return handler_of(
                f"function {served!r}",
                None,
                own or served,
                (update_wrapper(partial(without_self, called), called), called, False),
                hints_of(called, around),
                by_name=True,
                limit=limit,
                retries=retries,
                timeout=timeout,
            )

        return Function(called, served, make)

    return mark(call) if call is not None else mark


class _FunctionWorker(BaseWorker):
    def __init__(self, served: Function[Any, Any], name: str) -> None:
        super().__init__(name)
        self.served = served

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        """Its function does the jobs."""


def served_by(worker: BaseWorker) -> Function[Any, Any] | None:
    """The function that a worker was made of; None for a worker of a class."""
    return worker.served if isinstance(worker, _FunctionWorker) else None
