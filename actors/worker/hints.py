"""What can be found out of a callable: its parameters, what they are annotated with, and how it is called."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
)
from functools import partial, partialmethod
from inspect import Parameter
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from actors.jobs.errors import HandlerError
from actors.performer.handler import Shape
from actors.performer.job import Job
from bus.wire.annotations import bound

VARIADIC = frozenset({Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD})


class Hints(msgspec.Struct):
    """The annotations of a callable.

    Attributes:
        known: What they mean, by parameter; the answer's under `return`.
        unknown: Why one cannot be resolved, by parameter.
    """

    known: dict[str, Any] = {}
    unknown: dict[str, str] = {}


def hints_of(call: Any, names: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> Hints:
    """Resolve the annotations of a callable, each by itself: one that cannot be does not keep the others from it.

    Args:
        call: A function, or what stands for one.
        names: What names mean besides those of its module.
        known: Annotations that were resolved before.
    """
    function = _annotated(call)
    written: dict[str, Any] = getattr(function, "__annotations__", None) or {}
    hints = Hints(dict(known or {}))
    missing = [name for name in written if name not in hints.known]
    if not missing:
        return hints
    outer = {**_names_for_checkers(), **getattr(inspect.unwrap(function), "__globals__", {})}
    for name in missing:
        holder = type("Holder", (), {"__annotations__": {name: written[name]}})
        try:
            hints.known.update(get_type_hints(holder, outer, dict(names), include_extras=True))
        except Exception as error:  # noqa: BLE001 - an annotation is an expression, and may raise anything
            hints.unknown[name] = f"{written[name]!r} cannot be resolved: {error}"
    return hints


@functools.cache
def _names_for_checkers() -> dict[str, Any]:
    """Names that a module may import for type checkers alone, as no handler needs them to run."""
    bus = sys.modules["bus"]
    ours = {name: getattr(bus, name) for name in bus.__all__ if name not in {"RedisBus", "NatsBus"}}
    modules: dict[str, Any] = {name: sys.modules[name] for name in ("bus", "actors", "typing") if name in sys.modules}
    return {**{name: getattr(typing, name) for name in typing.__all__}, **ours, **modules, "Job": Job}


def _annotated(call: Any) -> Any:
    """The function whose annotations are those of a callable."""
    while True:
        if isinstance(call, functools.partial | functools.partialmethod):
            call = call.func
        elif hasattr(call, "__func__"):
            call = call.__func__
        elif inspect.isroutine(call) or not callable(call):
            return call
        else:
            call = type(call).__call__


def parameters_of(where: str, call: Any, *, bound_to_self: bool) -> list[Parameter]:
    """The parameters that a callable has besides `self`.

    A decorator that takes whatever comes and keeps the signature of what it decorates, as `functools.wraps` does, has
    the parameters of that; one that names its parameters has those.

    Raises:
        HandlerError: They cannot be found out, or there is no `self`.
    """
    try:
        parameters = _parameters(call)
    except (TypeError, ValueError) as error:
        raise HandlerError(f"{where}: its parameters cannot be found out: {error}") from None
    if not bound_to_self:
        return parameters
    if not parameters or parameters[0].kind in {Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD}:
        raise HandlerError(f"{where} takes no 'self'")
    return parameters if parameters[0].kind is Parameter.VAR_POSITIONAL else parameters[1:]


def _parameters(call: Any) -> list[Parameter]:
    own = list(inspect.signature(call, follow_wrapped=False).parameters.values())
    inner = getattr(call, "__wrapped__", None)
    kinds = {each.kind for each in own}
    if inner is None or not kinds >= VARIADIC:
        return own
    return _parameters(inner)


def type_arguments(cls: type) -> Callable[[type], Mapping[Any, Any]]:
    """What tells for each base of a class what its TypeVars are bound to in that class."""
    found: dict[int, dict[Any, Any]] = {}  # by identity: classes need not be hashable
    waiting: list[tuple[type, dict[Any, Any]]] = [(cls, {})]
    while waiting:
        base, arguments = waiting.pop()
        if found.setdefault(id(base), arguments) is not arguments:
            continue
        for written in vars(base).get("__orig_bases__", base.__bases__):
            origin = get_origin(written) or written
            if isinstance(origin, type) and origin is not object:
                given = [bound(each, arguments) for each in get_args(written)]
                waiting.append((origin, dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))))
    return lambda base: found.get(id(base), {})


def is_method(thing: Any) -> bool:
    """Whether something may be a method of a class: it can be called there, and is no class itself."""
    if isinstance(thing, staticmethod | classmethod | partialmethod):
        return True
    return callable(thing) and not isinstance(thing, type)


def callable_of(cls: type, attribute: str, method: Any) -> tuple[Callable[..., Any], Any, bool]:
    """What is called with the worker and the arguments, whose signature counts, and whether that has a `self`."""
    if inspect.isfunction(method):
        return method, method, True
    if isinstance(method, staticmethod):
        return _described(partial(without_self, method.__func__), method), method.__func__, False
    if isinstance(method, classmethod):
        return _described(partial(without_self, method.__get__(None, cls)), method), method.__func__, True
    if isinstance(method, partialmethod):
        made: Any = method.__get__(None, cls)
        return made, made, True
    if hasattr(type(method), "__get__"):
        return _described(partial(_looked_up, attribute), method), method, True
    return _described(partial(without_self, method), method), method, False


def _described(call: Callable[..., Any], method: Any) -> Callable[..., Any]:
    """What is called, with the description of what it calls."""
    return functools.update_wrapper(call, method)


def without_self(call: Callable[..., Any], _instance: Any, /, *arguments: Any, **keywords: Any) -> Any:
    """Call what has no `self`."""
    return call(*arguments, **keywords)


def _looked_up(attribute: str, instance: Any, /, *arguments: Any, **keywords: Any) -> Any:
    return getattr(instance, attribute)(*arguments, **keywords)


_PROMISED: tuple[tuple[type, Shape], ...] = (
    (Awaitable, Shape.AWAITABLE),
    (Coroutine, Shape.AWAITABLE),
    (AsyncIterator, Shape.GENERATOR),
    (AsyncGenerator, Shape.GENERATOR),
    (AsyncIterable, Shape.GENERATOR),
)


def shape_of(call: Any, returned: Any) -> Shape:
    """How to call something: what it is counts, then what it decorates, then what it says it returns."""
    while isinstance(call, partial | partialmethod):
        call = call.func
    if not inspect.isroutine(call):
        call = type(call).__call__
    own = _own_shape(call)
    inner = getattr(call, "__wrapped__", None)
    if own is not Shape.THREAD:
        return own
    if inner is not None:
        shape = shape_of(inner, None)
        if shape is Shape.COROUTINE:
            return Shape.AWAITABLE
        if shape is Shape.GENERATOR:
            return shape
    origin = get_origin(returned) or returned
    if not isinstance(origin, type):
        return Shape.THREAD
    return next((shape for promised, shape in _PROMISED if issubclass(origin, promised)), Shape.THREAD)


def _own_shape(call: Any) -> Shape:
    if inspect.iscoroutinefunction(call):
        return Shape.COROUTINE
    if inspect.isasyncgenfunction(call):
        return Shape.GENERATOR
    if inspect.isgeneratorfunction(call):
        awaited = call.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
        return Shape.AWAITABLE if awaited else Shape.THREAD_GENERATOR
    return Shape.THREAD
