"""What a signature says of a handler: which of the payload, the job and the request message it is given, and how.

One rule: a single parameter takes the payload, several take its keys, and `**rest` takes the keys that are left. `Job`
and `BusJobRequestMessage` are given where they are asked for by type. A parameter that stands alone without an
annotation is given the request message.
"""

from __future__ import annotations

from inspect import Parameter
from typing import Any, NotRequired, TypedDict, TypeVar, get_args, get_origin

import msgspec

from actors.jobs.errors import HandlerError
from actors.performer.arguments import Arguments, Asked, Keys
from actors.performer.handler import Takes
from actors.performer.job import Job
from actors.worker.hints import VARIADIC, Hints
from bus import AnnotationError, BusJobRequestMessage, BusMessage, Converter
from bus.wire.annotations import is_union
from bus.wire.known import know

_WAY_OUT = "import or define it before"


class Signature(msgspec.Struct, frozen=True):
    """How a callable is given what it asks for.

    Attributes:
        takes: What it is given, as its one positional argument, unless `arguments` says more.
        converter: To what its payload is converted; None for as it is, and where `arguments` does it.
        arguments: Gives the arguments where one positional argument is not all.
        unannotated: The parameter that is given the request message because it has no annotation.
    """

    takes: Takes
    converter: Converter | None = None
    arguments: Arguments | None = None
    unannotated: str | None = None

    @property
    def leaves_open(self) -> bool:
        """Whether it has the request message, and so may answer later."""
        return self.takes is Takes.MESSAGE or (self.arguments is not None and self.arguments.has_message)


def read(where: str, parameters: list[Parameter], hints: Hints, *, by_name: bool = False) -> Signature:
    """Decide what a callable is given.

    Args:
        where: What it is called in errors.
        parameters: Its parameters, but for `self`.
        hints: What they are annotated with.
        by_name: Whether its arguments may always be given by name: those of a function.

    Raises:
        HandlerError: It cannot be served; the text says why, and the way out.
    """
    rest = next((each for each in parameters if each.kind is Parameter.VAR_KEYWORD), None)
    asked = [_asked(where, each, hints) for each in parameters if each.kind not in VARIADIC]
    if not asked and any(each.kind is Parameter.VAR_POSITIONAL for each in parameters):
        raise HandlerError(
            f"{where} takes *args, which does not say what it is given: name its parameters; a decorator keeps those "
            "of what it decorates with functools.wraps"
        )
    if not by_name and len(asked) == 1 and _is_bare(asked[0]):
        asked = [msgspec.structs.replace(asked[0], takes=Takes.MESSAGE)]
        return msgspec.structs.replace(_special(where, asked), unannotated=asked[0].name)
    taking = [each for each in asked if each.takes is Takes.PAYLOAD]
    if any(each.takes is Takes.MESSAGE for each in asked):
        rest = None  # what else there is it finds in the message
    if not taking and rest is None:
        if by_name and not asked:
            return _several(asked, _keys(where, [], None, hints))
        return _special(where, asked)
    if any(_payload_of(where, each) is not None for each in asked if each.takes is Takes.JOB):
        also = taking[0].name if taking else rest.name if rest is not None else ""
        raise HandlerError(f"{where} takes the payload twice, in Job[...] and in {also!r}: leave one away")
    if len(taking) == 1 and rest is None:
        return _lone(where, asked, taking[0], hints, by_name=by_name)
    return _several(asked, _keys(where, taking, rest, hints))


def _is_bare(asked: Asked) -> bool:
    """Whether a parameter has neither an annotation nor a default that says what it takes."""
    return asked.annotation is Parameter.empty and (asked.required or asked.default is None)


def _special(where: str, asked: list[Asked]) -> Signature:
    """Of a callable that is not given the payload, but what it came with."""
    if not asked:
        return Signature(Takes.NOTHING)
    job = next((each for each in asked if each.takes is Takes.JOB), None)
    converter = _payload_of(where, job)
    if len(asked) == 1 and not asked[0].by_keyword:
        return Signature(asked[0].takes, converter)
    return Signature(Takes.ARGUMENTS, None, Arguments(tuple(asked), lone=converter))


def _lone(where: str, asked: list[Asked], alone: Asked, hints: Hints, *, by_name: bool) -> Signature:
    """Of a callable with one parameter that takes the payload."""
    converter = _converter(where, alone.name, alone.annotation)
    keys = _keys(where, [alone], None, hints) if by_name and not converter.admits_dict else None
    if len(asked) == 1 and alone.required and not alone.by_keyword and keys is None:
        return Signature(Takes.PAYLOAD, converter)
    return Signature(Takes.ARGUMENTS, None, Arguments(tuple(asked), lone=converter, keys=keys))


def _several(asked: list[Asked], keys: Keys) -> Signature:
    return Signature(Takes.ARGUMENTS, None, Arguments(tuple(asked), keys=keys))


def _asked(where: str, parameter: Parameter, hints: Hints) -> Asked:
    if parameter.name in hints.unknown:
        reason = hints.unknown[parameter.name]
        raise HandlerError(f"{where}: the annotation of {parameter.name!r}, {reason}; {_WAY_OUT}")
    annotation = hints.known.get(parameter.name, Parameter.empty)
    takes = Takes.PAYLOAD if annotation is Parameter.empty else what_it_is(where, annotation)
    by_keyword = parameter.kind is Parameter.KEYWORD_ONLY
    return Asked(parameter.name, takes, annotation, parameter.default, by_keyword)


def what_it_is(where: str, annotation: Any) -> Takes:
    """Whether an annotation asks for the request message, the job, or the payload.

    Raises:
        HandlerError: It asks for a message that is none.
    """
    if is_union(annotation):
        arms = [arm for arm in get_args(annotation) if arm is not type(None)]
        if len(arms) == 1:  # a request message or a job that may be None never is
            return what_it_is(where, arms[0])
    if (get_origin(annotation) or annotation) is Job:
        return Takes.JOB
    if isinstance(annotation, type) and issubclass(annotation, BusMessage):
        if not issubclass(BusJobRequestMessage, annotation):
            raise HandlerError(
                f"{where} takes {annotation.__name__}: it is given a BusJobRequestMessage, or the payload"
            )
        return Takes.MESSAGE
    return Takes.PAYLOAD


def _payload_of(where: str, job: Asked | None) -> Converter | None:
    """What the payload in a `Job[T]` is converted to."""
    if job is None:
        return None
    annotation = job.annotation
    if is_union(annotation):
        annotation = next(arm for arm in get_args(annotation) if arm is not type(None))
    arguments = get_args(annotation)
    if not arguments or arguments[0] is Any or (isinstance(arguments[0], TypeVar) and arguments[0].__bound__ is None):
        return None
    return _converter(where, job.name, arguments[0])


def _converter(where: str, name: str, annotation: Any) -> Converter:
    if annotation is Parameter.empty:
        annotation = Any
    try:
        converter = Converter(annotation)
    except AnnotationError as error:
        raise HandlerError(f"{where}: parameter {name!r}: {error}") from error
    know(annotation)  # naming a type in a signature is asking for it to arrive as an object
    return converter


def _keys(where: str, taking: list[Asked], rest: Parameter | None, hints: Hints) -> Keys:
    fields: dict[str, Any] = {}
    for each in taking:
        try:
            _converter(where, each.name, each.annotation)
        except HandlerError:
            if each.required:
                raise
            continue  # it is left to its default, and nobody can give it
        annotation = Any if each.annotation is Parameter.empty else each.annotation
        fields[each.name] = annotation if each.required else NotRequired[annotation]
    others = None
    if rest is not None:
        if rest.name in hints.unknown:
            raise HandlerError(f"{where}: the annotation of **{rest.name}, {hints.unknown[rest.name]}; {_WAY_OUT}")
        others = _converter(where, rest.name, dict.__class_getitem__((str, hints.known.get(rest.name, Any))))
    converter = _converter(where, "", TypedDict(where, fields))  # type: ignore[operator]  # made of data
    return Keys(converter, frozenset(fields), others)
