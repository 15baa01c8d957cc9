"""How values look on the wire: MessagePack, with extension types for what it lacks."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec.msgpack import Decoder, Encoder, Ext

from bus.errors import DecodeError, EncodeError
from bus.wire.known import KEPT, meet, restore_record, restore_single
from bus.wire.shapes import Record, explain
from bus.wire.values import dict_of, elements_of, plain_single, travel

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["dumps", "encode_packed", "loads", "pack", "unpack"]


# These numbers are the wire format: never change one, never use one again.
_INT, _TUPLE, _SET, _FROZENSET, _DICT, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _OBJECT = range(1, 13)
_SINGLE, _RECORD = 13, 14

# Beside the fields of an object stands what a process that validates objects when they arrive passes over.
_BESIDE = ""

_NATIVE = frozenset({type(None), bool, float, str, bytes})
_LEAST_INT, _MOST_INT = -(2**63), 2**64 - 1

encode_packed = Encoder().encode
"""Encodes what `pack` returned, or a tree of it."""


def pack(value: Any, path: str = "payload") -> Any:
    """Return `value` in a form that `encode_packed` can write.

    Decoding it gives a value that equals `travel(value)`, with the same types throughout.

    Args:
        value: The value.
        path: What to call it in errors.

    Raises:
        EncodeError: It cannot travel.
    """
    if type(value) is dict:
        # Most payloads are flat dicts of plain values, which are written as they are.
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                break
            kind = type(item)
            if kind is str:
                if not item.isascii():
                    break
            elif kind is int:
                if not _LEAST_INT <= item <= _MOST_INT:
                    break
            elif kind not in _NATIVE:
                break
        else:
            return value
    return _pack(travel(value, path))


def dumps(value: Any, path: str = "value") -> bytes:
    """Return `value` as bytes, from which `loads` makes its equal: what may travel may also be kept.

    Args:
        value: The value.
        path: What to call it in errors.

    Raises:
        EncodeError: It cannot travel.
    """
    try:
        return encode_packed(pack(value, path))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(path, str(error)) from error


def loads(data: bytes | memoryview) -> Any:
    """Return the value that `dumps` made bytes of. Nothing is imported or executed by what the bytes say.

    Raises:
        DecodeError: The bytes are none of ours.
    """
    return unpack(data)


def unpack(data: bytes | memoryview) -> Any:
    """Return the value that was packed and encoded as `data`.

    Nothing is imported and no attribute looked up by what the bytes say: an object of a class that is not known here is
    plain data.

    Raises:
        DecodeError: The bytes are none of ours.
    """
    try:
        return _decode(data)
    except DecodeError:
        raise
    except Exception as error:  # bytes of anybody reach constructors and validators: all that fails is theirs
        where, why = explain(error)
        msg = f"these bytes do not hold a value: {f'{where}: ' if where else ''}{why}"
        raise DecodeError(msg) from error


def _pack(value: Any) -> Any:  # noqa: PLR0911 one return per kind is the plainest form and the fastest
    # `travel` has been here: what is left to do cannot be refused.
    kind = type(value)
    if kind in _NATIVE:
        return value
    if kind is int:
        if _LEAST_INT <= value <= _MOST_INT:
            return value
        return Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if kind is dict:
        return _pack_dict(value)
    if kind is list:
        return [item if type(item) in _NATIVE else _pack(item) for item in value]
    if (packer := _PACKERS.get(kind)) is not None:
        return packer(value)
    shape = KEPT.get(kind) or meet(kind)
    if isinstance(shape, Record):
        return _pack_record(shape, value)
    if shape is not None:
        return _ext(_SINGLE, [shape.tag, _pack(plain_single(shape, value)), shape.mark(value)])
    # The class of a message that was built has given a field its annotated type again.
    return _pack(travel(value))


def _pack_record(shape: Record, value: Any) -> Ext:
    fields, more = shape.take(value)
    if shape.own:  # every version reads it, and the older know no Enum
        fields = {name: field.value if isinstance(field, Enum) else field for name, field in fields.items()}
        return _ext(_OBJECT, [shape.tag, _pack_dict(shape.keyed(fields))])
    keyed = _pack_dict(shape.keyed(fields))
    packed = {part: _pack(held) for part, held in more.items()}
    if shape.flat:
        packed["flat"] = True
    if shape.strict or packed.keys() - {"set"} or _BESIDE in keyed:
        return _ext(_RECORD, [shape.tag, keyed, shape.digest, packed])
    keyed[_BESIDE] = [shape.digest, packed]
    return _ext(_OBJECT, [shape.tag, keyed])


def _pack_dict(value: dict[Any, Any]) -> Any:
    for key in value:
        if type(key) is not str:
            return _ext(_DICT, [_pack(part) for pair in value.items() for part in pair])
    return {key: item if type(item) in _NATIVE else _pack(item) for key, item in value.items()}


def _pack_set(value: set[Any] | frozenset[Any]) -> Ext:
    # Sorted, as the order of a set of strings differs from process to process, and runs must be reproducible.
    code = _SET if type(value) is set else _FROZENSET
    return _ext(code, sorted((_pack(item) for item in value), key=encode_packed))


def _ext(code: int, content: object) -> Ext:
    return Ext(code, encode_packed(content))


_PACKERS: dict[type, Callable[[Any], Ext]] = {
    tuple: lambda value: _ext(_TUPLE, [_pack(item) for item in value]),
    set: _pack_set,
    frozenset: _pack_set,
    # ISO text has no place for the fold of a wall clock set back.
    datetime: lambda value: _ext(_DATETIME, [value.isoformat(), value.fold]),
    date: lambda value: _ext(_DATE, value.isoformat()),
    time: lambda value: _ext(_TIME, [value.isoformat(), value.fold]),
    timedelta: lambda value: _ext(_TIMEDELTA, [value.days, value.seconds, value.microseconds]),
    Decimal: lambda value: _ext(_DECIMAL, str(value)),
    UUID: lambda value: Ext(_UUID, value.bytes),
}


def _load_dict(data: memoryview) -> Any:
    flat = _decode(data)
    return dict_of(flat[::2], flat[1::2])


def _load_datetime(data: memoryview) -> datetime:
    text, fold = _decode(data)
    return datetime.fromisoformat(text).replace(fold=fold)


def _load_time(data: memoryview) -> time:
    text, fold = _decode(data)
    return time.fromisoformat(text).replace(fold=fold)


def _load_object(data: memoryview) -> Any:
    tag, keyed = _decode(data)
    digest, more = keyed.pop(_BESIDE, (None, {}))
    return restore_record(tag, keyed, digest, more)


_LOADERS: dict[int, Callable[[memoryview], Any]] = {
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _TUPLE: lambda data: tuple(_decode(data)),
    _SET: lambda data: elements_of(set, _decode(data)),
    _FROZENSET: lambda data: elements_of(frozenset, _decode(data)),
    _DICT: _load_dict,
    _DATETIME: _load_datetime,
    _DATE: lambda data: date.fromisoformat(_decode(data)),
    _TIME: _load_time,
    _TIMEDELTA: lambda data: timedelta(*_decode(data)),
    _DECIMAL: lambda data: Decimal(_decode(data)),
    _UUID: lambda data: UUID(bytes=bytes(data)),
    _OBJECT: _load_object,
    _SINGLE: lambda data: restore_single(*_decode(data)),
    _RECORD: lambda data: restore_record(*_decode(data)),
}


def _load(code: int, data: memoryview) -> Any:
    loader = _LOADERS.get(code)
    if loader is None:
        msg = f"extension type {code} is unknown here"
        raise DecodeError(msg)
    return loader(data)


_decode: Callable[[bytes | memoryview], Any] = Decoder(ext_hook=_load).decode
