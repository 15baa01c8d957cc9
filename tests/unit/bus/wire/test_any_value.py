"""Whatever is put together of values that travel: a copy is equal and apart, and a network gives the same as a copy."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import math
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus import dumps, loads, travel
from bus.wire.known import REGISTERED
from bus.wire.values import plain


class Mode(enum.Enum):
    NUMBER = 1
    TEXT = "text"
    TUPLE = (1, "a")


class Name(enum.StrEnum):
    ONE = "one"


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Pair(NamedTuple):
    one: Any
    two: Any = None


class Struct(msgspec.Struct, rename="camel"):
    the_one: Any
    two: Any = msgspec.UNSET

    def __post_init__(self) -> None:
        self.the_one = [self.the_one]


class Frozen(msgspec.Struct, frozen=True, array_like=True):
    one: Any


@dataclasses.dataclass
class Data:
    one: Any
    two: Any = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.one = [self.one]
        self._more = self.two


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    one: Any


@attrs.define
class Attributes:
    _one: Any
    two: Any = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", validate_by_name=True)
    one: Any = pydantic.Field(None, alias="theOne")
    two: Any = 2
    _private: Any = pydantic.PrivateAttr(None)

    @pydantic.field_validator("one")
    @classmethod
    def _wrap(cls, value: Any) -> Any:
        return [value]


class Root(pydantic.RootModel[Any]):
    model_config = pydantic.ConfigDict(frozen=True)


def a_model(one: Any, two: Any, private: Any, more: dict[str, Any]) -> Model:
    made = Model(**more) if two is None else Model(theOne=one, two=two, **more)
    made._private = private
    return made


CLASSES = (Mode, Name, Bits, Pair, Struct, Frozen, Data, Slots, Attributes, Model, Root)

texts = st.text(max_size=5)
hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=5),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Mode, *Name, *Bits, Bits(3), Bits(0)]),
    st.ip_addresses(),
    st.lists(st.sampled_from("ab."), max_size=3).map(lambda parts: PurePosixPath(*parts)),
)
keys = st.recursive(
    hashable_leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Pair, inner, inner),
        st.builds(Frozen, inner),
        st.builds(Slots, inner),
        st.frozensets(inner, max_size=3),
    ),
    max_leaves=5,
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    more = st.dictionaries(st.sampled_from(["x", "y"]), inner)
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(texts, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(keys, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Struct, inner),
        st.builds(Struct, inner, inner),
        st.builds(Frozen, inner),
        st.builds(Data, inner, two=inner),
        st.builds(Slots, inner),
        st.builds(Attributes, inner, inner),
        st.builds(a_model, inner, inner, inner, more),
        st.builds(Root, inner),
    )


values = st.recursive(hashable_leaves, containers, max_leaves=12)


def held(value: Any) -> dict[Any, Any] | list[Any]:
    """What is in a value that may hold others, whatever way it holds them."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, pydantic.BaseModel):
        kept = (value.__pydantic_extra__, value.__pydantic_private__, frozenset(value.model_fields_set))
        return {**vars(value), **dict(enumerate(kept))}
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if isinstance(value, Slots | Attributes):
        return {name: getattr(value, name) for name in ("one", "_one", "two") if hasattr(value, name)}
    return vars(value) if isinstance(value, Data) else {}


def the_same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, Decimal):
        return str(one) == str(other)
    mine, others = held(one), held(other)
    if isinstance(mine, dict) and isinstance(others, dict):
        return mine.keys() == others.keys() and all(the_same(item, others[key]) for key, item in mine.items())
    return all(map(the_same, mine, others))


def changeable(value: Any) -> set[int]:
    """The identities of all in a value that can be changed."""
    inside = held(value)
    parts = [part for item in (inside.values() if isinstance(inside, dict) else inside) for part in changeable(item)]
    shared = isinstance(value, tuple | Frozen | Slots | Root | frozenset)
    can_change = isinstance(value, list | dict | set | Struct | Data | Attributes | Model) and not shared
    return {*parts, *([id(value)] if can_change else [])}


often = settings(
    max_examples=250, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@often
@given(values)
def test_g41_a_copy_is_equal_and_apart_and_a_network_gives_the_same(value: Any) -> None:
    copy = travel(value)
    assert the_same(copy, value)
    assert not changeable(copy) & changeable(value)
    assert the_same(loads(dumps(value)), copy)
    assert dumps(copy) == dumps(value)


@often
@given(values)
def test_g49_a_process_that_knows_no_class_gets_plain_data(value: Any) -> None:
    data = dumps(value)
    with pytest.MonkeyPatch.context() as patch:
        builtin = {tag: [each for each in shapes if each.builtin] for tag, shapes in REGISTERED.by_tag.items()}
        patch.setattr(REGISTERED, "by_tag", builtin)
        came = loads(data)
    assert same_data(came, plain(value))
    assert not objects_in(came)
    assert same_data(travel(came), came)


def same_data(one: Any, other: Any) -> bool:
    """Equal; what was a set of objects is a list, in no order."""
    if isinstance(one, list) and isinstance(other, list) and one != other:
        return len(one) == len(other) and all(any(same_data(each, it) for it in other) for each in one)
    if isinstance(one, dict | tuple) and type(one) is type(other) and len(one) == len(other):
        mine, others = (list(each.items()) if isinstance(each, dict) else each for each in (one, other))
        return all(map(same_data, mine, others))
    return bool(type(one) is type(other) and one == other)


def objects_in(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [each for pair in value.items() for item in pair for each in objects_in(item)]
    if isinstance(value, list | tuple | set | frozenset) and type(value) is not Pair:
        return [each for item in value for each in objects_in(item)]
    return [value] if isinstance(value, CLASSES) else []


def test_addresses_are_known_everywhere() -> None:
    value = ipaddress.ip_interface("10.0.0.1/8")
    assert plain(value) == value == loads(dumps(value))
