"""JSON in and JSON out: bodies within their limits, and any value that may travel as JSON."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import fields, is_dataclass
from json import dumps
from math import isfinite
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.requests import ClientDisconnect, Request

from actors.server.access import ServerSettings
from actors.server.problem import HttpError, invalid

T = TypeVar("T")


async def read_body(request: Request, settings: ServerSettings) -> bytes:
    """The body of a request.

    Raises:
        HttpError: It is too large (413), comes too slowly (408), is of another type than JSON (415).
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > settings.max_body_bytes):  # noqa: PLR2004
        raise _too_large(settings)
    body = bytearray()
    try:
        with anyio.fail_after(settings.body_timeout):
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > settings.max_body_bytes:
                        raise _too_large(settings)
    except TimeoutError:
        raise HttpError(
            408, "body_timeout", f"the body did not come within {settings.body_timeout:g} s", retry=True
        ) from None
    except ClientDisconnect:
        raise HttpError(400, "disconnected", "the client left before its body had come") from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/json":  # else any page in a browser could send it without asking
        raise HttpError(415, "not_json", "the body must be JSON, with Content-Type: application/json")
    return bytes(body)


def decode(body: bytes, settings: ServerSettings) -> Any:
    """The value of a JSON text.

    Raises:
        HttpError: It is not JSON, or nested too deeply (400).
    """
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep(settings) from None
    except (ValueError, OverflowError) as error:
        raise HttpError(400, "bad_json", f"the body is not JSON: {error}") from None
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        if depth > settings.max_depth:
            raise _too_deep(settings)
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
    return value


def fit(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """A decoded value as what a route asks for.

    Raises:
        HttpError: It does not fit; the text says where (422).
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except (ValueError, OverflowError) as error:
        raise invalid(str(error)) from None


def encode(value: Any) -> bytes:
    """Any value that may travel, as JSON: bytes as base64, times as ISO 8601, sets as lists, keys as texts."""
    try:
        return msgspec.json.encode(value, enc_hook=_model)
    except (TypeError, ValueError, OverflowError):
        return dumps(_plain(value), separators=(",", ":")).encode()


def _model(value: Any) -> Any:
    """What msgspec does not know: a pydantic model as its dict, a path, an address or a masked secret as its text."""
    return value.model_dump(by_alias=True) if hasattr(value, "model_dump") else str(value)


def _plain(value: Any) -> Any:
    """What msgspec does not take: keys that are neither texts nor numbers, and texts that are not UTF-8."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        value = {key: getattr(value, name) for key, name in names}
    elif is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_plain(key) if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case None | int() | float():
            return None if isinstance(value, float) and not isfinite(value) else value
    try:
        made = _model(value) if hasattr(value, "model_dump") else msgspec.to_builtins(value, enc_hook=_model)
        return _plain(made)
    except (TypeError, ValueError):
        return str(value)


def _too_large(settings: ServerSettings) -> HttpError:
    return HttpError(413, "body_too_large", f"a body may have {settings.max_body_bytes} bytes")


def _too_deep(settings: ServerSettings) -> HttpError:
    return HttpError(400, "too_deep", f"the JSON is nested deeper than {settings.max_depth} levels")
