"""Objects as JSON: what is shown of a value over HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest

from actors.cli.output import encoded
from actors.server.bodies import encode
from bus import dumps, loads
from bus.wire.known import REGISTERED


class Colour(Enum):
    RED = "red"


class Spot(NamedTuple):
    x: int


@dataclass
class Data:
    where: Path
    table: dict[Any, Any]


class Struct(msgspec.Struct, rename="camel"):
    the_data: Data


@attrs.define
class Attributes:
    colour: Colour


class Model(pydantic.BaseModel):
    name: str = pydantic.Field("a", alias="theName")
    where: Path = Path("p")
    numbers: Numbers | None = None


class Numbers(pydantic.RootModel[list[int]]):
    pass


VALUES: list[tuple[Any, Any]] = [
    (Data(Path("a/b"), {"n": Spot(1)}), {"where": "a/b", "table": {"n": [1]}}),
    (Data(Path("a/b"), {(1, 2): Colour.RED}), {"where": "a/b", "table": {"(1, 2)": "red"}}),
    (Struct(Data(Path("c"), {None: 1})), {"theData": {"where": "c", "table": {"None": 1}}}),
    (Attributes(Colour.RED), {"colour": "red"}),
    (Model(theName="x"), {"theName": "x", "where": "p", "numbers": None}),
    ({(1,): Model(theName="\ud800")}, {"(1,)": {"theName": "?", "where": "p", "numbers": None}}),
    (Model(theName="a", numbers=Numbers([1])), {"theName": "a", "where": "p", "numbers": [1]}),
    ([Numbers([1]), ip_address("::1"), {Colour.RED}], [[1], "::1", ["red"]]),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=[str(n) for n in range(len(VALUES))])
def test_an_object_is_shown_whatever_is_in_it(value: Any, shown: Any) -> None:
    assert json.loads(encode(value)) == shown


@pytest.mark.parametrize(("value", "shown"), [VALUES[0], *VALUES[3:5], *VALUES[6:]], ids=[*"034567"][:5])
def test_g49_it_is_shown_the_same_where_its_class_is_unknown(
    value: Any, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dumps(value)
    builtin = {tag: [each for each in shapes if each.builtin] for tag, shapes in REGISTERED.by_tag.items()}
    monkeypatch.setattr(REGISTERED, "by_tag", builtin)
    assert json.loads(encode(loads(data))) == shown
    assert json.loads(encoded(loads(data))) == json.loads(encoded(value)) == shown


def test_a_secret_is_masked() -> None:
    assert encode({"key": pydantic.SecretStr("k")}) == b'{"key":"**********"}'
