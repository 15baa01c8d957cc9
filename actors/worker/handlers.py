"""Handlers: the decorators that mark methods, and the definition that the methods of a class make."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, overload

import msgspec

from actors.jobs.errors import HandlerError
from actors.jobs.policies import RetryPolicy
from actors.performer.handler import Handler, Shape, Takes
from actors.performer.job import Job
from actors.worker.hooks import Hooks
from bus import BusMessage, check_name, nearest
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
    hints: dict[str, Any] | None


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

    The method takes the request message, `Job[T]` or a payload type, by its annotation, and may be `async def`
    (the returned value is the response), an async generator (each value is a chunk of a stream), or a plain `def`,
    which runs in a thread. Whatever it does, the requester is told one outcome.

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
    if sequential and max_concurrency not in {None, 1}:
        raise HandlerError(f"sequential=True means max_concurrency=1, got {max_concurrency}")
    if max_concurrency is not None and max_concurrency < 1:
        raise HandlerError(f"max_concurrency must be 1 or more, got {max_concurrency}")
    if timeout is not None and not timeout > 0:
        raise HandlerError(f"timeout must be seconds, more than 0, got {timeout!r}")
    namespace = _namespace_of_the_caller()

    def mark(method: MethodT) -> MethodT:
        if not inspect.isfunction(method):
            raise HandlerError(f"@job stands on a plain method of a worker, not on {method!r}; a name goes into name=")
        limit = 1 if sequential else max_concurrency
        served = check_name("job name", name or method.__name__)
        setattr(method, _JOB, _Mark(served, limit, retries, timeout, _hints(method, namespace)))
        return method

    return mark(function) if function is not None else mark


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
    called = inspect.unwrap(handler)
    if inspect.isasyncgenfunction(called) is not streams:
        raise HandlerError(f"{name} {'does not stream: use call()' if streams else 'streams: use stream()'}")
    returned = _returned(handler)
    if streams:
        returned = next(iter(get_args(returned)), Any)
    return on if on is not None else name, job_name, returned


def _returned(handler: Any) -> Any:
    """What a handler says it returns; `Any` if it says nothing that can be found out."""
    marked = getattr(handler, _JOB, None)
    hints = marked.hints if isinstance(marked, _Mark) else None
    if hints is None:
        try:
            hints = get_type_hints(handler)
        except (NameError, AttributeError, TypeError):
            hints = {}
    return hints.get("return", Any)


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
        if not inspect.iscoroutinefunction(method):
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
    methods: dict[str, Any] = {}
    for base in cls.__mro__:
        for attribute, value in vars(base).items():
            methods.setdefault(attribute, value)
    for attribute, method in methods.items():
        inner = getattr(method, "__func__", method)  # of a staticmethod or classmethod, to be refused below
        marked: _Mark | None = getattr(inner, _JOB, None)
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
                hints=marked.hints,
            )
        for marker, names, what in ((_READY, definition.ready, "worker"), (_TOPIC, definition.topics, "topic")):
            marked_name = getattr(inner, marker, None)
            if marked_name is not None:
                if marked_name in names:
                    _refuse_twice(cls, f"{what} {marked_name!r}", names[marked_name], attribute)
                where = f"{cls.__name__}.{attribute}, for {what} {marked_name!r},"
                if _argument_of(where, method) is None:
                    raise HandlerError(f"{where} takes nothing besides self; it is given one argument")
                names[marked_name] = attribute
    if len(definition.topics) > MAX_TOPICS:
        reason = "publish under fewer topics, and tell by the value what it is about, or follow with several workers"
        raise HandlerError(f"{cls.__name__} follows {len(definition.topics)} topics, more than {MAX_TOPICS}: {reason}")


def make_handler(
    cls: type,
    attribute: str,
    method: Callable[..., Any],
    *,
    name: str | None,
    limit: int | None = None,
    retries: RetryPolicy | None = None,
    timeout: float | None = None,
    hints: dict[str, Any] | None = None,
) -> Handler:
    """Look at a method's signature and say how to call it.

    Raises:
        HandlerError: Nobody can call it; the text says why.
    """
    where = f"handler {cls.__name__}.{attribute}"
    if inspect.isgeneratorfunction(method):
        raise HandlerError(f"{where}: a plain generator cannot stream; make it 'async def' with 'yield'")
    shape = Shape.THREAD
    if inspect.isasyncgenfunction(method):
        shape = Shape.GENERATOR
        if retries is not None:
            raise HandlerError(f"{where}: a stream cannot be retried, its chunks are already sent; remove retries=")
    elif inspect.iscoroutinefunction(method):
        shape = Shape.COROUTINE
    argument = _argument_of(where, method)
    if argument is None:
        know((hints or {}).get("return"))
        return Handler(name, attribute, method, shape, Takes.NOTHING, None, limit, retries, timeout)
    if hints is None:
        try:
            hints = get_type_hints(method)
        except (NameError, AttributeError) as error:
            raise HandlerError(
                f"{where}: its annotations cannot be resolved: {error}; import or define that type before the class"
            ) from None
    takes, payload_type = _what_it_takes(hints.get(argument.name, Any))
    for annotation in (payload_type, hints.get("return")):
        know(annotation)  # naming a type in a signature is asking for it to travel
    return Handler(name, attribute, method, shape, takes, payload_type, limit, retries, timeout)


def _argument_of(where: str, method: Any) -> inspect.Parameter | None:
    """The parameter that gets the one argument besides self; None if there is none.

    Raises:
        HandlerError: The method cannot be called with one argument or none.
    """
    if not inspect.isfunction(method):
        raise HandlerError(f"{where} is a {type(method).__name__}: it must be a plain method")
    parameters = list(inspect.signature(method).parameters.values())
    by_keyword = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    if not parameters or parameters[0].kind in by_keyword:
        raise HandlerError(f"{where} takes no 'self'")
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    required = [each for each in parameters[1:] if each.default is each.empty and each.kind not in variadic]
    if len(required) > 1 or any(each.kind in by_keyword for each in required):
        names = ", ".join(each.name for each in required)
        raise HandlerError(
            f"{where} asks for ({names}); a handler takes one argument besides self: "
            "the request message, a Job, or the payload"
        )
    return next((each for each in parameters[1:] if each.kind not in by_keyword), None)


def _what_it_takes(annotation: Any) -> tuple[Takes, Any]:
    arms = [arm for arm in get_args(annotation) if arm is not type(None)]
    if len(arms) == 1 and len(get_args(annotation)) > 1 and _what_it_takes(arms[0])[0] is not Takes.PAYLOAD:
        return _what_it_takes(arms[0])  # a request message or a job that may be None never is
    if annotation is Job:
        return Takes.JOB, None
    if get_origin(annotation) is Job:
        (payload_type,) = annotation.__args__
        return Takes.JOB, None if payload_type is Any or isinstance(payload_type, TypeVar) else payload_type
    if annotation is Any or (isinstance(annotation, type) and issubclass(annotation, BusMessage)):
        return Takes.MESSAGE, None
    return Takes.PAYLOAD, annotation


def _hints(method: Callable[..., Any], namespace: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return get_type_hints(method, localns=namespace)
    except (NameError, AttributeError):
        return None


def _namespace_of_the_caller() -> dict[str, Any]:
    """Names around a decorated method: a class inside a function may use types that are local to it."""
    frame = sys._getframe(2)
    outer = frame.f_back
    return {**(outer.f_locals if outer is not None else {}), **frame.f_locals}


def _refuse_twice(cls: type, what: str, first: str, second: str) -> None:
    raise HandlerError(
        f"{cls.__name__}: {what} is served by two methods, '{first}' and '{second}': remove or rename one"
    )
