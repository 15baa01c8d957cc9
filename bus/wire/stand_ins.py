"""How an annotation is written for msgspec: what it does not take is replaced by stand-ins, which it hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, Flag
from functools import partial
from inspect import isclass
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict, TypeVar, Union, get_args, get_origin
from typing import is_typeddict as is_typed_dict

import msgspec

from bus.wire.annotations import (
    BUILT_OF,
    AnnotationError,
    fields_of,
    has_fields,
    is_alias,
    is_new_type,
    is_union,
    name_of,
    of_pydantic,
    supertype,
    unwrapped,
    walk,
)
from bus.wire.shapes import MisfitError, explain, is_pydantic
from bus.wire.values import plain

__all__ = ["Plan", "exact_class", "hand_over", "may_be_subclassed", "to_written"]


def exact_class(annotation: Any) -> type | None:
    """The class whose very objects are taken as they are."""
    while is_new_type(annotation):
        annotation = annotation.__supertype__
    if not isclass(annotation) or get_args(annotation) or annotation is object or is_typed_dict(annotation):
        return None
    if of_pydantic(annotation):
        config: Mapping[str, Any] = getattr(annotation, "model_config", {})
        never = config.get("revalidate_instances", "never") == "never"
        return annotation if is_pydantic(annotation) and never else None
    return annotation


def may_be_subclassed(part: Any) -> bool:
    """Say whether part of an annotation is a class, objects of whose subclasses msgspec refuses."""
    cls = get_origin(part) or part
    return has_fields(cls) and not of_pydantic(cls) and not is_typed_dict(cls)


class _Anything(type):
    """Of a stand-in: what its converter has returned is one of its objects."""

    def __instancecheck__(cls, _instance: object) -> bool:
        return True


def stand_in(annotation: Any, convert: Callable[[Any], Any] | None = None) -> Any:
    return _Anything(name_of(annotation), (), {"convert": convert and staticmethod(convert)})


def hand_over(type_: Any, value: Any) -> Any:
    """What msgspec does with a type that it does not know, its `dec_hook`: a stand-in converts."""
    if type_ is object:
        return value
    try:
        return type_.convert(value)
    except RecursionError:
        raise
    except Exception as error:  # validators and __post_init__ are code of the user and may raise anything
        raise MisfitError(*explain(error)) from error  # an error of msgspec's own would lose the path to here


def _supported(annotation: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(annotation)
    except (TypeError, NameError, AttributeError, RecursionError):
        return False
    return True


def _foreign(part: Any) -> bool:
    """Say whether msgspec cannot take one part of an annotation."""
    cls = get_origin(part) or part
    return bool(
        of_pydantic(part)
        or is_alias(part)
        or isinstance(part, TypeVar)
        or (isclass(cls) and (cls in BUILT_OF or issubclass(cls, Flag)))
        or (
            (is_union(part) or get_origin(part) is Literal or (isclass(cls) and issubclass(cls, Enum)))
            and not _supported(part)
        )
    )


class Plan:
    """How one annotation is written for msgspec.

    Args:
        subclasses: Whether objects of subclasses are looked for everywhere.
    """

    def __init__(self, *, subclasses: bool = False) -> None:
        self.subclasses = subclasses
        self.made: dict[Any, Any] = {}

    def of(self, annotation: Any) -> Any:
        """What stands for an annotation: itself, if msgspec takes it."""
        annotation = unwrapped(annotation)
        if isinstance(annotation, TypeVar) or is_new_type(annotation):
            return self.of(supertype(annotation))
        if annotation is object:
            return Any
        everything = list(walk(annotation))
        if not any(map(_foreign, everything)) and not (self.subclasses and any(map(may_be_subclassed, everything))):
            self._require(annotation, annotation)
            return annotation
        if any(map(of_pydantic, everything)) and (validate := _by_pydantic(annotation, everything)) is not None:
            return stand_in(annotation, validate)
        return self._apart(annotation)

    def _require(self, annotation: Any, written: Any) -> Any:
        """Refuse what msgspec says it cannot take."""
        try:
            msgspec.msgpack.Decoder(written)
        except (TypeError, NameError, AttributeError, RecursionError) as error:
            reason = str(error).partition(" - type ")[0]
            raise AnnotationError(annotation, f"cannot be served: {reason}") from error
        return written

    def _apart(self, annotation: Any) -> Any:
        """What stands for an annotation that neither msgspec nor pydantic takes as a whole."""
        origin = get_origin(annotation) or annotation
        if origin is Annotated:
            return self._annotated(annotation)
        if is_union(annotation):
            return self._union(annotation)
        if not (is_alias(annotation) or origin is Literal or origin in BUILT_OF or has_fields(origin)) and not (
            isclass(origin) and issubclass(origin, Enum)
        ):
            arguments = tuple(each if each is Ellipsis else self.of(each) for each in get_args(annotation))
            return self._require(annotation, origin[arguments])
        key = annotation, repr(annotation)
        if key not in self.made:
            stand = self.made[key] = stand_in(annotation)  # before its parts, in which it may stand again
            stand.convert = self._conversion(annotation, origin)
        return self.made[key]

    def _conversion(self, annotation: Any, origin: Any) -> Callable[[Any], Any]:
        """What a stand-in does."""
        if is_alias(annotation):
            return partial(to_written, self.of(supertype(annotation)))
        if origin is Literal:
            return partial(_one_of, get_args(annotation))
        if origin in BUILT_OF:
            return self._built(annotation, origin)
        if has_fields(origin):
            return self._of_fields(annotation, origin)
        return partial(_member, origin)

    def _annotated(self, annotation: Any) -> Any:
        if of_pydantic(annotation):
            raise AnnotationError(
                annotation,
                "has a constraint of pydantic on a type that pydantic does not know, or beside one of msgspec: write "
                "it with msgspec.Meta",
            )
        written: Any = Annotated.__class_getitem__((self.of(annotation.__origin__), *annotation.__metadata__))  # type: ignore[attr-defined]  # of a tuple
        return self._require(annotation, written)

    def _union(self, annotation: Any) -> Any:
        written: Any = Union.__getitem__(tuple(map(self.of, get_args(annotation))))
        if _supported(written):
            return written
        stand = stand_in(annotation)
        arms = [each for each in get_args(annotation) if each is not type(None)]
        stand.convert = partial(_first_that_fits, [_Arm(each, self.of(each)) for each in arms])
        return stand if len(arms) == len(get_args(annotation)) else stand | None

    def _built(self, annotation: Any, cls: type) -> Callable[[Any], Any]:
        source = BUILT_OF[cls]
        written = self.of(source[get_args(annotation)]) if get_args(annotation) else source
        if cls.__module__ == "collections.abc":
            return partial(to_written, written)
        return partial(_build_of, cls, written)

    def _of_fields(self, annotation: Any, cls: Any) -> Callable[[Any], Any]:
        """How an object of a class is made of its fields."""
        fields = fields_of(annotation)
        if is_typed_dict(cls):
            keys = {
                field.key: self.of(field.annotation) if field.required else NotRequired[self.of(field.annotation)]
                for field in fields
            }
            return partial(to_written, TypedDict(cls.__name__, keys))  # type: ignore[operator]  # made of data
        config: dict[str, Any] = {}
        if issubclass(cls, msgspec.Struct):
            given = cls.__struct_config__
            config = {
                "tag": given.tag,
                "tag_field": given.tag_field,
                "array_like": given.array_like,
                "forbid_unknown_fields": given.forbid_unknown_fields,
            }
        elif issubclass(cls, tuple):
            config = {"array_like": True, "forbid_unknown_fields": True}
        shadow = msgspec.defstruct(
            cls.__name__,
            [
                (
                    f"field_{number}",
                    self.of(field.annotation),
                    msgspec.field(name=field.key) if field.required else msgspec.field(default=_ABSENT, name=field.key),
                )
                for number, field in enumerate(fields)
            ],
            kw_only=True,
            **config,
        )
        names = [field.name for field in fields]
        return partial(_itself_or, cls, partial(_of_shadow, cls, shadow, names))


_ABSENT: Any = object()


def to_written(type_: Any, value: Any) -> Any:
    """Convert a value to an annotation as a plan has written it."""
    return msgspec.convert(value, type_, strict=True, dec_hook=hand_over)


def _itself_or(cls: type, make: Callable[[Any], Any], value: Any) -> Any:
    return value if isinstance(value, cls) else make(plain(value))


def _build_of(cls: type, type_: Any, value: Any) -> Any:
    if isinstance(value, cls):
        return value
    return cls(to_written(type_, value))


def _of_shadow(cls: Any, shadow: Any, names: list[str], value: Any) -> Any:
    made = to_written(shadow, value)
    given = {
        name: field
        for name, attribute in zip(names, shadow.__struct_fields__, strict=True)
        if (field := getattr(made, attribute)) is not _ABSENT
    }
    return cls(**given)


def _one_of(values: tuple[Any, ...], value: Any) -> Any:
    for each in values:
        if type(each) is type(value) and each == value:
            return each
    for each in values:
        if isinstance(each, Enum) and type(each.value) is type(value) and each.value == value:
            return each
    raise ValueError(f"expected one of {', '.join(map(repr, values))}, got {value!r:.100}")


def _member(cls: Any, value: Any) -> Any:
    if isinstance(value, cls):
        return value
    if issubclass(cls, Flag):
        return cls(to_written(int, value))
    return _one_of(tuple(cls), value)


class _Arm:
    """One type of a union."""

    def __init__(self, annotation: Any, written: Any) -> None:
        self.name = name_of(annotation)
        self.cls = get_origin(annotation) or annotation
        self.exact = exact_class(annotation)
        self.written = written
        fields = fields_of(annotation) if has_fields(self.cls) and not is_pydantic(self.cls) else ()
        self.keys = {field.key for field in fields}
        if is_pydantic(self.cls):
            self.keys = _keys_of_model(self.cls)


class _Fit(NamedTuple):
    known: int
    value: Any


def _first_that_fits(arms: list[_Arm], value: Any) -> Any:
    """The value as one of the types of a union.

    An object of one of them is that. A dict becomes the one that knows most of its keys; else the first that fits.
    """
    for arm in arms:
        if type(value) is arm.exact:
            return value
    best: _Fit | None = None
    refusals = []
    for arm in arms:
        try:
            made = to_written(arm.written, value)
        except Exception as error:  # noqa: BLE001 - validators are code of the user and may raise anything
            refusals.append((arm.name, *explain(error)))
            continue
        known = sum(key in arm.keys for key in value) if isinstance(value, dict) else 0
        if isclass(arm.cls) and not is_typed_dict(arm.cls) and isinstance(value, arm.cls):
            known += 1
        if best is None or known > best.known:
            best = _Fit(known, made)
    if best is not None:
        return best.value
    said = "; ".join(f"as {name}{where and ' at ' + where.lstrip('.')}, {reason}" for name, where, reason in refusals)
    raise MisfitError("", f"fits none of {' | '.join(arm.name for arm in arms)}: {said}")


def _keys_of_model(cls: Any) -> set[str]:
    keys = set()
    for name, field in cls.model_fields.items():
        keys |= {name, *(each for each in (field.alias, field.validation_alias) if isinstance(each, str))}
    return keys


def _by_pydantic(annotation: Any, everything: list[Any]) -> Callable[[Any], Any] | None:
    """What validates an annotation in which types of pydantic take part; None if it does not take it as a whole."""
    if isclass(annotation) and is_pydantic(annotation):
        return annotation.model_validate  # type: ignore[attr-defined,no-any-return]  # is_pydantic has looked
    for part in everything:
        cls = get_origin(part) or part
        if cls is Annotated and any(isinstance(each, msgspec.Meta) for each in part.__metadata__):
            return None  # it would not hold
        if isclass(cls) and issubclass(cls, msgspec.Struct):
            return None
    try:
        from pydantic import TypeAdapter  # noqa: PLC0415 - an extra: only who names its types has it
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError  # noqa: PLC0415
    except ImportError as error:
        raise AnnotationError(
            annotation, f"has a constraint that pydantic checks: install actorbus[pydantic] ({error})"
        ) from None
    try:
        adapter: Any = TypeAdapter(annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation):
        return None
    return adapter.validate_python  # type: ignore[no-any-return]  # pydantic's adapter of an Any
