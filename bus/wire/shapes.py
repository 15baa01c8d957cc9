"""How objects of the classes that users write are taken apart and made again, without running any code of theirs.

A `Record` has fields, which travel as a map. A `Single` stands for one plain value, as an Enum or a NamedTuple does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict, deque
from enum import Enum, Flag
from functools import cached_property
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import msgspec

from bus.errors import Portable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "ROOT",
    "MisfitError",
    "Record",
    "Single",
    "complete",
    "explain",
    "is_pydantic",
    "key_part",
    "shape_of",
]


_VALIDATION_ERROR = re.compile(r"(?P<reason>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)

# msgspec speaks of JSON; its users speak of Python.
_PYTHON_WORDS = {"object": "a dict", "array": "a list", "null": "None"}

ROOT = "root"
"""The one field of a pydantic RootModel."""

NAMES = "_fields"
"""Where a NamedTuple says the names of its items."""

# What typing notes on an object of a generic class; an object without it is the same object.
_NOTED = "__orig_class__"


def is_pydantic(cls: type) -> bool:
    """Say whether `cls` is a pydantic model, without importing pydantic."""
    return (
        hasattr(cls, "model_fields") and hasattr(cls, "model_dump") and callable(getattr(cls, "model_validate", None))
    )


def key_part(key: object) -> str:
    """Return how a path goes on into the entry `key` of a dict: `.when`, or `['a b']`."""
    if isinstance(key, str) and key.isidentifier():
        return "." + key
    text = repr(key)
    return f"[{text}]" if len(text) <= 60 else f"[{text[:57]}...]"  # noqa: PLR2004 a path must fit into a log line


class MisfitError(Portable, ValueError):
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


class Record:
    """Objects with fields: a msgspec Struct, a dataclass, an attrs class, a pydantic model.

    Attributes:
        cls: The class.
        tag: What names it on the wire.
        names: Its fields, from attribute to the key by which its constructor of mappings knows them.
        frozen: Whether its objects cannot be changed.
        strict: Whether validation refuses a key that is no field.
        open: Whether validation keeps a key that is no field.
        own: Whether it belongs to the bus; its objects are validated whenever they arrive.
    """

    builtin = False
    """Whether every process knows it."""

    flat = False
    """Whether an object is known without its class as what its one field holds."""

    open = False

    def __init__(self, cls: type, tag: str, names: dict[str, str], *, frozen: bool, strict: bool) -> None:
        self.cls = cls
        self.tag = tag
        self.names = names if len(set(names.values())) == len(names) else {name: name for name in names}
        self.attributes = {key: name for name, key in self.names.items()}
        self.frozen = frozen
        self.strict = strict
        self.own = False

    @cached_property
    def digest(self) -> bytes:
        """What tells the definition of the class from others: its fields, their keys and what they are annotated as."""
        return digest_of(f"{name}={key}:{text}" for (name, key), text in self._annotated())

    def _annotated(self) -> Iterable[tuple[tuple[str, str], str]]:
        written: dict[str, object] = {}
        for base in reversed(self.cls.__mro__):
            try:
                written.update(vars(base).get("__annotations__") or getattr(base, "__annotations__", None) or {})
            except Exception:  # noqa: BLE001, S112 - where annotations are looked up late that runs code of the user
                continue
        return (((name, key), annotation_text(written.get(name))) for name, key in self.names.items())

    def take(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fields of `value` by attribute, and what else it holds. A field that is not set is left out."""
        fields = {}
        for name in self.names:
            field = getattr(value, name, msgspec.UNSET)
            if field is not msgspec.UNSET:
                fields[name] = field
        rest = self._rest(value)
        return fields, {"rest": rest} if rest else {}

    def _rest(self, value: Any) -> dict[str, Any]:
        return {
            name: item
            for name, item in getattr(value, "__dict__", {}).items()
            if name not in self.names and name != _NOTED and not self._computed(name)
        }

    def _computed(self, name: str) -> bool:
        return isinstance(getattr(self.cls, name, None), cached_property)

    def make(self, fields: dict[str, Any], more: dict[str, Any]) -> Any:
        """Return a new object of what `take` gave. No code of the class runs.

        Raises:
            Exception: The class does not allow it.
        """
        raise NotImplementedError

    def keyed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return `fields` by the keys that `build` wants, and that travel."""
        names = self.names
        return {names[name]: field for name, field in fields.items()}

    def build(self, keyed: dict[str, Any]) -> Any:
        """Return a new object of the class, validated by its annotations.

        Raises:
            Exception: Whatever its validation or the code of the class raises.
        """
        return msgspec.convert(keyed, self.cls, strict=True, dec_hook=complete)


class StructRecord(Record):
    """A msgspec Struct."""

    def __init__(self, cls: type[msgspec.Struct], tag: str) -> None:
        config = cls.__struct_config__
        names = dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
        super().__init__(cls, tag, names, frozen=bool(config.frozen), strict=config.forbid_unknown_fields)
        self._array_like = config.array_like
        self._tag = config.tag

    def make(self, fields: dict[str, Any], more: dict[str, Any]) -> Any:
        made = self._new(**fields)
        if self._new is not self.cls:
            msgspec.structs.force_setattr(made, "__class__", self.cls)
        if more:
            made.__dict__.update(more["rest"])
        return made

    @cached_property
    def _new(self) -> Callable[..., Any]:
        # The constructor of a Struct validates nothing, but it ends with __post_init__.
        if not hasattr(self.cls, "__post_init__"):
            return self.cls
        return msgspec.defstruct(self.cls.__name__, (), bases=(self.cls,), namespace={"__post_init__": _nothing})

    def build(self, keyed: dict[str, Any]) -> Any:
        if not self._array_like:
            return super().build(keyed)
        array = [] if self._tag is None else [self._tag]
        for key in self.names.values():
            if key not in keyed:
                break
            array.append(keyed[key])
        return msgspec.convert(array, self.cls, strict=True, dec_hook=complete)


def _nothing(_made: object) -> None:
    """Stands in for code of a class that is not to run."""


class InstanceRecord(Record):
    """A dataclass, of the standard library or pydantic's, or an attrs class."""

    def __init__(self, cls: type, tag: str) -> None:
        if dataclasses.is_dataclass(cls):
            fields = [field.name for field in dataclasses.fields(cls)]
            frozen = bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]  # every dataclass has them
        else:
            fields = [field.name for field in cls.__attrs_attrs__]  # type: ignore[attr-defined]  # shape_of has looked
            frozen = False
        super().__init__(cls, tag, {name: name for name in fields}, frozen=frozen, strict=False)
        self._slots = [name for base in cls.__mro__ for name in _slots_of(base) if name not in self.names]
        self._base: Any = BaseException if issubclass(cls, BaseException) else object

    def _rest(self, value: Any) -> dict[str, Any]:
        rest = super()._rest(value)
        for name in self._slots:
            item = getattr(value, name, msgspec.UNSET)
            if item is not msgspec.UNSET:
                rest[name] = item
        return rest

    def make(self, fields: dict[str, Any], more: dict[str, Any]) -> Any:
        made = self._base.__new__(self.cls)
        for each in (fields, more.get("rest", {})):
            for name, item in each.items():
                object.__setattr__(made, name, item)
        return made


def _slots_of(base: type) -> list[str]:
    slots = vars(base).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    prefix = "_" + base.__name__.lstrip("_")
    mangled = [prefix + name if name[:2] == "__" and name[-2:] != "__" else name for name in names]
    return [name for name in mangled if name not in {"__dict__", "__weakref__"}]


class ModelRecord(Record):
    """A pydantic model. Which fields were set, its extra fields and its private attributes are part of it."""

    def __init__(self, cls: Any, tag: str) -> None:
        config = cls.model_config
        extra = config.get("extra")
        self.open = extra == "allow"
        names = {name: _alias_of(name, field) for name, field in cls.model_fields.items()}
        super().__init__(cls, tag, names, frozen=bool(config.get("frozen")), strict=extra in {"allow", "forbid"})

    def take(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        held = vars(value)
        fields = {name: held[name] for name in self.names if name in held}
        more: dict[str, Any] = {}
        if (rest := self._rest(value)) != {}:
            more["rest"] = rest
        if extra := value.__pydantic_extra__:
            more["extra"] = extra
        if private := value.__pydantic_private__:
            more["private"] = private
        if (fields_set := value.__pydantic_fields_set__) != fields.keys() | (extra or {}).keys():
            more["set"] = sorted(fields_set)
        return fields, more

    def make(self, fields: dict[str, Any], more: dict[str, Any]) -> Any:
        made: Any = object.__new__(self.cls)
        extra = more.get("extra", {} if self.open else None)
        private = more.get("private")
        if private is None and self.cls.__private_attributes__:  # type: ignore[attr-defined]  # every model has them
            private = {}
        fields_set = more.get("set", [*fields, *(extra or {})])
        object.__setattr__(made, "__dict__", {**fields, **more.get("rest", {})})
        if not self.flat:  # of a RootModel both are None, on the class
            object.__setattr__(made, "__pydantic_extra__", extra)
            object.__setattr__(made, "__pydantic_private__", private)
        object.__setattr__(made, "__pydantic_fields_set__", set(fields_set))
        return made

    def build(self, keyed: dict[str, Any]) -> Any:
        return self.cls.model_validate(keyed)  # type: ignore[attr-defined]  # it is a model


def _alias_of(name: str, field: Any) -> str:
    for alias in (field.validation_alias, *getattr(field.validation_alias, "choices", ()), field.alias):
        if isinstance(alias, str):
            return alias
    return name


class RootRecord(ModelRecord):
    """A pydantic RootModel: known without its class as what it holds."""

    flat = True

    def build(self, keyed: dict[str, Any]) -> Any:
        return super().build(keyed[ROOT])


class Single:
    """Objects that stand for one plain value each, and cannot change but in what that holds.

    Attributes:
        cls: The class.
        tag: What names it on the wire.
        builtin: Whether every process knows it.
    """

    own = False

    shared = False
    """Whether what an object stands for cannot change either."""

    builtin = False

    def __init__(self, cls: type, tag: str) -> None:
        self.cls = cls
        self.tag = tag

    def plain(self, value: Any) -> Any:
        """The plain value."""
        raise NotImplementedError

    def mark(self, value: Any) -> Any:  # noqa: ARG002 for those that need it
        """What else must be right on the wire for the object to be restored; None if there is nothing."""
        return None

    def make(self, plain: Any) -> Any:
        """Return a new object for a plain value.

        Raises:
            Exception: There is none.
        """
        raise NotImplementedError

    def like(self, value: Any, plain: Any) -> Any:  # noqa: ARG002 for those that need it
        """Return a new object as `value` is, for another plain value."""
        return self.make(plain)

    def restore(self, plain: Any, mark: Any) -> Any:
        """Return the object of what came over a network.

        Raises:
            Exception: There is none; it was another class of that name.
        """
        if mark is not None:
            raise ValueError(mark)
        return self.make(plain)


class EnumSingle(Single):
    """A member of an Enum. It is itself."""

    shared = True

    cls: type[Enum]

    def plain(self, value: Any) -> Any:
        return value.value

    def mark(self, value: Any) -> Any:
        return value.name

    def make(self, plain: Any) -> Any:
        return self.cls(plain)

    def restore(self, plain: Any, mark: Any) -> Any:
        member = self.cls.__members__.get(mark) if isinstance(mark, str) else None
        if member is None and issubclass(self.cls, Flag) and isinstance(plain, int):
            return self.cls(plain)
        if member is None or plain not in (member.value, mark):
            raise ValueError(plain)
        return member


class TupleSingle(Single):
    """A NamedTuple."""

    def plain(self, value: Any) -> Any:
        return tuple(value)

    def make(self, plain: Any) -> Any:
        return tuple.__new__(self.cls, plain)

    def mark(self, value: Any) -> Any:  # noqa: ARG002 it is the same for all
        return self._digest

    def restore(self, plain: Any, mark: Any) -> Any:
        if mark != self._digest:
            raise ValueError(mark)
        return self.make(plain)

    @cached_property
    def _digest(self) -> bytes:
        return digest_of(getattr(self.cls, NAMES))


class ContainerSingle(Single):
    """A container of the standard library that is more than a dict or a list."""

    builtin = True

    def plain(self, value: Any) -> Any:
        return list(value) if self.cls is deque else dict(value)

    def mark(self, value: Any) -> Any:
        if self.cls is deque:
            return value.maxlen
        return value.default_factory.__name__ if self.cls is defaultdict and value.default_factory is not None else None

    def like(self, value: Any, plain: Any) -> Any:
        return self.restore(plain, self.mark(value))

    def restore(self, plain: Any, mark: Any) -> Any:
        if self.cls is deque:
            return deque(plain, mark)
        if self.cls is defaultdict:
            return defaultdict(None if mark is None else FACTORIES[mark], plain)
        return self.cls(plain)

    def loses(self, value: Any) -> bool:
        """Whether a part of the object is code of somebody: it travels as a dict, which it equals."""
        factory = getattr(value, "default_factory", None)
        return factory is not None and FACTORIES.get(getattr(factory, "__name__", "")) is not factory


FACTORIES = {each.__name__: each for each in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)}
"""What a defaultdict may make its values of."""


class TextSingle(Single):
    """What its own text makes again: a path, an IP address, a URL of pydantic."""

    shared = True

    def plain(self, value: Any) -> Any:
        return str(value)

    def make(self, plain: Any) -> Any:
        return self.cls(plain)


class SecretSingle(Single):
    """A secret of pydantic: what travels is the secret."""

    def plain(self, value: Any) -> Any:
        return value.get_secret_value()

    def make(self, plain: Any) -> Any:
        return self.cls(plain)


class ScalarSingle(Single):
    """An object of a subclass of text, number or bytes."""

    shared = True

    def __init__(self, cls: type, tag: str, base: Any) -> None:
        super().__init__(cls, tag)
        self._base = base

    def plain(self, value: Any) -> Any:
        return self._base.__new__(self._base, value)

    def make(self, plain: Any) -> Any:
        if type(plain) is not self._base:
            raise TypeError(plain)
        return self._base.__new__(self.cls, plain)


def shape_of(cls: type, tag: str) -> Record | Single | None:
    """Say how objects of a class are taken apart; None if nobody knows."""
    if issubclass(cls, msgspec.Struct):
        return StructRecord(cls, tag)
    if is_pydantic(cls):
        return (RootRecord if getattr(cls, "__pydantic_root_model__", False) else ModelRecord)(cls, tag)
    if dataclasses.is_dataclass(cls) or hasattr(cls, "__attrs_attrs__"):
        return InstanceRecord(cls, tag)
    kind: type[Single] | None = None
    if issubclass(cls, Enum):
        kind = EnumSingle
    elif issubclass(cls, tuple) and hasattr(cls, NAMES):
        kind = TupleSingle
    else:
        bases = {f"{base.__module__}:{base.__qualname__}" for base in cls.__mro__}
        if _TEXTS & bases:
            kind = TextSingle
        elif "pydantic.types:_SecretBase" in bases:
            kind = SecretSingle
    return None if kind is None else kind(cls, tag)


def scalar_of(cls: type, tag: str) -> Single | None:
    """Say how objects of a subclass of text, number or bytes are taken apart; None for another class."""
    for base in (str, int, float, bytes):
        if issubclass(cls, base) and cls not in {base, bool}:
            return ScalarSingle(cls, tag, base)
    return None


_TEXTS = frozenset(
    {
        "pydantic.networks:_BaseUrl",
        "pydantic.networks:_BaseMultiHostUrl",
        "pydantic_core._pydantic_core:Url",
        "pydantic_core._pydantic_core:MultiHostUrl",
    }
)


def digest_of(parts: Iterable[str]) -> bytes:
    """Eight bytes that tell a definition from others."""
    return hashlib.blake2b("\0".join(parts).encode(errors="replace"), digest_size=8).digest()


def annotation_text(annotation: object) -> str:
    """An annotation as text that is the same in every process that has the same source."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, str):
        return annotation
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if not arguments or origin is None:
        return str(getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__qualname__", "?"))
    texts = [annotation_text(each) for each in arguments]
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        return "|".join(texts)
    return f"{getattr(origin, '__qualname__', '?')}[{','.join(texts)}]"
