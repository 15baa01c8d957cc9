"""Which values can travel: the same ones in a process and over a network, isolated from who sent them."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import partial
from operator import is_ as _is
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from bus.errors import BusError, EncodeError
from bus.wire.known import KEPT, meet, plain_record
from bus.wire.shapes import ContainerSingle, Record, Single, explain, key_part

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["MAX_DEPTH", "PayloadError", "plain", "travel", "travel_message"]


MAX_DEPTH = 100
"""How deeply values may be nested."""

# Immutable and the same for everybody: shared, not copied. Text and times are not here, as not all of them travel.
_SHARED = frozenset({type(None), bool, int, float, bytes, date, timedelta, Decimal, UUID})

_LONGEST_PATH = 20

# What an object that is frozen may hold besides its fields and still be shared.
_UNCHANGING = frozenset({"set"})


class PayloadError(BusError, ValueError):
    """A payload does not fit the type its handler asks for. The handler did not run.

    Attributes:
        path: Which part, e.g. `payload.items[3].n`.
        reason: What was expected there and what was found.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class _RefusedError(Exception):
    """A value cannot travel. On its way up each container adds its part of the path, so that success pays for none."""

    def __init__(self, reason: str, *parts: str) -> None:
        self.reason = reason
        self.parts = list(parts)  # innermost first

    def path(self, root: str) -> str:
        parts = self.parts[::-1]
        return root + "".join(parts[:_LONGEST_PATH]) + ("..." if len(parts) > _LONGEST_PATH else "")


def travel(value: Any, path: str = "payload") -> Any:
    """Return `value` as its reader gets it, equal to it and isolated from what the sender does to it afterwards.

    Containers and objects with fields are copied, immutable values shared; no code of their classes runs. Subclasses of
    the builtin types that equal their base, as an OrderedDict does, travel as the base. Times keep their instant and
    offset, not their zone. What comes out is what `pack` and `unpack` would give in a process that knows the classes.

    Args:
        value: The value.
        path: What to call it in errors.

    Raises:
        EncodeError: It cannot travel; the error says which part of it, why, and what to do.
    """
    if value is None:
        return None
    if type(value) is dict:
        # Most payloads are flat dicts of plain values. This loop is the hot path of the bus: 0.7 us for ten entries.
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                break
            if type(item) is str:
                if not item.isascii():
                    break
            elif type(item) not in _SHARED:
                break
        else:
            return value.copy()
    return _guarded(_walk, value, path)


def travel_message(shape: Record, value: Any, path: str) -> Any:
    """Return a message of a user's class as its reader gets it: built from its fields, which are validated.

    Raises:
        EncodeError: It cannot travel.
    """
    return _guarded(partial(_built, shape), value, path)


def _guarded(walk: Callable[[Any, int], Any], value: Any, path: str) -> Any:
    try:
        return walk(value, 0)
    except _RefusedError as refused:
        raise EncodeError(refused.path(path), refused.reason) from refused.__cause__
    except RecursionError:
        raise EncodeError(path, "it is nested too deeply for what is left of the stack") from None


def _walk(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if kind in _SHARED:
        return value
    if (leaf := _LEAVES.get(kind)) is not None:
        return leaf(value)
    if depth >= MAX_DEPTH:
        reason = f"it is nested deeper than {MAX_DEPTH} levels, or contains itself"
        raise _RefusedError(reason)
    if (container := _CONTAINERS.get(kind)) is not None:
        return container(value, depth + 1)
    if (shape := meet(kind)) is not None:
        return _record(shape, value, depth + 1) if isinstance(shape, Record) else _single(shape, value, depth + 1)
    return _walk(_as_base(value, kind), depth)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        reason = f"the text has a lone surrogate at index {error.start}: decode it with errors='replace', or send bytes"
        raise _RefusedError(reason) from None
    return value


def _at_offset(value: datetime | time, zone: object) -> timezone | None:
    try:
        offset = value.utcoffset()
    except Exception as error:
        reason = f"its tzinfo {type(zone).__name__!r} gives no offset: {error!r}"
        raise _RefusedError(reason) from error
    return None if offset is None else timezone(offset)


# A zone is an object of anybody's class, or a name that would make the reader open a file: only its offset travels.
def _datetime(value: datetime) -> datetime:
    zone = value.tzinfo
    return value if zone is None or type(zone) is timezone else value.replace(tzinfo=_at_offset(value, zone))


def _time(value: time) -> time:
    zone = value.tzinfo
    return value if zone is None or type(zone) is timezone else value.replace(tzinfo=_at_offset(value, zone))


def _dict(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    copy = {}
    for key, item in value.items():
        travelled = key
        if type(key) is not str or not key.isascii():
            try:
                travelled = _hashable(_walk(key, depth))
            except _RefusedError as refused:
                refused.parts.append(".keys()")
                raise
        try:
            copy[travelled] = _walk(item, depth)
        except _RefusedError as refused:
            refused.parts.append(key_part(travelled))
            raise
    return copy


def _plain(items: Collection[Any]) -> bool:
    """Say whether all items are shared as they are."""
    for item in items:
        if (kind := type(item)) is str:
            if not item.isascii():
                return False
        elif kind not in _SHARED:
            return False
    return True


def _items(value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    if _plain(value):
        return list(value)
    copy = []
    for index, item in enumerate(value):
        try:
            copy.append(_walk(item, depth))
        except _RefusedError as refused:
            refused.parts.append(f"[{index}]")
            raise
    return copy


def _tuple(value: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
    if _plain(value):
        return value
    items = _items(value, depth)
    return value if all(map(_is, items, value)) else tuple(items)


def _elements(value: set[Any] | frozenset[Any], depth: int) -> set[Any]:
    try:
        return {_hashable(_walk(item, depth)) for item in value}
    except _RefusedError as refused:
        refused.parts.append("{...}")
        raise


def _frozenset(value: frozenset[Any], depth: int) -> frozenset[Any]:
    return value if _plain(value) else frozenset(_elements(value, depth))


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError as error:
        reason = f"as a {type(value).__name__} it is not hashable"
        raise _RefusedError(reason) from error
    return value


def _record(shape: Record, value: Any, depth: int) -> Any:
    try:
        fields, more = shape.take(value)
    except Exception as error:  # a property may stand where a field is
        reason = f"{shape.cls.__qualname__!r} cannot be read: {error!r}"
        raise _RefusedError(reason) from error
    travelled = _entries(fields, depth)
    for name, field in fields.items():
        if (kept := KEPT.get(type(field))) is not None and not kept.loses(field):
            travelled[name] = kept.like(field, travelled[name])
    for part, held in more.items():
        more[part] = _entries(held, depth) if type(held) is dict else _walk(held, depth)
    if shape.frozen and more.keys() <= _UNCHANGING and all(field is travelled[name] for name, field in fields.items()):
        return value
    try:
        return shape.make(travelled, more)
    except Exception as error:
        reason = f"{shape.cls.__qualname__!r} cannot be made of its fields: {error}"
        raise _RefusedError(reason) from error


def _entries(held: dict[str, Any], depth: int) -> dict[str, Any]:
    travelled = {}
    for name, item in held.items():
        try:
            travelled[name] = _walk(item, depth)
        except _RefusedError as refused:
            refused.parts.append(key_part(name))
            raise
    return travelled


def _single(shape: Single, value: Any, depth: int) -> Any:
    if shape.shared:
        return value
    plain = shape.plain(value)
    travelled = _walk(plain, depth)
    return value if _same_items(plain, travelled) else shape.like(value, travelled)


def _same_items(one: Any, other: Any) -> bool:
    if type(one) is tuple:
        return all(item is travelled for item, travelled in zip(one, other, strict=True))
    return one is other


def _built(shape: Record, value: Any, depth: int) -> Any:
    travelled = _entries(shape.take(value)[0], depth)
    try:
        built = shape.build(shape.keyed(travelled))
        rebuilt = shape.take(built)[0]
        changed = [name for name, field in travelled.items() if not _same(rebuilt.get(name, msgspec.UNSET), field)]
    except Exception as error:  # __post_init__ is code of the user and may raise anything
        where, why = explain(error)
        reason = f"{shape.cls.__qualname__!r} cannot be built from its fields: {why}"
        raise _RefusedError(reason, where) from error
    if changed:
        reason = f"the field does not come back equal when {shape.cls.__qualname__!r} is built: check its annotation"
        raise _RefusedError(reason, key_part(changed[0]))
    return built


def _same(one: object, other: object) -> bool:
    return one is other or one == other or (one != one and other != other)  # noqa: PLR0124 NaN differs from itself


_LEAVES: dict[type, Callable[[Any], Any]] = {datetime: _datetime, time: _time}

_CONTAINERS: dict[type, Callable[[Any, int], Any]] = {
    dict: _dict,
    list: _items,
    tuple: _tuple,
    set: _elements,
    frozenset: _frozenset,
}


def _date_of(value: date) -> date:
    return date(value.year, value.month, value.day)


def _time_of(value: datetime | time) -> time:
    return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)


# Each gives an object of exactly the base class. datetime comes before date, as it is one.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (dict, dict),
    (list, list),
    (tuple, tuple),
    (set, set),
    (frozenset, frozenset),
    (datetime, lambda value: datetime.combine(_date_of(value), _time_of(value))),
    (date, _date_of),
    (time, _time_of),
    (timedelta, lambda value: timedelta(value.days, value.seconds, value.microseconds)),
    (Decimal, Decimal),
    (UUID, lambda value: UUID(int=value.int)),
)


def _as_base(value: Any, kind: type) -> Any:
    name = kind.__qualname__
    for base, reduce in _BASES:
        if issubclass(kind, base):
            try:
                plain = reduce(value)
                same = _same(value, plain)
            except Exception as error:  # the subclass may override anything
                reason = f"type {name!r} cannot be read as its {base.__name__}: {error!r}"
                raise _RefusedError(reason) from error
            if not same:
                reason = f"type {name!r} does not equal its {base.__name__}: send what its reader needs of it"
                raise _RefusedError(reason)
            return plain
    raise _RefusedError(_way_out(kind, name))


def _way_out(kind: type, name: str) -> str:
    if issubclass(kind, bytearray | memoryview):
        return f"type {name!r} can change under way: send bytes(...) of it"
    return f"type {name!r} is not among the types that travel: send a dict, a dataclass or a model"


def plain(value: Any) -> Any:  # noqa: PLR0911 one return per kind is the plainest form
    """Return what a process gets of `value` that knows none of its classes.

    Objects become dicts by the keys of their fields, members of an Enum their values. What holds none of these is
    returned as it is.

    Args:
        value: What has travelled.
    """
    kind = type(value)
    if kind in _SHARED or kind is str or kind in _LEAVES:
        return value
    if kind is dict:
        keys = [plain(key) for key in value]
        items = [plain(item) for item in value.values()]
        if all(map(_is, keys, value)) and all(map(_is, items, value.values())):
            return value
        return dict_of(keys, items)
    if (container := _CONTAINERS.get(kind)) is not None:
        items = [plain(item) for item in value]
        if all(map(_is, items, value)):
            return value
        return elements_of(kind, items) if container in {_elements, _frozenset} else kind(items)
    shape = meet(kind)
    if isinstance(shape, Record):
        fields, more = shape.take(value)
        keyed = {key: plain(item) for key, item in shape.keyed(fields).items()}
        return plain_record(keyed, {"flat": shape.flat, "extra": plain(more.get("extra", {}))})
    if isinstance(shape, ContainerSingle):
        return shape.like(value, plain(shape.plain(value)))
    return plain(plain_single(shape, value)) if shape is not None and not shape.builtin else value


def plain_single(shape: Single, value: Any) -> Any:
    """The plain value that an object stands for: of a member of an Enum, its name if its value cannot travel."""
    try:
        return travel(shape.plain(value))
    except EncodeError:
        if isinstance(value, Enum):
            return value.name
        raise


def dict_of(keys: list[Any], items: list[Any]) -> Any:
    """A dict, or its entries as pairs if a key is not hashable without its class."""
    try:
        return dict(zip(keys, items, strict=True))
    except TypeError:
        return [[key, item] for key, item in zip(keys, items, strict=True)]


def elements_of(kind: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """A set of some kind, or a list if an element is not hashable without its class."""
    try:
        return kind(items)
    except TypeError:
        return items
