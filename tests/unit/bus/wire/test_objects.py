"""Objects of users' classes: copied and carried without running their code, and without losing anything."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from bus import EncodeError, dumps, loads, register_type, travel
from bus.wire.known import REGISTERED, know
from bus.wire.packing import encode_packed, pack, unpack
from bus.wire.values import plain

if TYPE_CHECKING:
    from nowhere import Unseen  # type: ignore[import-not-found]

T = TypeVar("T")

CALLS: list[str] = []
"""The code of users that ran."""


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def over_the_wire(value: object) -> Any:
    return unpack(encode_packed(pack(value)))


def forgotten(value: object, monkeypatch: pytest.MonkeyPatch, *classes: type) -> Any:
    """What comes out in a process that does not know the classes."""
    data = dumps(value)
    with monkeypatch.context() as patch:
        for cls in classes:
            patch.delitem(REGISTERED.by_tag, REGISTERED.by_class[cls].tag)
        return loads(data)


WAYS: list[Callable[[Any], Any]] = [travel, over_the_wire]


class Colour(enum.Enum):
    RED = (1, "red")
    GREEN = frozenset({1})


class Way(enum.StrEnum):
    UP = "up"


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Operation(enum.Enum):
    ADD = len
    VALUE = 3


class Spot(NamedTuple):
    x: int
    note: Any = None


class Scaled(pydantic.BaseModel):
    cents: Annotated[int, pydantic.AfterValidator(lambda euros: euros * 100)]

    @pydantic.model_validator(mode="after")
    def _called(self) -> Scaled:
        CALLS.append("validator")
        return self

    def model_post_init(self, context: object, /) -> None:
        CALLS.append("post_init")


class Kept(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str = pydantic.Field(default="n", alias="theName")
    where: Path | None = None
    _secret: list[int] = pydantic.PrivateAttr(default_factory=list)
    _later: int = pydantic.PrivateAttr()

    @cached_property
    def length(self) -> int:
        return len(self.name)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.name.upper()


class Choice(pydantic.BaseModel):
    query: str = pydantic.Field(validation_alias=pydantic.AliasChoices("q", "query_text"))
    deep: int = pydantic.Field(default=0, validation_alias=pydantic.AliasPath("a", 0))


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Stone(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, arbitrary_types_allowed=True)
    weight: int
    names: tuple[str, ...] = ()
    sizes: pydantic.ByteSize | None = None


class Box(pydantic.BaseModel, Generic[T]):
    content: T


@dataclasses.dataclass
class Counter:
    start: int
    seen: list[int] = dataclasses.field(default_factory=list, init=False, compare=False)

    def __post_init__(self) -> None:
        CALLS.append("post_init")
        self.start += 1
        self._hidden = [self.start]

    @cached_property
    def double(self) -> object:
        return object()


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    items: list[Any]
    size: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class Pair(Generic[T]):
    one: T
    two: T | None = None


@attrs.define
class Attribute:
    _private: int
    items: list[Any] = attrs.field(factory=list, validator=lambda *_: CALLS.append("validator"))


@attrs.frozen
class Fixed:
    value: Any


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    the_name: str
    inner: Strict | None = None

    def __post_init__(self) -> None:
        CALLS.append("post_init")


class Wide(msgspec.Struct, dict=True, frozen=True):
    n: int


class Containers(pydantic.BaseModel):
    recent: collections.deque[Any] = collections.deque(maxlen=2)
    ordered: collections.OrderedDict[str, Any] = collections.OrderedDict()
    counted: collections.Counter[str] = collections.Counter("aab")
    grouped: collections.defaultdict[str, list[Any]] = collections.defaultdict(list)


class Node(pydantic.BaseModel):
    value: Any = None
    children: list[Node] = []


class Secrets(pydantic.BaseModel):
    token: pydantic.SecretStr
    raw: pydantic.SecretBytes
    url: pydantic.HttpUrl
    base: pydantic.PostgresDsn
    host: ipaddress.IPv4Address


def kept() -> Kept:
    value = Kept(theName="x", other={"a": (1,)})  # type: ignore[call-arg]
    value._secret.append(1)
    assert value.length == 1
    return value


def wide() -> Wide:
    value = Wide(1)
    value.__dict__["more"] = [1]
    return value


VALUES: list[Any] = [
    *Colour,
    *Way,
    *Operation,
    Right.READ | Right.WRITE,
    Right(0),
    {Way.UP: {Colour.RED, Colour.GREEN}},
    Spot(1, [Spot(2)]),
    Scaled(cents=2),
    kept(),
    Kept(),
    Kept(where=Path("a")),
    Kept.model_construct(name=[1, "lies"]),
    Choice(q="x"),  # type: ignore[call-arg]
    Numbers([1, 2]),
    Box[Numbers](content=Numbers([3])),
    Box[int | Spot](content=Spot(1)),
    Stone(weight=1, names=("a",)),
    Stone(weight=1, sizes="1KiB"),  # type: ignore[arg-type]
    {Stone(weight=1): "hashable"},
    Counter(1),
    Slotted([1, {2}], 5),
    Pair[int](1),
    Pair(Pair(1), Pair(2)),
    Attribute(1, [Way.UP]),
    {Fixed(1)},
    Fixed([1]),
    Strict("a", Strict("b")),
    wide(),
    Containers(),
    Containers(
        recent=collections.deque([1, Spot(1)], 5),
        ordered=collections.OrderedDict(b=Way.UP, a=1),
        grouped=collections.defaultdict(list, a=[Spot(1)]),
    ),
    collections.deque([{1}]),
    Node(value=Node(value=1), children=[Node(children=[Node()])]),
    Secrets.model_validate(
        {"token": "t", "raw": b"r", "url": "http://a.b/c?d", "base": "postgres://u:p@h/d", "host": "1.2.3.4"}
    ),
    [Path("a/b"), PurePosixPath("/c"), PureWindowsPath("d:/e"), ipaddress.ip_network("10.0.0.0/8")],
]

CALLS.clear()


def parts(value: Any) -> dict[str, Any]:
    """All that an object holds, whatever way it holds it."""
    if isinstance(value, pydantic.BaseModel):
        return {
            "fields": {name: getattr(value, name) for name in type(value).model_fields},
            "set": value.model_fields_set,
            "extra": value.__pydantic_extra__,
            "private": value.__pydantic_private__,
        }
    names = [name for base in type(value).__mro__ for name in vars(base).get("__slots__", ()) if name[:2] != "__"]
    names += getattr(value, "__struct_fields__", ())
    held = {name: getattr(value, name) for name in names if hasattr(value, name)}
    held |= {name: each for name, each in getattr(value, "__dict__", {}).items() if name != "__orig_class__"}
    return {} if isinstance(value, enum.Enum | Path) else held


def the_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(map(the_same, one.items(), other.items()))
    if isinstance(one, list | tuple):
        return all(map(the_same, one, other))
    return not isinstance(one, pydantic.BaseModel) or all(map(the_same, parts(one).values(), parts(other).values()))


@pytest.mark.parametrize("value", VALUES, ids=[f"{n}-{type(value).__name__}" for n, value in enumerate(VALUES)])
def test_g41_an_object_comes_out_as_it_was_and_no_code_of_its_class_runs(value: Any) -> None:
    for way in WAYS:
        came = way([value])[0]
        assert the_same(came, value)
        held = parts(value)
        held.pop("double", None)
        assert parts(came) == held
    assert CALLS == []


@pytest.mark.parametrize(
    "value", [Counter(1), Slotted([1]), Pair([1]), Attribute(1), Node(), kept(), Numbers([1]), wide()]
)
def test_g41_an_object_is_apart_from_the_one_that_was_sent(value: Any) -> None:
    for way in WAYS:
        assert way(value) is not value
    before = repr(value)
    came = travel(value)
    for held in (parts(came).get("fields", {}), parts(came), parts(came).get("private") or {}):
        for item in held.values():
            if isinstance(item, list):
                item.append("changed")
    assert repr(value) == before
    assert the_same(travel(value), value)


def test_g41_containers_in_an_object_stay_what_they_are() -> None:
    sent = Containers(recent=collections.deque([[1]], 3), grouped=collections.defaultdict(list, a=[[1]]))
    for way in WAYS:
        came = way(sent)
        assert came == sent
        assert came.recent.maxlen == 3
        assert came.recent[0] is not sent.recent[0]
        assert came.grouped["new"] == []
        assert came.counted.most_common(1) == [("a", 2)]
        assert type(came.ordered) is collections.OrderedDict
        assert way(Pair(collections.defaultdict(lambda: 1, a=2))) == Pair({"a": 2})
    assert sent.grouped == {"a": [[1]]}


def test_what_cannot_change_is_shared() -> None:
    for value in (Stone(weight=1), Colour.RED, Path("a"), Spot(1), pydantic.SecretStr("x"), (Stone(weight=2), Way.UP)):
        assert travel(value) is value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Counter(1), r"payload\._hidden"),
        (Kept(x=object()), r"payload\.x"),  # type: ignore[call-arg]
        (Spot(1, object()), r"payload\[1\]"),
        (Fixed([object()]), r"payload\.value\[0\]"),
        (Numbers.model_construct([len]), r"payload\.root\[0\]"),  # type: ignore[list-item]
    ],
)
def test_g13_what_an_object_holds_and_cannot_travel_is_named(value: Any, path: str) -> None:
    if isinstance(value, Counter):
        value._hidden = object()  # type: ignore[assignment]
    for way in WAYS:
        with pytest.raises(EncodeError, match=f"^{path} cannot travel"):
            way(value)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (kept(), {"theName": "x", "where": None, "other": {"a": (1,)}}),
        (Numbers([1]), [1]),
        (Box[Numbers](content=Numbers([3])), {"content": [3]}),
        (Strict("a", Strict("b")), {"theName": "a", "inner": {"theName": "b", "inner": None}}),
        (Pair(Spot(1), Way.UP), {"one": (1, None), "two": "up"}),
        (Choice(q="x"), {"q": "x", "deep": 0}),  # type: ignore[call-arg]
        ({Stone(weight=1): Way.UP}, [[{"weight": 1, "names": (), "sizes": None}, "up"]]),
        ({Fixed(1)}, [{"value": 1}]),
        (Colour.RED, (1, "red")),
        (Right.WRITE, 2),
        (Operation.ADD, "ADD"),
        (pydantic.SecretStr("x"), "x"),
    ],
)
def test_g49_an_unknown_object_is_plain_data(value: Any, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = (Kept, Numbers, Box[Numbers], Strict, Pair, Spot, Way, Choice, Stone, Fixed, Colour, Right, Operation)
    for cls in (*classes, pydantic.SecretStr):
        know(cls)
    assert forgotten(value, monkeypatch, *classes, pydantic.SecretStr) == data
    assert plain(value) == data
    assert type(plain(value)) is type(data)


def make_args(**fields: Any) -> Any:
    return pydantic.create_model("Args", **fields)


def test_g49_classes_of_one_name_do_not_disturb_each_other() -> None:
    search, add, other = make_args(query=(str, ...)), make_args(a=(int, ...), b=(int, 0)), make_args(query=(int, 0))
    for cls in (search, add, other):
        know(cls)
    values = [search(query="x"), add(a=1), other(query=1), add(a=1, b=2)]
    for way in WAYS:
        assert [type(each) for each in way(values)] == [search, add, other, add]
        assert way(values) == values


def test_g49_a_class_that_is_defined_otherwise_here_is_validated_or_stays_plain_data() -> None:
    def define(**fields: Any) -> Any:
        return msgspec.defstruct("Changing", [(name, *what) for name, what in fields.items()], module=__name__)

    here = define(a=(int,), b=(int, 5))
    know(here)
    for there, came in (
        (define(a=(int,)), here(1, 5)),
        (define(a=(str,)), {"a": "1"}),
        (define(a=(int,), c=(int,)), {"a": 1, "c": 1}),
    ):
        kind = there.__annotations__["a"]
        data = dumps(there(**{name: kind(1) for name in there.__struct_fields__}))
        REGISTERED.by_tag[REGISTERED.by_class[there].tag].remove(REGISTERED.by_class.pop(there))
        assert loads(data) == came


def test_g49_an_enum_of_that_name_with_other_members_is_its_value() -> None:
    def define(**members: Any) -> Any:
        return enum.Enum("Mode", members, module=__name__, qualname="Mode")

    there, here = define(FAST="fast", SLOW=1), define(FAST="quick", SLOW=1)
    know(here)
    data = dumps([there.FAST, there.SLOW])
    REGISTERED.by_tag[f"{__name__}:Mode"] = [REGISTERED.by_class[here]]
    assert loads(data) == ["fast", here.SLOW]


Id = NewType("Id", Spot)


class Leaf(pydantic.BaseModel):
    n: int


class Branch(msgspec.Struct):
    leaf: Leaf
    unseen: list[Unseen] | None = None
    named: Literal[Way.UP] | None = None


@dataclasses.dataclass
class Tree:
    branches: dict[str, tuple[Branch, ...]]
    root: Tree | None = None
    spot: Id | None = None


@pytest.mark.parametrize(
    "annotation",
    [
        Tree,
        list[Tree],
        Tree | None,
        "dict[str, Tree]",
        Annotated[Tree, "x"],
        Callable[[Tree], int],
        type[Tree],
        Pair[Tree],
    ],
)
def test_g49_what_an_annotation_names_is_known_with_all_that_its_fields_name(
    annotation: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = (Tree, Branch, Leaf, Way, Spot)
    value = Tree({"a": (Branch(Leaf(n=1), named=Way.UP),)}, Tree({}), Id(Spot(1)))
    data = dumps(value)
    for cls in classes:
        monkeypatch.delitem(REGISTERED.by_tag, REGISTERED.by_class[cls].tag)
        monkeypatch.delitem(REGISTERED.by_class, cls)
    assert loads(data) == plain(value)
    for cls in classes:
        REGISTERED.by_tag.pop(REGISTERED.by_class.pop(cls).tag)
    know(annotation, globals())
    assert the_same(loads(data), value)


def test_g49_a_local_class_is_known_by_the_names_around_it() -> None:
    @dataclasses.dataclass
    class Inner:
        n: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    know("Outer", locals())
    assert {Inner, Outer} <= REGISTERED.by_class.keys()


def test_register_type_names_what_its_fields_name() -> None:
    class Part(msgspec.Struct):
        n: int

    @register_type
    class Whole(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        parts: list[Part]

    assert Part in REGISTERED.by_class
    assert over_the_wire(Whole(parts=[])) == Whole(parts=[])
