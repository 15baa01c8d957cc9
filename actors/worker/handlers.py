"""Handlers: the decorators that mark methods, and the definition that the methods of a class make."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, overload

import msgspec

from actors.jobs.errors import HandlerError
from actors.jobs.policies import RetryPolicy
from actors.performer.handler import Handler, Shape, Takes
from actors.worker.hints import Hints, callable_of, hints_of, is_method, parameters_of, shape_of, type_arguments
from actors.worker.hooks import Hooks
from actors.worker.signature import read
from bus import check_name, nearest
from bus.wire.annotations import bound
from bus.wire.known import know

MethodT = TypeVar("MethodT", bound=Callable[..., Any])

_JOB = "__actors_job__"
_READY = "__actors_worker_ready__"
_TOPIC = "__actors_topic__"

MAX_TOPICS = 100
"""Topics that one worker may follow: each is announced to the whole fleet."""


class _Mark(msgspec.Struct):
    name: str
    limit: int | None
    retries: RetryPolicy | None
    timeout: float | None
    hints: dict[str, Any]


@overload
def job(function: MethodT, /) -> MethodT: ...
@overload
def job(
    *,
    name: str | None = None,
    sequential: bool = False,
    max_concurrency: int | None = None,
    retries: RetryPolicy | None = None,
    timeout: float | None = None,
) -> Callable[[MethodT], MethodT]: ...
def job(
    function: MethodT | None = None,
    /,
    *,
    name: str | None = None,
    sequential: bool = False,
    max_concurrency: int | None = None,
    retries: RetryPolicy | None = None,
    timeout: float | None = None,
) -> Any:
    """Mark a method as the handler of a job name.

    A single parameter besides `self` takes the payload; several take its keys, and `**rest` those that are left. A
    parameter that is annotated `Job` or `Job[T]` gets the job, one that is annotated `BusJobRequestMessage` the request
    message; so does one that stands alone without an annotation. The payload is converted to what its annotation says,
    and a default is used when the payload does not give the value.

    It may be `async def` (the returned value is the response), an async generator (each value is a chunk of a stream),
    a plain `def` or a plain generator, which run in a thread, or anything that returns something to await. A handler
    that has the request message and returns None leaves the job open: it answers later, with `send_job_response`.
    Whatever a handler does, the requester is told one outcome.

    Args:
        function: The method, when used without parentheses.
        name: The job name; default the method's name.
        sequential: One at a time, in the order asked. A job asked for inside one of them, even through other workers,
            does not wait for it. Two sequential handlers, of one worker or of two, that ask each other from two
            unrelated requests wait for each other until a timeout.
        max_concurrency: How many at a time; default as many as the worker allows.
        retries: Call it again when it raises.
        timeout: Seconds one job may run; past it the handler is cancelled and the job is FAILED.

    Raises:
        HandlerError: The method cannot be served.
    """
    limit = limit_of(sequential=sequential, max_concurrency=max_concurrency, timeout=timeout)
    namespace = names_around()

    def mark(method: MethodT) -> MethodT:
        if not is_method(method):
            raise HandlerError(f"@job stands on a method of a worker, not on {method!r:.100}; a name goes into name=")
        own = getattr(getattr(method, "__func__", method), "__name__", None)
        if name is None and own is None:
            raise HandlerError(f"@job: {method!r:.100} has no name of its own: say name=")
        served = check_name("job name", own if name is None else name)
        marked = _Mark(served, limit, retries, timeout, hints_of(method, namespace).known)
        try:
            setattr(method, _JOB, marked)
        except (AttributeError, TypeError):
            raise HandlerError(f"@job cannot mark {method!r:.100}: write a method that calls it") from None
        return method

    return mark(function) if function is not None else mark


def limit_of(*, sequential: bool, max_concurrency: int | None, timeout: float | None) -> int | None:
    """How many jobs of a handler may run at once.

    Raises:
        HandlerError: What was said of it cannot be meant.
    """
    if sequential and max_concurrency not in {None, 1}:
        raise HandlerError(f"sequential=True means max_concurrency=1, got {max_concurrency}")
    if max_concurrency is not None and max_concurrency < 1:
        raise HandlerError(f"max_concurrency must be 1 or more, got {max_concurrency}")
    if timeout is not None and not timeout > 0:
        raise HandlerError(f"timeout must be seconds, more than 0, got {timeout!r}")
    return 1 if sequential else max_concurrency


def worker_ready(*, name: str) -> Callable[[MethodT], MethodT]:
    """Mark an async method to be called with `WorkerReadyData` each time worker `name` comes up."""
    check_name("worker name", name)

    def mark(method: MethodT) -> MethodT:
        setattr(method, _READY, name)
        return method

    return mark


def subscribe(topic: str) -> Callable[[MethodT], MethodT]:
    """Mark an async method to be called with each value that is published on `topic`, in the order published.

    By whatever worker of the fleet: the order is kept for each publisher. A worker follows 100 topics at most. It
    hears what is published elsewhere from when that runner has learned of it, soon after it is ready; what comes while
    its mailbox and 10,000 more are waiting is dropped, and counted in `bus.statistics().undeliverable`.
    """
    check_name("topic", topic)

    def mark(method: MethodT) -> MethodT:
        setattr(method, _TOPIC, topic)
        return method

    return mark


class Definition(msgspec.Struct, frozen=True, eq=False):
    """What a worker class defines: it is made once, when the class is, and kept on it under a name of its own.

    Attributes:
        jobs: Handlers by job name.
        default: What does the jobs that none of them serves; None if there is nothing.
        ready: Names of methods by the worker they wait for.
        topics: Names of methods by topic.
        hooks: Names of the hooks that are overridden.
        guarded: Whether it is asked which messages it takes.
    """

    jobs: dict[str | None, Handler] = {}
    default: Handler | None = None
    ready: dict[str, str] = {}
    topics: dict[str, str] = {}
    hooks: frozenset[str] = frozenset()
    guarded: bool = False

    def missing(self, job_name: str | None, worker_name: str) -> str:
        """Say that no handler serves a job name, and which names there are."""
        if job_name is None:
            served = ", ".join(map(repr, self.jobs)) or "none"
            return f"no handler for a job without a name: give name=, one of {served}, or override on_job_request"
        names = [name for name in self.jobs if name is not None]
        served = ", ".join(map(repr, nearest(job_name, names) or names)) or "none"
        return f"no handler for job {job_name!r} on worker {worker_name!r}; it serves {served}"


def handler_name(method: object) -> str | None:
    """The job name that a method is marked to serve; None if it is not marked."""
    marked = getattr(method, _JOB, None)
    return marked.name if isinstance(marked, _Mark) else None


def referred(handler: Any, on: str | None, *, streams: bool) -> tuple[str, str | None, Any]:
    """Whom to ask for what, and what comes of it, where a handler is given itself.

    Args:
        handler: A method marked with `@job`, as its class has it, or a function marked with `@function`.
        on: The worker to ask; None asks a function under its own name.
        streams: Whether chunks are wanted, and their type is returned instead of that of the answer.

    Raises:
        HandlerError: It is neither, it does not do what is wanted, or nobody is named.
    """
    job_name = handler_name(handler)
    function = job_name is None and isinstance(handler, Callable) and hasattr(handler, "worker")  # type: ignore[arg-type]
    if (job_name is None and not function) or inspect.ismethod(handler):
        raise HandlerError(
            f"{handler!r:.100} is no handler: give a method marked with @job as its class has it, Worker.method, "
            "or a function marked with @function"
        )
    name = handler.name if function else f"{handler.__qualname__}"
    if on is None and not function:
        raise HandlerError(f"{name}: say whom to ask, on='worker name'")
    called = handler.call if function else handler
    marked = mark_of(handler)
    returned = (hints_of(called, {}).known if marked is None else marked.hints).get("return", Any)
    if (shape_of(called, returned) in {Shape.GENERATOR, Shape.THREAD_GENERATOR}) is not streams:
        raise HandlerError(f"{name} {'does not stream: use call()' if streams else 'streams: use stream()'}")
    if streams:
        returned = next(iter(get_args(returned)), Any)
    return on if on is not None else name, job_name, returned


_DEFINITION = "__actorbus_definition__"


def definition_of(cls: type) -> Definition:
    """What a worker class defines. It is looked at now if a base of it kept that from its making."""
    return vars(cls).get(_DEFINITION) or define(cls)


def define(cls: type) -> Definition:
    """Look at a worker class.

    Raises:
        HandlerError: Two methods serve the same name, a method cannot be served, or the topics are too many; it names
            them.
    """
    overridden = frozenset(hook for hook in Hooks.event_names if getattr(cls, hook) is not getattr(Hooks, hook))
    default = None
    if "on_job_request" in overridden:
        method = cls.on_job_request  # type: ignore[attr-defined]
        if not inspect.iscoroutinefunction(inspect.unwrap(method)):
            raise HandlerError(f"{cls.__name__}.on_job_request must be 'async def'; for a plain function use @job")
        default = make_handler(cls, "on_job_request", method, name=None)
    guard = cls.accepts_bus_message  # type: ignore[attr-defined]
    if inspect.iscoroutinefunction(guard):
        raise HandlerError(f"{cls.__name__}.accepts_bus_message must be a plain 'def': it is asked at once")
    guarded = guard is not Hooks.accepts_bus_message
    definition = Definition({}, default, {}, {}, overridden, guarded)
    _collect(cls, definition)
    type.__setattr__(cls, _DEFINITION, definition)
    return definition


def _collect(cls: type, definition: Definition) -> None:
    """Enter the marked methods of a class in its definition."""
    methods: dict[str, list[tuple[type, Any]]] = {}
    for base in cls.__mro__:
        for attribute, value in vars(base).items():
            methods.setdefault(attribute, []).append((base, value))
    bound_in = type_arguments(cls)
    for attribute, ((base, method), *hidden) in methods.items():
        inner = getattr(method, "__func__", method)  # of a staticmethod or classmethod
        marked = mark_of(method)
        hints = {} if marked is None else marked.hints
        if marked is None and hidden and is_method(method):  # one that overrides a handler is that handler
            marked = next(filter(None, (mark_of(each) for _, each in hidden)), None)
        if marked is not None:
            clash = definition.jobs.get(marked.name)
            if clash is not None:
                _refuse_twice(cls, f"job {marked.name!r}", clash.attribute, attribute)
            definition.jobs[marked.name] = make_handler(
                cls,
                attribute,
                method,
                name=marked.name,
                limit=marked.limit,
                retries=marked.retries,
                timeout=marked.timeout,
                hints=hints,
                arguments=bound_in(base),
            )
        for marker, names, what in ((_READY, definition.ready, "worker"), (_TOPIC, definition.topics, "topic")):
            marked_name = getattr(inner, marker, None)
            if marked_name is not None:
                if marked_name in names:
                    _refuse_twice(cls, f"{what} {marked_name!r}", names[marked_name], attribute)
                where = f"{cls.__name__}.{attribute}, for {what} {marked_name!r},"
                _require_one_argument(where, method)
                names[marked_name] = attribute
    if len(definition.topics) > MAX_TOPICS:
        reason = "publish under fewer topics, and tell by the value what it is about, or follow with several workers"
        raise HandlerError(f"{cls.__name__} follows {len(definition.topics)} topics, more than {MAX_TOPICS}: {reason}")


def make_handler(
    cls: type,
    attribute: str,
    method: Any,
    *,
    name: str | None,
    limit: int | None = None,
    retries: RetryPolicy | None = None,
    timeout: float | None = None,
    hints: Mapping[str, Any] | None = None,
    arguments: Mapping[Any, Any] | None = None,
) -> Handler:
    """Look at a method's signature and say how to call it.

    Args:
        cls: The class that serves it.
        attribute: Its name there.
        method: What the class has under that name.
        name: The job name; None for what does the jobs that no handler does.
        limit: Jobs of it that may run at once.
        retries: What to do when it raises.
        timeout: Seconds one job of it may run.
        hints: Its annotations, as far as they are resolved.
        arguments: What the TypeVars of its class are bound to.

    Raises:
        HandlerError: Nobody can call it; the text says why.
    """
    where = f"handler {cls.__name__}.{attribute}"
    found = hints_of(method, vars(cls), hints)
    found.known = {parameter: bound(hint, arguments or {}) for parameter, hint in found.known.items()}
    seen = callable_of(cls, attribute, method)
    handler = handler_of(where, name, attribute, seen, found, limit=limit, retries=retries, timeout=timeout)
    if name is None and handler.takes in {Takes.PAYLOAD, Takes.ARGUMENTS}:
        raise HandlerError(f"{where} is given the request message: annotate it BusJobRequestMessage, or use @job")
    return msgspec.structs.replace(handler, leaves_open=handler.leaves_open or name is None)


def handler_of(
    where: str,
    name: str | None,
    attribute: str,
    seen: tuple[Callable[..., Any], Any, bool],
    hints: Hints,
    *,
    limit: int | None,
    retries: RetryPolicy | None,
    timeout: float | None,
    by_name: bool = False,
) -> Handler:
    """Look at a callable and say how to call it.

    Args:
        where: What it is called in errors.
        name: The job name.
        attribute: What it is called in logs.
        seen: What is called with the worker and the arguments, whose signature counts, and whether that has a `self`.
        hints: Its annotations.
        limit: Jobs of it that may run at once.
        retries: What to do when it raises.
        timeout: Seconds one job of it may run.
        by_name: Whether its arguments may always be given by name.

    Raises:
        HandlerError: Nobody can call it; the text says why.
    """
    call, shown, bound_to_self = seen
    shape = shape_of(shown, hints.known.get("return"))
    if retries is not None and shape in {Shape.GENERATOR, Shape.THREAD_GENERATOR}:
        raise HandlerError(f"{where}: a stream cannot be retried, its chunks are already sent; remove retries=")
    signature = read(where, parameters_of(where, shown, bound_to_self=bound_to_self), hints, by_name=by_name)
    know(hints.known.get("return"))
    return Handler(
        name,
        attribute,
        call,
        shape,
        signature.takes,
        signature.converter,
        limit,
        retries,
        timeout,
        arguments=signature.arguments,
        unannotated=signature.unannotated,
        leaves_open=signature.leaves_open,
    )


def does_all(cls: type, handler: Handler) -> None:
    """Let a worker class do all its jobs by one handler, whatever their names."""
    definition = msgspec.structs.replace(definition_of(cls), default=handler)
    type.__setattr__(cls, _DEFINITION, definition)


def _require_one_argument(where: str, method: Any) -> None:
    """Refuse a method that cannot be called with one argument by position."""
    if not inspect.isfunction(method):
        raise HandlerError(f"{where} is a {type(method).__name__}: it must be a plain method")
    parameters = parameters_of(where, method, bound_to_self=True)
    by_keyword = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    required = [each for each in parameters if each.default is each.empty and each.kind not in variadic]
    if len(required) > 1 or any(each.kind in by_keyword for each in required):
        names = ", ".join(each.name for each in required)
        raise HandlerError(f"{where} asks for ({names}); it is given one argument besides self")
    if all(each.kind in by_keyword for each in parameters):
        raise HandlerError(f"{where} takes nothing besides self; it is given one argument")


def mark_of(method: Any) -> Any:
    """The mark of a handler, or None."""
    for marked in (getattr(method, "__dict__", {}), getattr(getattr(method, "__func__", None), "__dict__", {})):
        if isinstance(found := marked.get(_JOB), _Mark):
            return found
    return None


def names_around() -> dict[str, Any]:
    """Names around what a caller of this decorates: a class inside a function may use types that are local to it."""
    frame = sys._getframe(2)
    outer = frame.f_back
    return {**(outer.f_locals if outer is not None else {}), **frame.f_locals}


def _refuse_twice(cls: type, what: str, first: str, second: str) -> None:
    raise HandlerError(
        f"{cls.__name__}: {what} is served by two methods, '{first}' and '{second}': remove or rename one"
    )
