"""What an annotation admits is what its converter gives, and nothing else (G48)."""

# No postponed annotations here: classes inside functions are named in annotations.
import collections
import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Protocol,
    Required,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import msgspec
import pydantic
import pytest
import typing_extensions

from bus import PayloadError, convert
from bus.wire.annotations import AnnotationError
from bus.wire.converter import Converter, converter_of

T = TypeVar("T")
NumberT = TypeVar("NumberT", bound=int)
EitherT = TypeVar("EitherT", int, str)


@dataclasses.dataclass
class Walk:
    steps: int
    fast: bool = False


@dataclasses.dataclass
class Sail:
    knots: int
    crew: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class March(Walk):
    drum: str = "big"


class Ride(msgspec.Struct):
    horse: str


class Trot(Ride):
    pace: int = 1


class Tagged(msgspec.Struct, tag="tagged"):
    horse: str


class Other(msgspec.Struct, tag="other", rename="camel"):
    long_name: str


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    size: int = pydantic.Field(gt=0, alias="theSize")


class Note(pydantic.BaseModel):
    text: str


@pydantic.dataclasses.dataclass
class Checked:
    share: Annotated[float, pydantic.Field(le=1.0)]


class Partly(TypedDict, total=False):
    name: Required[str]
    age: int


class Whole(TypedDict):
    name: str
    age: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Trips(NamedTuple):
    first: Walk | Sail
    second: Walk | Sail | None = None


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Pace(msgspec.Struct):
    steps: int


class Mixed(enum.Enum):
    HALF = 0.5
    NOTHING = None


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Crate(msgspec.Struct, Generic[T]):
    content: list[T]


@dataclasses.dataclass
class IntBox(Box[int]):
    label: str = ""


@dataclasses.dataclass
class Journey:
    by: Walk | Sail | Ride
    then: "Journey | None" = None
    notes: list[Annotated[str, pydantic.Field(min_length=2)]] = dataclasses.field(default_factory=list)


class Plan(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    first_leg: Walk | Ride
    other_legs: list[Walk | Ride] = []
    model: Model | Note | None = None


class Legs(TypedDict):
    legs: list[Walk | Sail]
    note: NotRequired[Annotated[str, pydantic.Field(min_length=2)]]


UserId = NewType("UserId", int)
Small = NewType("Small", Annotated[int, msgspec.Meta(le=9)])
Json = typing_extensions.TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | None")

MOMENT = datetime(2024, 5, 6, 7, 8)  # noqa: DTZ001 - a moment without a zone is one of the values that travel

FITS: list[tuple[Any, Any, Any]] = [
    # --- anything ---
    (Any, {"a": object}, {"a": object}),
    (object, 3, 3),
    (list[object], [1, "a", None], [1, "a", None]),
    (T, "as it is", "as it is"),
    (NumberT, 3, 3),
    (EitherT, "text", "text"),
    # --- plain ---
    (int, 2**80, 2**80),
    (float, 1, 1.0),
    (None, None, None),
    (UserId, 5, 5),
    (Small, 9, 9),
    (Decimal, "1.5", Decimal("1.5")),
    (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
    (timedelta, timedelta(1), timedelta(1)),
    (Path, "a/b", Path("a/b")),
    (list[Path], ["a", Path("b")], [Path("a"), Path("b")]),
    (IPv4Address, "10.0.0.1", IPv4Address("10.0.0.1")),
    (Sequence[int], (1, 2), [1, 2]),
    (Iterable[int], [1, 2], [1, 2]),
    (Mapping[int, str], {1: "a"}, {1: "a"}),
    (collections.deque[int], [1, 2], collections.deque([1, 2])),
    (collections.OrderedDict[str, int], {"a": 1}, collections.OrderedDict(a=1)),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[Walk | Sail, ...], [{"steps": 1}, {"knots": 1}], (Walk(1), Sail(1))),
    (frozenset[int], [1, 1], frozenset({1})),
    # --- enumerations and literals ---
    (Colour, "red", Colour.RED),
    (Colour, 2, Colour.BLUE),
    (Mixed, 0.5, Mixed.HALF),
    (Mixed, None, Mixed.NOTHING),
    (Rights, 3, Rights.READ | Rights.WRITE),
    (Literal["a", 1] | None, None, None),
    (Literal[b"x", "x"], b"x", b"x"),
    (Literal[Colour.RED], "red", Colour.RED),
    # --- unions ---
    (int | None, None, None),
    (str | date, "2024-05-06", "2024-05-06"),
    (date | datetime, MOMENT, MOMENT),
    (int | list[Walk | Sail], [{"knots": 3}], [Sail(3)]),
    (Walk | Sail, {"steps": 3}, Walk(3)),
    (Walk | Sail, Sail(3), Sail(3)),
    (Walk | Ride, Ride("h"), Ride("h")),
    (Walk | March, {"steps": 1, "drum": "small"}, March(1, drum="small")),
    (Walk | March, {"steps": 1}, Walk(1)),
    (Walk | Sail | None, None, None),
    (Walk | dict[str, str], {"steps": "many"}, {"steps": "many"}),
    (Tagged | Other, {"type": "other", "longName": "n"}, Other("n")),
    (Tagged | Walk, {"type": "tagged", "horse": "h"}, Tagged("h")),
    (Note | Model, {"theSize": 1}, Model(theSize=1)),
    (Note | Ride, {"horse": "h"}, Ride("h")),
    (Note | Ride | int, 5, 5),
    (list[Note | Walk], [{"text": "t"}, {"steps": 1}, Note(text="u")], [Note(text="t"), Walk(1), Note(text="u")]),
    # --- classes with fields ---
    (Walk, {"steps": 3}, Walk(3)),
    (Walk, March(3), March(3)),
    (list[Walk], [March(3), {"steps": 1}], [March(3), Walk(1)]),
    (dict[str, Ride], {"a": Trot("h", 2)}, {"a": Trot("h", 2)}),
    (list[list[Walk]], [[March(1)]], [[March(1)]]),
    (Partly, {"name": "n"}, {"name": "n"}),
    (Whole, {"name": "n", "age": 3}, {"name": "n", "age": 3}),
    (Pair, (1,), Pair(1)),
    (Pair, [1, "x"], Pair(1, "x")),
    (Trips, [{"knots": 1}, {"steps": 2}], Trips(Sail(1), Walk(2))),
    (Trips, [{"knots": 1}], Trips(Sail(1))),
    (Model, {"theSize": "3"}, Model(theSize=3)),
    (Checked, {"share": 0.5}, Checked(0.5)),
    (Box[int], {"content": 1}, Box(1)),
    (Box[Walk | Sail], {"content": {"knots": 1}}, Box(Sail(1))),
    (Box[Note], {"content": {"text": "t"}}, Box(Note(text="t"))),
    (Crate[Walk | Ride], {"content": [{"horse": "h"}]}, Crate([Ride("h")])),
    (IntBox, {"content": 1}, IntBox(1)),
    (
        Journey,
        {"by": {"horse": "h"}, "then": {"by": {"steps": 1}, "notes": ["no"]}},
        Journey(Ride("h"), Journey(Walk(1), None, ["no"])),
    ),
    (
        Plan,
        {"firstLeg": {"steps": 1}, "otherLegs": [{"horse": "h"}], "model": {"text": "t"}},
        Plan(Walk(1), [Ride("h")], Note(text="t")),
    ),
    (Plan, {"firstLeg": {"steps": 1}}, Plan(Walk(1))),
    (Legs, {"legs": [{"knots": 1}]}, {"legs": [Sail(1)]}),
    (Legs, {"legs": [], "note": "no"}, {"legs": [], "note": "no"}),
    (Json, {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    # --- objects of other classes, by their fields ---
    (Walk, Pace(3), Walk(3)),
    (list[Walk], [Pace(3), March(1)], [Walk(3), March(1)]),
    (Walk | Sail, Pace(3), Walk(3)),
    (dict[str, int], Pace(3), {"steps": 3}),
    (dict[str, Any], {"pace": Pace(3)}, {"pace": Pace(3)}),
    (int, Level.LOW, 1),
    (str, Word.YES, Word.YES),
    (tuple[int, str], Pair(1), (1, "r")),
    (list[int | str], Pair(1), [1, "r"]),
    # --- constraints ---
    (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
    (Annotated[int, pydantic.Field(ge=1)], 2, 2),
    (Annotated[list[Walk | Sail], msgspec.Meta(max_length=1)], [{"knots": 1}], [Sail(1)]),
    (Annotated[Note | Model, pydantic.Field(description="either")], {"text": "t"}, Note(text="t")),
    (Annotated[Walk | Sail, "a remark"], {"knots": 1}, Sail(1)),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), FITS)
def test_g48_what_an_annotation_admits_is_taken(annotation: Any, value: Any, expected: Any) -> None:
    got = convert(value, annotation)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, True, "payload: expected int, got bool"),
        (int, "3", "payload: expected int, got str"),
        (str, b"x", "payload: expected str, got bytes"),
        (Small, 10, "payload: expected int <= 9"),
        (NumberT, "x", "payload: expected int, got str"),
        (EitherT, 1.5, "payload: expected"),
        (Path, 3, "payload: expected str, got int"),
        (Literal[b"x"], "x", "payload: expected one of b'x', got 'x'"),
        (Literal[1], True, "payload: expected int, got bool"),
        (Mixed, 0.6, "payload: expected one of"),
        (Rights, "READ", "payload: expected int, got str"),
        (date | datetime, 5, "payload: fits none of date | datetime"),
        (Walk | Sail, {"x": 1}, "payload: fits none of Walk | Sail: as Walk, missing required field steps; as Sail"),
        (
            list[Walk | Sail],
            [{"steps": 1}, {"steps": "s"}],
            r"payload\[1\]: fits none .* at steps, expected int, got str",
        ),
        (Walk, Ride("h"), "payload: missing required field steps"),
        (list[Walk], [March(1), {"steps": None}], r"payload\[1\].steps: expected int, got None"),
        (Partly, {"age": 1}, "payload: missing required field name"),
        (Whole, {"name": "n", "age": None}, "payload.age: expected int, got None"),
        (Pair, (), "payload: "),
        (Trips, ({"knots": 1}, 5), r"payload\[1\]: fits none of Walk | Sail"),
        (Trips, ({"knots": 1}, None, 3), "payload: "),
        (Model, {"theSize": 0}, "payload.theSize: .*greater than 0"),
        (Checked, {"share": 2}, "payload.share: .*less than or equal to 1"),
        (Box[int], {"content": "x"}, "payload.content: expected int, got str"),
        (IntBox, {"content": "x"}, "payload.content: expected int, got str"),
        (Box[Walk | Sail], {"content": 1}, "payload.content: fits none of"),
        (Journey, {"by": {"horse": 1}}, "payload.by: fits none of"),
        (Journey, {"by": Walk(1), "notes": ["no", "x"]}, r"payload.notes\[1\]: .*at least 2 characters"),
        (Journey, {"by": Walk(1), "then": {}}, "payload.then: missing required field by"),
        (Plan, {"first_leg": Walk(1)}, "payload: .*field"),
        (Plan, {"firstLeg": Walk(1), "otherLegs": [1]}, r"payload.otherLegs\[0\]: fits none of"),
        (Legs, {"legs": [], "note": "n"}, "payload.note: .*at least 2 characters"),
        (Json, {"a": [1.5]}, r"payload\[...\]\[0\]: expected"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "payload: expected int >= 1"),
        (Annotated[int, pydantic.Field(ge=1)], -1, "payload: .*greater than or equal to 1"),
        (dict[str, Annotated[int, pydantic.Field(ge=1)]], {"a": 0}, "payload.a: .*greater than or equal to 1"),
        (
            Annotated[list[Walk | Sail], msgspec.Meta(max_length=1)],
            [Sail(1)] * 2,
            "payload: expected a list of length <= 1",
        ),
        (collections.deque[int], ["a"], r"payload\[0\]: expected int, got str"),
    ],
)
def test_g48_nothing_else_is_taken_and_the_error_names_the_field(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=f"^{message}"):
        convert(value, annotation)


class Speaks(Protocol):
    def speak(self) -> str: ...


class Engine:
    def __init__(self, socket: object) -> None:
        self.socket = socket


@dataclasses.dataclass
class Garage:
    engine: Engine


@dataclasses.dataclass
class Unfinished:
    what: "Undefined"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Callable[[int], int], "is code, and code does not travel"),
        (list[Callable[..., Any]], "is code, and code does not travel"),
        (Speaks, "Speaks is a protocol"),
        (Engine, "Engine cannot be built from what travels: make it a dataclass"),
        (dict[str, Engine | None], "Engine cannot be built"),
        (Garage, "Engine cannot be built"),
        (Walk | Engine, "Engine cannot be built"),
        (type[int], "is a class, and classes do not travel"),
        (ForwardRef("Gone"), "Gone is not defined where it is named"),
        (Unfinished, "Unfinished has annotations that cannot be resolved: name 'Undefined' is not defined"),
        (typing_extensions.Never, "admits no value"),
        (Annotated[str, msgspec.Meta(ge=1)], "cannot be served: Can only set `ge` on a numeric type"),
        (Annotated[Walk | Sail, msgspec.Meta(ge=1)], "cannot be served: Can only set `ge` on a numeric type"),
        (Annotated[Ride, pydantic.Field(description="a")], "has a constraint of pydantic on a type"),
        (Annotated[int, pydantic.Field(ge=1), msgspec.Meta(le=9)], "has a constraint of pydantic on a type"),
    ],
    ids=str,
)
def test_g48_what_no_value_can_become_is_refused_with_the_reason(annotation: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=re.escape(message).replace(r"\ ", " ")):
        Converter(annotation)


def test_a_converter_is_made_once() -> None:
    assert converter_of(Walk) is converter_of(Walk)
    assert converter_of(list[Walk | Sail]) is converter_of(list[Walk | Sail])
    assert converter_of(Walk | Sail) is not converter_of(Sail | Walk)
    assert repr(converter_of(Walk | Sail)).startswith("<Converter to ")


@pytest.mark.parametrize(
    ("annotation", "admits"),
    [
        (Any, True),
        (object, True),
        (T, True),
        (NumberT, False),
        (int, False),
        (str | None, False),
        (list[dict[str, int]], False),
        (Pair, False),
        (Colour, False),
        (Annotated[int, pydantic.Field(ge=1)], False),
        (dict, True),
        (dict[str, int] | None, True),
        (Mapping[str, int], True),
        (collections.OrderedDict[str, int], True),
        (Partly, True),
        (Walk | int, True),
        (Model, True),
        (Json, True),
        (Annotated[Ride, "a remark"], True),
    ],
)
def test_an_annotation_says_whether_a_dict_may_become_it(annotation: Any, *, admits: bool) -> None:
    assert Converter(annotation).admits_dict is admits


@pytest.mark.parametrize("value", [Walk(1), March(1), Ride("h"), Trot("h"), Model(theSize=1), Box("unchecked")])
def test_an_object_is_taken_as_it_is(value: Any) -> None:
    annotation = {March: Walk, Trot: Ride, Box: Box[int]}.get(type(value), type(value))
    assert convert(value, annotation) is value


def test_a_validator_that_raises_what_it_likes_is_a_payload_error_that_names_the_field() -> None:
    class Moody(pydantic.BaseModel):
        mood: str

        @pydantic.field_validator("mood")
        @classmethod
        def check(cls, value: str) -> str:
            raise KeyError(value)

    @dataclasses.dataclass
    class Day:
        weather: str

        def __post_init__(self) -> None:
            raise LookupError(self.weather)

    with pytest.raises(PayloadError, match=r"^payload: 'bad'"):
        convert([{"mood": "bad"}], list.__class_getitem__(Moody))
    with pytest.raises(PayloadError, match=r"^payload: rain"):
        convert({"weather": "rain"}, Day)
