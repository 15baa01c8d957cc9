"""Functions as workers: `@function()` on a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints

import msgspec

from actors.jobs.errors import HandlerError
from actors.jobs.nesting import current_job
from actors.performer.execution import Execution
from actors.worker.handlers import definition_of
from actors.worker.worker import BaseWorker
from bus import BusJobRequestMessage, JobStatus, check_name, convert
from bus.wire.known import know

P = ParamSpec("P")
R = TypeVar("R")


class Function(Generic[P, R]):
    """A function that can be called as before, and added to a runner as a worker."""

    def __init__(self, call: Callable[P, R], name: str | None) -> None:
        if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
            raise HandlerError(f"function {name or call.__name__!r} is a generator: to stream, use @job in a worker")
        self.call = call
        own = getattr(call, "__name__", "")
        if name is None and not own.isidentifier():
            raise HandlerError(f"{call!r}: a function without a name of its own needs one: name=")
        self.name = check_name("function name", own if name is None else name)
        self.arguments = _arguments_of(call, self.name)
        self.needs = [field.name for field in msgspec.structs.fields(self.arguments) if field.required]
        update_wrapper(self, call)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.call(*args, **kwargs)

    def worker(self, name: str | None = None) -> BaseWorker:
        """A new worker that serves the function, under its name or another."""
        kind = _FunctionWorker if inspect.iscoroutinefunction(self.call) else _PlainFunctionWorker
        return kind(self, name or self.name)


def function(*, name: str | None = None) -> Callable[[Callable[P, R]], Function[P, R]]:
    """Turn a function into a worker: `@function()` over `def hello(name: str) -> str`.

    Ask it like any worker: `await self.job("hello", payload={"name": "you"})`. The payload holds the arguments by name
    (or is the only argument itself) and is checked against the annotations; the returned value is the response. An
    `async def` runs in the event loop, a plain `def` in a thread.

    Args:
        name: The worker's name; default the function's.

    Raises:
        HandlerError: Its parameters cannot be given by name.
    """

    def mark(call: Callable[P, R]) -> Function[P, R]:
        return Function(call, name)

    return mark


class _FunctionWorker(BaseWorker):
    def __init__(self, served: Function[Any, Any], name: str) -> None:
        super().__init__(name)
        self.served = served

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        served = self.served
        payload = message.payload
        names = served.arguments.__struct_fields__
        if payload is None and not served.needs:
            payload = {}
        elif len(names) == 1 and not (isinstance(payload, dict) and names[0] in payload):
            payload = {names[0]: payload}
        arguments = msgspec.structs.asdict(convert(payload, served.arguments))
        execution = current_job.get()
        assert isinstance(execution, Execution)
        if inspect.iscoroutinefunction(served.call):
            result = await served.call(**arguments)
        else:
            result = await execution.in_thread(lambda: served.call(**arguments))
        if not execution.answered:
            execution.respond(result, JobStatus.COMPLETED)


class _PlainFunctionWorker(_FunctionWorker):
    """Its function runs in a thread."""


_plain = definition_of(_PlainFunctionWorker).default
assert _plain is not None
msgspec.structs.force_setattr(_plain, "threaded", True)  # noqa: FBT003 - it is the value


def served_by(worker: BaseWorker) -> Function[Any, Any] | None:
    """The function that a worker was made of; None for a worker of a class."""
    return worker.served if isinstance(worker, _FunctionWorker) else None


def _arguments_of(call: Callable[..., Any], name: str) -> type[msgspec.Struct]:
    try:
        hints = get_type_hints(call)
    except NameError as error:
        raise HandlerError(f"function {name!r}: {error}; import or define that type before it") from None
    for annotation in hints.values():
        know(annotation)
    fields: list[Any] = []
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise HandlerError(f"function {name!r}: parameter {parameter} cannot be given by name")
        annotation = hints.get(parameter.name, Any)
        has_default = parameter.default is not parameter.empty
        fields.append((parameter.name, annotation, parameter.default) if has_default else (parameter.name, annotation))
    return msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
