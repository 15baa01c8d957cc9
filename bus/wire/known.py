"""Classes that this process knows by name, so that their objects arrive as what they were.

A class is known when a signature names it, `result=` or `register_type` does, or an object of it was sent from here.
Nothing is ever imported or looked up for a message: what is not known arrives as plain data.
"""

from __future__ import annotations

import ipaddress
import pathlib
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum
from typing import TYPE_CHECKING, Any, ForwardRef, TypeVar, get_args, get_origin, get_type_hints

from bus.errors import DecodeError, DuplicateNameError
from bus.wire.shapes import (
    ROOT,
    ContainerSingle,
    Record,
    Single,
    StructRecord,
    TextSingle,
    explain,
    is_pydantic,
    scalar_of,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import msgspec

__all__ = [
    "KEPT",
    "REGISTERED",
    "Known",
    "know",
    "meet",
    "own_type",
    "register_type",
    "restore_record",
    "restore_single",
]


ClassT = TypeVar("ClassT", bound=type)

MOST_NAMESAKES = 64
"""Classes of one name that are known at a time: beyond that the oldest are forgotten, until they are met again."""


class Known:
    """The classes that are known, by class and by tag. Several may have one tag, the newest is the last."""

    __slots__ = ("by_class", "by_tag")

    def __init__(self) -> None:
        self.by_class: dict[type, Record | Single] = {}
        self.by_tag: dict[str, list[Record | Single]] = {}

    def add(self, cls: type, shape: Record | Single) -> None:
        """Enter a class. It stands under one tag at a time."""
        former = self.by_class.get(cls)
        if former is not None:
            self.by_tag[former.tag] = [each for each in self.by_tag.get(former.tag, ()) if each is not former]
        self.by_class[cls] = shape
        namesakes = self.by_tag.setdefault(shape.tag, [])
        namesakes.append(shape)
        if len(namesakes) > MOST_NAMESAKES:
            del self.by_class[namesakes.pop(0).cls]

    def shape(self, cls: type) -> Record | Single | None:
        """How objects of a class are taken apart; it is known from now on. None if nobody can say."""
        found = self.by_class.get(cls)
        if found is None and (found := shape_of(cls, tag_of(cls))) is not None:
            self.add(cls, found)
        return found


def meet(cls: type) -> Record | Single | None:
    """How objects of a class are taken apart; it is known from now on, and so is what its fields name."""
    found = REGISTERED.by_class.get(cls)
    if found is None:
        found = REGISTERED.shape(cls)
        if found is not None:
            know(cls)
    return found


def tag_of(cls: type) -> str:
    """What names a class on the wire unless it says otherwise."""
    return f"{cls.__module__}:{cls.__qualname__}"


REGISTERED = Known()
"""The types that are known in this process."""

for _cls, _tag in (
    (type(pathlib.Path()), "Path"),
    (pathlib.PurePosixPath, "PurePosixPath"),
    (pathlib.PureWindowsPath, "PureWindowsPath"),
    (ipaddress.IPv4Address, "IPv4Address"),
    (ipaddress.IPv6Address, "IPv6Address"),
    (ipaddress.IPv4Network, "IPv4Network"),
    (ipaddress.IPv6Network, "IPv6Network"),
    (ipaddress.IPv4Interface, "IPv4Interface"),
    (ipaddress.IPv6Interface, "IPv6Interface"),
):
    _shape = TextSingle(_cls, _tag)
    _shape.builtin = True
    REGISTERED.add(_cls, _shape)


KEPT: dict[type, ContainerSingle] = {
    each: ContainerSingle(each, each.__name__) for each in (OrderedDict, Counter, defaultdict)
}
"""Kinds of dict that stay what they are as fields of an object; elsewhere they travel as the dict that they equal."""

REGISTERED.by_tag.update({_shape.tag: [_shape] for _shape in KEPT.values()})
REGISTERED.add(deque, ContainerSingle(deque, "deque"))


def register_type(cls: ClassT, *, tag: str | None = None) -> ClassT:
    """Let objects of `cls`, and of the classes its fields name, arrive here as objects. Usable as a decorator.

    A class that a handler's signature or `result=` names needs no registration, and neither does one whose objects are
    only sent. A process that does not know a class gets its objects as plain data.

    Args:
        cls: A msgspec Struct, a dataclass (the registration goes above `@dataclass`), an attrs class, a pydantic model,
            an Enum or a NamedTuple.
        tag: What names it on the wire; by default `module:qualname`. A class that has another name in each process, or
            is to be renamed, is given one tag in both.

    Returns:
        `cls`, unchanged.

    Raises:
        DuplicateNameError: Another class has the tag that is given; it keeps it.
        TypeError: `cls` is none of these.
    """
    shape = shape_of(cls, tag or tag_of(cls)) if _is_class(cls) else None
    if shape is None:
        msg = (
            f"{cls!r} cannot be registered: make it a msgspec.Struct, a dataclass (the registration goes above "
            "@dataclass), an attrs class, a pydantic model, an Enum or a NamedTuple"
        )
        raise TypeError(msg)
    if tag is not None:
        for other in REGISTERED.by_tag.get(tag, ()):
            if tag_of(other.cls) != tag_of(cls):
                holder = f"{other.cls.__module__}.{other.cls.__qualname__}"
                raise DuplicateNameError("type tag", tag, holder, "give one of them another tag=")
    REGISTERED.add(cls, shape)
    know(cls)
    return cls


def _is_class(thing: object) -> bool:
    return isinstance(thing, type) and get_origin(thing) is None


def own_type(cls: type[msgspec.Struct], tag: str) -> None:
    """Let objects of a class that this library itself brings travel: every version of it can read them."""
    shape = StructRecord(cls, tag)
    shape.own = True
    REGISTERED.add(cls, shape)


def know(annotation: object, namespace: Mapping[str, Any] | None = None) -> None:
    """Let objects of each class that an annotation names arrive as objects, with those that their fields name.

    Unions, containers, generic arguments and forward references are looked into. A class that is known keeps its tag.
    What cannot be resolved, and types that do not travel, are passed over: their values arrive as plain data.

    Args:
        annotation: A type, or what may stand for one in a signature.
        namespace: Names that texts in it, and in the classes it names, may mean besides those of their modules.
    """
    names = namespace or {}
    waiting: list[tuple[object, type | None]] = [(annotation, None)]
    seen: set[int] = set()
    kept: list[object] = []  # an id is that of one object only as long as that lives
    while waiting:
        part, holder = waiting.pop()
        if isinstance(part, str | ForwardRef):
            part = _resolved(part, holder, names)
        if id(part) in seen:
            continue
        seen.add(id(part))
        kept.append(part)
        for inside in (*get_args(part), getattr(part, "__supertype__", None), getattr(part, "__value__", None)):
            waiting.extend((each, holder) for each in (inside if isinstance(inside, list) else [inside]))
        if isinstance(part, Enum):  # in a Literal
            part = type(part)
        if isinstance(part, TypeVar):
            waiting.extend((each, holder) for each in (part.__bound__, *part.__constraints__))
        cls = get_origin(part) or part
        if not isinstance(cls, type) or cls.__module__ == "builtins":
            continue
        if REGISTERED.shape(cls) is None and (scalar := scalar_of(cls, tag_of(cls))) is not None:
            REGISTERED.add(cls, scalar)
        waiting.extend((each, cls) for each in _annotations_of(cls, names))
        if issubclass(cls, Enum):
            waiting.extend((type(each.value), cls) for each in cls)


def _resolved(text: str | ForwardRef, holder: type | None, names: Mapping[str, Any]) -> object:
    """What a forward reference in a class means; None if nobody can say yet."""
    written = text if isinstance(text, str) else text.__forward_arg__
    module = sys.modules.get(holder.__module__) if holder is not None else None
    own = {holder.__name__: holder} if holder is not None else {}
    try:
        return eval(written, dict(vars(module)) if module is not None else {}, {**own, **names})  # noqa: S307 - it stands in the source
    except Exception:  # noqa: BLE001 - a name that only a checker sees, or one that comes later
        return None


def _annotations_of(cls: type, names: Mapping[str, Any]) -> Iterator[object]:
    """The annotations of the fields of a record, a NamedTuple or a TypedDict, resolved where they can be."""
    if is_pydantic(cls):
        fields: dict[str, Any] = cls.model_fields  # type: ignore[attr-defined]  # a model has them
        yield from (field.annotation for field in fields.values())
        return
    if not isinstance(REGISTERED.by_class.get(cls), Record) and not hasattr(cls, "__annotations__"):
        return
    try:
        yield from get_type_hints(cls, localns=dict(names)).values()
    except Exception:  # noqa: BLE001 - one name cannot be resolved: the others may
        for base in cls.__mro__:
            yield from vars(base).get("__annotations__", {}).values()


def restore_record(tag: str, keyed: dict[str, Any], digest: bytes | None, more: dict[str, Any]) -> Any:
    """Return the object that was sent.

    It is as it was if its class here is defined as it was there; it is validated if the class is defined otherwise and
    has all its fields; else it is plain data.

    Raises:
        DecodeError: It is of a class of the bus, and does not fit it.
    """
    known = [each for each in REGISTERED.by_tag.get(tag, ()) if isinstance(each, Record)]
    if digest is not None:
        for shape in reversed(known):
            if shape.digest == digest:
                try:
                    return shape.make({shape.attributes[key]: item for key, item in keyed.items()}, more)
                except Exception:  # noqa: BLE001, S112 - what is forged must not be worse than what is unknown
                    continue
    for shape in reversed(known):
        if not (shape.own or shape.open or keyed.keys() <= shape.attributes.keys()):
            continue
        try:
            return shape.build(keyed)
        except Exception as error:  # validators and __post_init__ are code of the user and may raise anything
            if shape.own:
                where, why = explain(error)
                named = f"an object tagged {tag!r} does not fit {shape.cls.__qualname__!r}"
                msg = f"{named}: {f'{where}: ' if where else ''}{why}"
                raise DecodeError(msg) from error
    return plain_record(keyed, more)


def plain_record(keyed: dict[str, Any], more: dict[str, Any]) -> Any:
    """What is known of an object without its class: its fields by their keys."""
    if more.get("flat") and ROOT in keyed:
        return keyed[ROOT]
    extra = more.get("extra")
    return {**extra, **keyed} if isinstance(extra, dict) else keyed


def restore_single(tag: str, plain: Any, mark: Any) -> Any:
    """Return the object that was sent if its class is known here, else the plain value that it stands for."""
    for shape in reversed(REGISTERED.by_tag.get(tag, ())):
        if isinstance(shape, Single):
            try:
                return shape.restore(plain, mark)
            except Exception:  # noqa: BLE001, S112 - it was another class of that name
                continue
    return plain
