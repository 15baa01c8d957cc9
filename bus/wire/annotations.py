"""Annotations: what they are made of, and why some admit nothing that can travel."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from inspect import isclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    ForwardRef,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from bus.errors import BusError
from bus.wire.shapes import is_pydantic

__all__ = [
    "BUILT_OF",
    "AnnotationError",
    "Field",
    "bound",
    "check",
    "fields_of",
    "has_fields",
    "is_alias",
    "is_new_type",
    "is_union",
    "name_of",
    "of_pydantic",
    "parts",
    "supertype",
    "unwrapped",
    "walk",
]

BUILT_OF: dict[type, Any] = {
    **dict.fromkeys((Path, PurePath, PosixPath, PurePosixPath, PureWindowsPath), str),
    **dict.fromkeys((IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface), str),
    deque: list,
    OrderedDict: dict,
    Iterable: list,
}
"""Classes whose objects are built of a value of another type."""

_QUALIFIERS = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar", "InitVar"})


class AnnotationError(BusError, TypeError):
    """An annotation asks for what no value that travels can become. Nothing was defined.

    Attributes:
        annotation: How the part that cannot be served is written.
        reason: Why, and the way out.
    """

    def __init__(self, annotation: Any, reason: str) -> None:
        self.annotation = name_of(annotation)
        self.reason = reason
        super().__init__(f"{self.annotation} {reason}")


class Field(NamedTuple):
    """A field of a class.

    Attributes:
        name: Its name in the constructor.
        key: Its name in a dict.
        annotation: Its type.
        required: Whether it has no default.
    """

    name: str
    key: str
    annotation: Any
    required: bool


def name_of(annotation: Any) -> str:
    """How an annotation is written."""
    if isinstance(annotation, str):
        return annotation
    if isclass(annotation) and not get_args(annotation):
        return annotation.__qualname__.replace("<locals>.", "")
    return repr(annotation).replace("typing.", "").replace("<locals>.", "")


def is_union(annotation: Any) -> bool:
    """Say whether an annotation is a union."""
    return get_origin(annotation) in {Union, types.UnionType}


def is_alias(annotation: Any) -> bool:
    """Say whether an annotation is a name for another, made by a `type` statement."""
    return type(get_origin(annotation) or annotation).__name__ == "TypeAliasType"


def is_new_type(annotation: Any) -> bool:
    """Say whether an annotation was made by NewType."""
    return hasattr(annotation, "__supertype__")


def has_fields(cls: Any) -> bool:
    """Say whether `cls` is a class whose objects are made of fields, each with a type."""
    if not isclass(cls):
        return False
    made_of_fields = issubclass(cls, msgspec.Struct) or dataclasses.is_dataclass(cls) or is_pydantic(cls)
    return made_of_fields or is_typeddict(cls) or _is_named_tuple(cls) or _is_attrs(cls)


def _is_attrs(cls: Any) -> bool:
    return "__attrs_attrs__" in getattr(cls, "__dict__", {})


def _is_named_tuple(cls: Any) -> bool:
    return isclass(cls) and issubclass(cls, tuple) and hasattr(cls, "_fields")


def of_pydantic(annotation: Any) -> bool:
    """Say whether an annotation is a class, or carries a constraint, that pydantic alone understands."""
    if get_origin(annotation) is Annotated:
        return any(_constraint_of_pydantic(each) for each in annotation.__metadata__)
    cls = get_origin(annotation) or annotation
    return isclass(cls) and (is_pydantic(cls) or hasattr(cls, "__get_pydantic_core_schema__") or _validated(cls))


def _constraint_of_pydantic(metadata: Any) -> bool:
    module = type(metadata).__module__.partition(".")[0]
    return module in {"pydantic", "annotated_types"} or hasattr(metadata, "__get_pydantic_core_schema__")


def _validated(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and hasattr(cls, "__pydantic_validator__")


def supertype(annotation: Any) -> Any:
    """What a NewType, a `type` statement or a TypeVar stands for."""
    if is_alias(annotation):
        origin = get_origin(annotation) or annotation
        return bound(_value_of(origin), dict(zip(origin.__type_params__, get_args(annotation), strict=False)))
    if isinstance(annotation, TypeVar):
        if annotation.__constraints__:
            return Union[annotation.__constraints__]  # noqa: UP007 - of a tuple
        return Any if annotation.__bound__ is None else annotation.__bound__
    return annotation.__supertype__


def _value_of(alias: Any) -> Any:
    """What an alias stands for; texts in it are names of its module."""
    holder = type(alias.__name__, (), {"__annotations__": {"value": alias.__value__}})
    names = vars(sys.modules[alias.__module__])
    try:
        return get_type_hints(holder, globalns=names, include_extras=True)["value"]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        reason = f"has a value that cannot be resolved: {error}; define what is missing before it is used"
        raise AnnotationError(alias, reason) from None


def unwrapped(annotation: Any) -> Any:
    """An annotation without what qualifies the attribute it stands on: `Required`, `NotRequired`, `Final`."""
    while get_args(annotation) and getattr(get_origin(annotation), "_name", None) in _QUALIFIERS:
        (annotation,) = get_args(annotation)
    return annotation


def bound(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """An annotation with the TypeVars in it replaced by what they are bound to."""
    if not arguments:
        return annotation
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if isclass(annotation) and not get_args(annotation):  # a generic class as it is: its parameters are its own
        return annotation
    if not parameters:
        return annotation
    return annotation[tuple(arguments.get(each, each) for each in parameters)]


def fields_of(annotation: Any) -> list[Field]:
    """The fields of a class that has some, or of one with its parameters filled in.

    Raises:
        AnnotationError: A name in it is not defined.
    """
    cls = get_origin(annotation) or annotation
    arguments: dict[Any, Any] = dict(zip(getattr(cls, "__parameters__", ()), get_args(annotation), strict=False))
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise AnnotationError(
            cls, f"has annotations that cannot be resolved: {error}; define what is missing"
        ) from None
    for base in cls.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            origin = get_origin(generic)
            if origin not in {None, Generic, Protocol}:
                for parameter, argument in zip(getattr(origin, "__parameters__", ()), get_args(generic), strict=False):
                    arguments.setdefault(parameter, bound(argument, arguments))
    fields = []
    for name, key, required in _names(cls):
        hint = hints.get(name, Any)
        said = {"Required": True, "NotRequired": False}.get(getattr(get_origin(hint), "_name", ""), required)
        fields.append(Field(name, key, bound(unwrapped(hint), arguments), said))
    return fields


def _names(cls: Any) -> Iterator[tuple[str, str, bool]]:
    """The fields of a class: name, key, and whether it is required."""
    if is_typeddict(cls):
        yield from ((name, name, name in cls.__required_keys__) for name in cls.__annotations__)
    elif _is_named_tuple(cls):
        yield from ((name, name, name not in cls._field_defaults) for name in cls._fields)
    elif issubclass(cls, msgspec.Struct):
        for field in msgspec.structs.fields(cls):
            yield field.name, field.encode_name, field.required
    elif _is_attrs(cls):
        for field in cls.__attrs_attrs__:
            if field.init:
                yield field.alias, field.name, type(field.default).__name__ == "_Nothing"
    else:
        for each in dataclasses.fields(cls):
            if each.init:
                yield each.name, each.name, (each.default, each.default_factory) == (dataclasses.MISSING,) * 2


def parts(annotation: Any) -> tuple[Any, ...]:
    """The annotations that an annotation is written with: its arguments."""
    if get_origin(annotation) is Annotated:
        return (annotation.__origin__,)
    if get_origin(annotation) is Literal:
        return ()
    return tuple(each for each in get_args(annotation) if each is not Ellipsis)


def walk(annotation: Any) -> Iterator[Any]:
    """Everything that an annotation names, itself first, with the fields of its classes; each once.

    What pydantic alone understands is named and not entered.
    """
    waiting, seen = [annotation], set()
    while waiting:
        part = unwrapped(waiting.pop())
        try:
            key: Any = (part, repr(part))
            hash(key)
        except TypeError:
            key = id(part)
        if key in seen:
            continue
        seen.add(key)
        yield part
        cls = get_origin(part) or part
        if of_pydantic(part) and get_origin(part) is not Annotated:
            continue
        if is_alias(part) or isinstance(part, TypeVar) or is_new_type(part):
            waiting.append(supertype(part))
            continue
        waiting.extend(parts(part))
        if has_fields(cls):
            waiting.extend(field.annotation for field in fields_of(part))


_FORMS: frozenset[Any] = frozenset({Annotated, Literal, Union, types.UnionType, Final, ClassVar})


def check(annotation: Any) -> None:
    """Look at one part of an annotation, not at those it is written with.

    Raises:
        AnnotationError: No value that travels can become that.
    """
    if annotation is Any or annotation is None or annotation is object or of_pydantic(annotation):
        return
    if isinstance(annotation, str | ForwardRef):
        name = annotation if isinstance(annotation, str) else annotation.__forward_arg__
        raise AnnotationError(name, "is not defined where it is named: import or define it before")
    origin = get_origin(annotation) or annotation
    if origin in _FORMS or isinstance(annotation, TypeVar) or is_alias(annotation) or is_new_type(annotation):
        return
    if origin is Callable or origin is types.FunctionType:
        raise AnnotationError(annotation, "is code, and code does not travel: take the name of what is to be called")
    if origin is type:
        raise AnnotationError(annotation, "is a class, and classes do not travel: take its name")
    if not isclass(origin):
        raise AnnotationError(annotation, "admits no value that travels: name the type of the value, or take Any")
    if has_fields(origin) or origin in BUILT_OF or issubclass(origin, Enum):
        return
    if getattr(origin, "_is_protocol", False):
        raise AnnotationError(
            annotation,
            "is a protocol, and says nothing of what its objects are made of: name a dataclass, a msgspec.Struct or a "
            "pydantic model, or take a dict",
        )
    if _unknown(origin):
        raise AnnotationError(
            annotation,
            "cannot be built from what travels: make it a dataclass, a msgspec.Struct or a pydantic model, or take a "
            "dict and build it in the handler",
        )


def _unknown(cls: type) -> bool:
    """Say whether msgspec would hand a class over, as one it knows nothing of."""
    if cls is msgspec.UnsetType:
        return False
    try:
        return isinstance(msgspec.inspect.type_info(cls), msgspec.inspect.CustomType)
    except (TypeError, NameError, AttributeError):
        return True
