"""Handlers, options and bounds that cannot be meant are refused where they are defined."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from functools import partial
from types import FunctionType
from typing import Any

import pytest

from actors import (
    Backoff,
    BaseWorker,
    HandlerError,
    Job,
    RestartPolicy,
    RetryPolicy,
    RunnerStateError,
    WorkerRunner,
    job,
    subscribe,
    worker_ready,
)
from bus import BusEndMessage, open_bus
from tests.support.running import running

pytestmark = pytest.mark.anyio


async def method_of_a_worker(self: Any) -> None: ...


def define(method: Any, mark: Callable[[Any], Any] = job) -> None:
    """Define a worker whose handler is a copy of `method`: marks stay on what they stand on."""
    if isinstance(method, FunctionType):
        copied = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__)
        copied.__kwdefaults__ = method.__kwdefaults__
        copied.__annotations__ = method.__annotations__
        method = copied
    type("Defined", (BaseWorker,), {"handler": mark(method)})


async def two_arguments(self: Any, first: Any, second: Any) -> None: ...
async def keyword_needed(self: Any, message: Any, *, needed: int) -> None: ...
async def no_self() -> None: ...
async def no_self_but_keywords(*, this: Any = None) -> None: ...
async def only_whatever_comes(self: Any, *arguments: Any) -> None: ...
async def hidden_signature(*arguments: Any, **keywords: Any) -> None: ...
async def another_message(self: Any, message: BusEndMessage) -> None: ...
async def payload_twice(self: Any, work: Job[int], number: int) -> None: ...
async def a_function(self: Any, call: Callable[[int], int]) -> None: ...
async def a_bare_class(self: Any, worker: BaseWorker, depth: int) -> None: ...


async def async_generator(self: Any) -> AsyncGenerator[int]:
    yield 1


async def unknown_type(self: Any, payload: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (no_self, "handler Defined.handler takes no 'self'"),
        (no_self_but_keywords, "takes no 'self'"),
        (only_whatever_comes, r"takes \*args, which does not say what it is given"),
        (hidden_signature, r"takes \*args, .* functools.wraps"),
        (another_message, "takes BusEndMessage: it is given a BusJobRequestMessage, or the payload"),
        (payload_twice, r"takes the payload twice, in Job\[...\] and in 'number': leave one away"),
        (a_function, "parameter 'call': .* is code, and code does not travel"),
        (a_bare_class, "parameter 'worker': BaseWorker cannot be built from what travels"),
        (unknown_type, "'Missing' cannot be resolved: name 'Missing' is not defined; import or define it before"),
    ],
)
def test_a_handler_with_a_signature_nobody_can_serve_is_refused_at_its_definition(method: Any, message: str) -> None:
    with pytest.raises(HandlerError, match=message):
        define(method)


@pytest.mark.parametrize("mark", [worker_ready(name="x"), subscribe("x")], ids=["worker_ready", "subscribe"])
@pytest.mark.parametrize("method", [no_self, two_arguments, keyword_needed, method_of_a_worker])
def test_a_method_that_cannot_be_given_what_it_waits_for_is_refused_at_its_definition(mark: Any, method: Any) -> None:
    with pytest.raises(HandlerError, match=r"Defined.handler, for (worker|topic) 'x'"):
        define(method, mark)


@pytest.mark.parametrize("mark", [worker_ready(name="x"), subscribe("x")], ids=["worker_ready", "subscribe"])
@pytest.mark.parametrize("wrap", [staticmethod, classmethod])
def test_a_listener_that_is_no_plain_method_is_refused_at_its_definition(wrap: Any, mark: Any) -> None:
    with pytest.raises(HandlerError, match=f"is a {wrap.__name__}: it must be a plain method"):
        define(method_of_a_worker, lambda method: wrap(mark(method)))


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (property(method_of_a_worker), "stands on a method of a worker, not on <property"),
        (BaseWorker, "stands on a method of a worker, not on <class"),
        (partial(method_of_a_worker), "has no name of its own: say name="),
        (len, "cannot mark <built-in function len>: write a method that calls it"),
    ],
    ids=["property", "class", "partial", "builtin"],
)
def test_what_cannot_be_a_handler_is_refused_where_it_is_marked(thing: Any, message: str) -> None:
    with pytest.raises(HandlerError, match=message):
        job(thing)


def test_a_name_given_to_job_without_its_keyword_is_explained() -> None:
    with pytest.raises(HandlerError, match="not on 'research'; a name goes into name="):
        job("research")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_concurrency": 0}, "max_concurrency must be 1 or more, got 0"),
        ({"sequential": True, "max_concurrency": 2}, "sequential=True means max_concurrency=1, got 2"),
        ({"timeout": 0}, "timeout must be seconds, more than 0, got 0"),
        ({"timeout": -1.0}, "got -1.0"),
        ({"timeout": float("nan")}, "got nan"),
        ({"retries": RetryPolicy()}, "a stream cannot be retried"),
    ],
)
def test_options_of_a_handler_that_cannot_be_meant_are_refused_at_its_definition(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(HandlerError, match=message):
        define(async_generator, lambda method: job(name="x", **options)(method))  # noqa: PLW0108 - `job` itself must raise in it


def test_on_job_request_must_be_async() -> None:
    with pytest.raises(HandlerError, match="on_job_request must be 'async def'; for a plain function use @job"):
        type("Defined", (BaseWorker,), {"on_job_request": lambda self, message: None})


def some(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RetryPolicy(attempts=0), "RetryPolicy.attempts must be 1 or more; got 0"),
        (lambda: RestartPolicy(strategy=some("all")), "RestartPolicy.strategy must be one of one_for_one"),
        (lambda: RestartPolicy(max_restarts=-1), "RestartPolicy.max_restarts must be 0 or more"),
        (lambda: RestartPolicy(period=0), "RestartPolicy.period must be seconds, more than 0"),
        (lambda: Backoff(first=-1), "Backoff.first must be seconds"),
        (lambda: Backoff(factor=0.5), "Backoff.factor must be 1 or more"),
        (lambda: Backoff(jitter=2), "Backoff.jitter must be between 0 and 1"),
    ],
)
def test_policies_that_cannot_be_meant_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("given", [BaseWorker, "w", None, method_of_a_worker, 5])
async def test_only_workers_can_be_added(given: Any) -> None:
    with pytest.raises(TypeError, match="a worker or a function marked with @function"):
        await WorkerRunner().add_workers(given)
    async with running(boss := BaseWorker("boss")):
        with pytest.raises(TypeError, match="a worker or a function marked with @function"):
            await boss.add_workers(given)


async def test_a_worker_that_forgot_to_initialise_its_base_is_told_so() -> None:
    class Forgetful(BaseWorker):
        def __init__(self) -> None:
            self.mine = 1

    with pytest.raises(RunnerStateError, match=r"Forgetful.__init__ does not call super\(\).__init__\(name\)"):
        await WorkerRunner().add_workers(Forgetful())


@pytest.mark.parametrize(
    ("attribute", "value", "rule"),
    [
        ("max_concurrency", 0, "1 or more, got 0"),
        ("mailbox_size", 0, "1 or more, got 0"),
        ("mailbox_size", math.nan, "1 or more, got nan"),
        ("when_full", "drop", "'wait' or 'refuse', got 'drop'"),
    ],
)
def test_bounds_of_a_worker_under_which_jobs_would_wait_for_ever_are_refused_where_they_are_defined(
    attribute: str, value: Any, rule: str
) -> None:
    with pytest.raises(ValueError, match=f"Bounded.{attribute} must be {rule}"):
        type("Bounded", (BaseWorker,), {attribute: value})


@pytest.mark.parametrize("name", ["ready_timeout", "cancel_grace", "drain_timeout"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_limits_of_a_runner_that_are_no_durations_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be seconds, 0 or more, got"):
        WorkerRunner(**{name: value})  # type: ignore[arg-type]


def test_a_bus_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="no bus for the scheme 'carrier-pigeon': use memory://"):
        open_bus("carrier-pigeon://somewhere")
