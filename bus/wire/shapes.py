"""Classes that travel because somebody registered them: how their objects are taken apart and built again."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from bus.errors import DuplicateNameError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "REGISTERED",
    "MisfitError",
    "Shape",
    "Shapes",
    "complete",
    "explain",
    "has_shape",
    "is_pydantic",
    "key_part",
    "register_annotated",
    "register_type",
]


ClassT = TypeVar("ClassT", bound=type)
ShapeT = TypeVar("ShapeT", bound="Shape")

_VALIDATION_ERROR = re.compile(r"(?P<reason>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)

# msgspec speaks of JSON; its users speak of Python.
_PYTHON_WORDS = {"object": "a dict", "array": "a list", "null": "None"}


def is_pydantic(cls: type) -> bool:
    """Say whether `cls` is a pydantic model, without importing pydantic."""
    return (
        hasattr(cls, "model_fields") and hasattr(cls, "model_dump") and callable(getattr(cls, "model_validate", None))
    )


def has_shape(cls: type) -> bool:
    """Say whether `cls` is a class that can be registered: a Struct, a dataclass or a pydantic model."""
    return issubclass(cls, msgspec.Struct) or dataclasses.is_dataclass(cls) or is_pydantic(cls)


def key_part(key: object) -> str:
    """Return how a path goes on into the entry `key` of a dict: `.when`, or `['a b']`."""
    if isinstance(key, str) and key.isidentifier():
        return "." + key
    text = repr(key)
    return f"[{text}]" if len(text) <= 60 else f"[{text[:57]}...]"  # noqa: PLR2004 a path must fit into a log line


class MisfitError(ValueError):
    """What a conversion inside another one refused, from its own root on."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(reason)


def explain(error: BaseException) -> tuple[str, str]:
    """Return where below a value a validation failed, as the rest of a path, and why, in words of Python."""
    if isinstance(error, MisfitError):
        return error.where, error.reason
    errors = getattr(error, "errors", None)
    if type(error).__name__ == "ValidationError" and callable(errors):  # pydantic's
        first = errors()[0]
        parts = (f"[{part}]" if isinstance(part, int) else key_part(part) for part in first["loc"])
        return "".join(parts), first["msg"]
    if isinstance(error, RecursionError):
        return "", "it is nested too deeply, or contains itself"
    text = str(error) or type(error).__name__
    found = _VALIDATION_ERROR.fullmatch(text) if isinstance(error, msgspec.ValidationError) else None
    if found is None:
        return "", text
    where = (found["path"] or "") + (".keys()" if found["key"] else "")
    if error.__cause__ is not None:  # `complete` failed
        inner, reason = explain(error.__cause__)
        return where + inner, reason
    reason = re.sub(r"`([^`]*)`", _python_words, found["reason"].removeprefix("Object "))
    return where, reason[:1].lower() + reason[1:]


def _python_words(quoted: re.Match[str]) -> str:
    return " | ".join(_PYTHON_WORDS.get(word, word) for word in quoted[1].split(" | "))


def complete(type_: type, value: object) -> object:
    """Finish what msgspec does not know about, its `dec_hook`: pydantic models inside other types."""
    if is_pydantic(type_) and not isinstance(value, type_):
        return type_.model_validate(value)  # type: ignore[attr-defined]  # is_pydantic has looked
    return value


class Shape:
    """How objects of one registered class are taken apart and built again.

    Attributes:
        cls: The class.
        tag: What names it on the wire.
        names: Its fields, from attribute to the key by which its constructor of mappings knows them.
        frozen: Whether its objects cannot be changed.
    """

    __slots__ = ("_build", "cls", "frozen", "names", "tag")

    def __init__(self, cls: type, tag: str) -> None:
        self.cls = cls
        self.tag = tag
        self._build: Callable[[dict[str, Any]], Any] = self._convert
        if issubclass(cls, msgspec.Struct):
            config = cls.__struct_config__
            self.frozen = bool(config.frozen)
            self.names = dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
            if config.array_like:
                self._build = self._convert_array
        elif dataclasses.is_dataclass(cls):
            self.frozen = bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]  # every dataclass has them
            self.names = {field.name: field.name for field in dataclasses.fields(cls)}
        elif is_pydantic(cls):
            self.frozen = bool(cls.model_config.get("frozen"))  # type: ignore[attr-defined]  # every model has one
            fields: dict[str, Any] = cls.model_fields  # type: ignore[attr-defined]  # is_pydantic has looked
            self.names = {
                name: field.validation_alias if isinstance(field.validation_alias, str) else field.alias or name
                for name, field in fields.items()
            }
            self._build = cls.model_validate  # type: ignore[attr-defined]  # is_pydantic has looked
        else:
            msg = (
                f"{cls!r} cannot be registered: make it a msgspec.Struct, a dataclass (the registration goes above "
                "@dataclass) or a pydantic model"
            )
            raise TypeError(msg)

    def take_apart(self, value: object) -> dict[str, Any]:
        """Return the fields of `value` by attribute. A field that is not set is left out."""
        fields = {}
        for name in self.names:
            field = getattr(value, name, msgspec.UNSET)
            if field is not msgspec.UNSET:
                fields[name] = field
        extra = getattr(value, "__pydantic_extra__", None)
        return {**fields, **extra} if extra else fields

    def keyed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return `fields` by the keys that `build` wants, and that travel."""
        names = self.names
        return {names.get(name, name): field for name, field in fields.items()}

    def build(self, keyed: dict[str, Any]) -> Any:
        """Return a new object of the class, validated by its annotations.

        Raises:
            Exception: Whatever its validation or the code of the class raises.
        """
        return self._build(keyed)

    def _convert(self, keyed: dict[str, Any]) -> Any:
        return msgspec.convert(keyed, self.cls, strict=True, dec_hook=complete)

    def _convert_array(self, keyed: dict[str, Any]) -> Any:
        tag = self.cls.__struct_config__.tag  # type: ignore[attr-defined]  # only Structs come here
        array = [] if tag is None else [tag]
        for key in self.names.values():
            if key not in keyed:
                break
            array.append(keyed[key])
        return msgspec.convert(array, self.cls, strict=True, dec_hook=complete)


class Shapes(Generic[ShapeT]):
    """What is registered, by tag and by class.

    Args:
        kind: What its tags are called in errors.
        make: Gives the shape of a class and its tag.
    """

    __slots__ = ("_kind", "_make", "by_class", "by_tag")

    def __init__(self, kind: str, make: Callable[[type, str], ShapeT]) -> None:
        self._kind = kind
        self._make = make
        self.by_tag: dict[str, ShapeT] = {}
        self.by_class: dict[type, ShapeT] = {}

    def add(self, cls: object, tag: str | None) -> None:
        """Register `cls`, by default as `module:qualname`. Defined anew, as by a reload, it replaces its former self.

        Raises:
            DuplicateNameError: Another class has the tag; it keeps it.
            TypeError: Objects of the class cannot be taken apart and built again.
        """
        if not isinstance(cls, type):
            msg = f"{cls!r} cannot be registered: it is not a class"
            raise TypeError(msg)
        shape = self._make(cls, tag or f"{cls.__module__}:{cls.__qualname__}")
        former = self.by_tag.get(shape.tag)
        if former is not None:
            if (former.cls.__module__, former.cls.__qualname__) != (cls.__module__, cls.__qualname__):
                holder = f"{former.cls.__module__}.{former.cls.__qualname__}"
                raise DuplicateNameError(self._kind, shape.tag, holder, "give one of them another tag=")
            self.by_class.pop(former.cls, None)
        self.by_tag[shape.tag] = self.by_class[cls] = shape


REGISTERED = Shapes("type tag", Shape)
"""The types that users registered."""


def register_type(cls: ClassT, *, tag: str | None = None) -> ClassT:
    """Let objects of `cls` travel, in this process and over networks. Usable as a decorator, above `@dataclass`.

    An object travels if building its class from its fields gives an equal object: fields must hold what their
    annotations say. Both processes must register the class under the same tag; nothing is ever imported for a message.

    Args:
        cls: A msgspec Struct, a dataclass or a pydantic model.
        tag: What names it on the wire; by default `module:qualname`.

    Returns:
        `cls`, unchanged.

    Raises:
        DuplicateNameError: Another class has the tag; it keeps it.
        TypeError: `cls` is none of these.
    """
    REGISTERED.add(cls, tag)
    return cls


def register_annotated(annotation: object) -> None:
    """Register each class an annotation names, also inside `list[...]` and the like, and those its fields name.

    A class that is registered keeps its tag. Builtin types and those that cannot be registered are passed over.
    """
    waiting = [annotation]
    seen: dict[type, None] = {}
    while waiting:
        part = waiting.pop()
        waiting.extend(get_args(part))
        cls = get_origin(part) or part
        if not isinstance(cls, type) or cls in seen or not has_shape(cls):
            continue
        seen[cls] = None
        if cls not in REGISTERED.by_class:
            REGISTERED.add(cls, None)
        try:
            waiting.extend(get_type_hints(cls).values())
        except (AttributeError, NameError, TypeError):
            continue  # classes named in there are refused when they are sent, and the error says what to do
