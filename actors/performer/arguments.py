"""The arguments of a handler that takes more than one value by position: they are found in the payload."""

from __future__ import annotations

import copy
from inspect import Parameter
from typing import Any

import msgspec

from actors.performer.handler import Takes
from bus import Converter, PayloadError, nearest
from bus.wire.values import plain


class Asked(msgspec.Struct, frozen=True):
    """One parameter of a handler.

    Attributes:
        name: Its name.
        takes: What it is given.
        annotation: Its annotation; `Parameter.empty` for none.
        default: Its default; `Parameter.empty` for none.
        by_keyword: Whether it is given by name only.
    """

    name: str
    takes: Takes
    annotation: Any
    default: Any
    by_keyword: bool

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is Parameter.empty


class Keys(msgspec.Struct, frozen=True):
    """The keys of a payload that are parameters.

    Attributes:
        converter: Of a dict that holds no others.
        names: Those it may hold.
        rest: Converts the others, if they are taken.
    """

    converter: Converter
    names: frozenset[str]
    rest: Converter | None

    def values(self, payload: Any) -> dict[str, Any]:
        """The arguments by name.

        Raises:
            PayloadError: The payload does not fit.
        """
        data = {} if payload is None else payload if type(payload) is dict else plain(payload)
        if type(data) is not dict:
            raise PayloadError("payload", f"expected a dict, got {type(payload).__name__}")
        others = {key: value for key, value in data.items() if key not in self.names}
        if others and (self.rest is None or not all(isinstance(key, str) for key in others)):
            stranger = next(iter(others))
            near = nearest(stranger, list(self.names)) if isinstance(stranger, str) else []
            hint = f"; is it {near[0]}?" if near else ""
            raise PayloadError("payload", f"contains unknown field {stranger!s:.100}{hint}")
        known = {key: value for key, value in data.items() if key in self.names} if others else data
        values: dict[str, Any] = self.converter(known)
        return {**values, **self.rest(others)} if others and self.rest is not None else values


class Arguments:
    """Gives a callable its arguments.

    Args:
        asked: Its parameters, in order.
        lone: Converts the payload, if it is one of them, or is in a `Job[T]`.
        keys: Finds them in the payload, by name.
    """

    __slots__ = ("_asked", "_defaults", "_names", "keys", "lone")

    def __init__(self, asked: tuple[Asked, ...], *, lone: Converter | None = None, keys: Keys | None = None) -> None:
        self._asked = asked
        taking = [each for each in asked if each.takes is Takes.PAYLOAD]
        self._names = [each.name for each in taking]
        self.lone = lone
        self.keys = keys
        self._defaults = {each.name: _Default(each.default) for each in taking if not each.required}

    @property
    def has_message(self) -> bool:
        """Whether the request message is among them."""
        return any(each.takes is Takes.MESSAGE for each in self._asked)

    @property
    def annotation(self) -> Any:
        """What the payload is, as one type."""
        by = self.keys.converter if self.keys is not None else self.lone
        return Any if by is None else by.annotation

    def of(self, payload: Any) -> tuple[Any, dict[str, Any]]:
        """The payload, converted, and the arguments that it fills, by name.

        Raises:
            PayloadError: The payload does not fit.
        """
        if self.lone is None or (self.keys is not None and type(payload) is dict):
            values = self.keys.values(payload) if self.keys is not None else {}
        elif not self._names:
            return self.lone(payload), {}
        elif payload is None and self._defaults:
            values = {}
        else:
            payload = self.lone(payload)
            return payload, {self._names[0]: payload}
        for name, default in self._defaults.items():
            if name not in values:
                values[name] = default.value
        return payload, values

    def give(self, values: dict[str, Any], job: Any, request: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments by position and by name."""
        positional, keywords = [], dict(values)
        for each in self._asked:
            if each.takes is Takes.PAYLOAD:
                value = keywords.pop(each.name)
            else:
                value = job if each.takes is Takes.JOB else request
            if each.by_keyword:
                keywords[each.name] = value
            else:
                positional.append(value)
        return positional, keywords


class _Default:
    """A default: one that can change is copied each time, so that no call changes it for the next."""

    __slots__ = ("_copied", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        try:
            hash(value)
        except TypeError:
            self._copied = True
        else:
            self._copied = False

    @property
    def value(self) -> Any:
        """It, or a copy of it."""
        return copy.deepcopy(self._value) if self._copied else self._value
