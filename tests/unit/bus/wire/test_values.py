"""Which values travel: the same in a process (`travel`) and over a network (`pack`, `unpack`)."""

from __future__ import annotations

import dataclasses
import enum
import math
import random
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from msgspec.msgpack import Ext

from bus.errors import DecodeError, DuplicateNameError, EncodeError
from bus.messages import ErrorInfo
from bus.wire.converter import convert
from bus.wire.known import REGISTERED, register_type
from bus.wire.packing import dumps, encode_packed, loads, pack, unpack
from bus.wire.values import MAX_DEPTH, PayloadError, travel


def over_the_wire(value: object) -> Any:
    return unpack(encode_packed(pack(value)))


class Colour(enum.Enum):
    RED = "red"


class Level(enum.StrEnum):
    LOW = "low"


class Number(enum.IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: object


class Text(str):
    __slots__ = ()


class Moment(datetime):
    pass


class Stranger(msgspec.Struct):
    name: str


@register_type
class Source(msgspec.Struct, frozen=True):
    name: str
    level: Level = Level.LOW


@register_type
class Finding(msgspec.Struct, rename="camel"):
    line_no: int
    source: Source | None = None
    notes: list[Any] = msgspec.field(default_factory=list)
    score: float = 0.0
    extra: Any = None
    maybe: int | msgspec.UnsetType = msgspec.UNSET


@register_type
class Row(msgspec.Struct, array_like=True, tag="row"):
    n: int
    items: tuple[Any, ...] = ()


@register_type
@dataclasses.dataclass
class Note:
    text: str
    when: datetime | None = None
    tags: set[str] = dataclasses.field(default_factory=set)
    length: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.length = len(self.text)


@register_type
@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    value: Any


class Item(msgspec.Struct):
    n: int


class Order(msgspec.Struct):
    items: list[Item]


class Tree(msgspec.Struct):
    child: list[Tree]


KEY_MAKERS: list[Callable[[random.Random], Any]] = [
    lambda rng: None,
    lambda rng: rng.random() < 0.5,
    lambda rng: rng.choice([0, -1, 255, 2**31, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 7**400, -(7**400)]),
    lambda rng: rng.choice([0.0, -0.0, 1.5, -1e300, math.inf, 5e-324]),
    lambda rng: "".join(rng.choice("ab é😀\0'.") for _ in range(rng.randrange(6))),
    lambda rng: rng.randbytes(rng.randrange(40)),
    lambda rng: datetime.fromtimestamp(rng.randrange(2**32), UTC).replace(microsecond=rng.randrange(10**6)),
    lambda rng: datetime(rng.randrange(1, 10000), 2, 3, 4, 5, 6, rng.randrange(10**6)),  # noqa: DTZ001 naive on purpose
    lambda rng: datetime(2020, 5, 6, tzinfo=timezone(timedelta(seconds=rng.randrange(-86399, 86400)))),
    lambda rng: date.fromordinal(rng.randrange(1, 3_000_000)),
    lambda rng: time(rng.randrange(24), 1, 2, rng.randrange(10**6), rng.choice([None, UTC])),
    lambda rng: timedelta(rng.randrange(-999, 999), rng.randrange(86400), rng.randrange(10**6)),
    lambda rng: Decimal(rng.choice(["0", "-0", "1.50", "1E+500", "-Infinity", "0.1234567890123456789012345678901234"])),
    lambda rng: UUID(int=rng.getrandbits(128)),
]


def a_leaf(rng: random.Random) -> Any:
    return rng.choice(KEY_MAKERS)(rng)


def a_key(rng: random.Random, depth: int) -> Any:
    if depth and rng.random() < 0.2:
        return tuple(a_key(rng, depth - 1) for _ in range(rng.randrange(3)))
    return a_leaf(rng)


def a_value(rng: random.Random, depth: int, leaf: Callable[[random.Random], Any] = a_leaf) -> Any:
    if not depth or rng.random() < 0.3:
        return leaf(rng)
    size = rng.randrange(4)

    def inner() -> Any:
        return a_value(rng, depth - 1, leaf)

    makers: list[Callable[[], Any]] = [
        lambda: [inner() for _ in range(size)],
        lambda: tuple(inner() for _ in range(size)),
        lambda: {f"k{n}" if n else "a b": inner() for n in range(size)},
        lambda: {"deep": inner()},
        lambda: {a_key(rng, 2): inner() for _ in range(size)},
        lambda: {a_key(rng, 2) for _ in range(size)},
        lambda: frozenset(a_key(rng, 2) for _ in range(size)),
        lambda: Finding(rng.randrange(100), Source("s"), [inner() for _ in range(size)], 0.5, inner()),
        lambda: Row(size, tuple(inner() for _ in range(size))),
        lambda: Note("n" * size, tags={"a", "b"}),
    ]
    return rng.choice(makers)()


def the_same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(the_same(*keys) and the_same(one[keys[0]], other[keys[1]]) for keys in zip(one, other, strict=True))
    if isinstance(one, list | tuple):
        return all(map(the_same, one, other))
    if isinstance(one, set | frozenset):
        return Counter(map(type, one)) == Counter(map(type, other))
    names: Any = getattr(one, "__struct_fields__", None) or getattr(one, "__dataclass_fields__", None)
    if names is not None:
        return all(the_same(getattr(one, name), getattr(other, name)) for name in names)
    return str(one) == str(other)  # tells 0.0 from -0.0 and 1.5 from 1.50


def test_g41_what_goes_in_comes_out_equal_and_of_the_same_types() -> None:
    rng = random.Random(41)
    for _ in range(6000):
        value = a_value(rng, rng.randrange(6))
        assert the_same(value, travel(value)), value
        assert the_same(value, over_the_wire(value)), value


RELEASED: list[tuple[Any, str]] = [
    (None, "c0"),
    (True, "c3"),
    (0, "00"),
    (-(2**63), "d38000000000000000"),
    (
        1606938044258990275541962092341162602522202993782792835301376,
        "c71a010100000000000000000000000000000000000000000000000000",
    ),
    (-(2**100), "c70d01f0000000000000000000000000"),
    (1.5, "cb3ff8000000000000"),
    (math.inf, "cb7ff0000000000000"),
    ("", "a0"),
    ("é\x00", "a3c3a900"),
    (b"", "c400"),
    (b"\xff", "c401ff"),
    ([], "90"),
    ({}, "80"),
    ({"n": [{"d": [1, [2]]}]}, "81a16e9181a16492019102"),
    ({1: "i", (1, 2): "t", None: "n", b"b": 1}, "c713059801a169c70302920102a174c0a16ec4016201"),
    ((), "d40290"),
    ((1, (2,), [3]), "d7029301d50291029103"),
    ({1, 2}, "c70303920102"),
    (frozenset({(1, 2)}), "c7070491c70302920102"),
    (
        datetime(2026, 11, 20, 6, 30, 0, 5, tzinfo=UTC),
        "c7240692d920323032362d31312d32305430363a33303a30302e3030303030352b30303a303000",
    ),
    (datetime(2026, 11, 20, 6, 30, fold=1), "c7160692b3323032362d31312d32305430363a33303a303001"),  # noqa: DTZ001
    (
        datetime(2026, 1, 1, 0, 0, tzinfo=timezone(timedelta(hours=-3.5))),
        "c71c0692b9323032362d30312d30315430303a30303a30302d30333a333000",
    ),
    (date(2026, 2, 28), "c70b07aa323032362d30322d3238"),
    (time(23, 59, 59, 999999, fold=1), "c7120892af32333a35393a35392e39393939393901"),
    (timedelta(days=-1, microseconds=1), "d60993ff0001"),
    (Decimal("1.10"), "c7050aa4312e3130"),
    (Decimal("Infinity"), "c7090aa8496e66696e697479"),
    (UUID("00000000-0000-0000-0000-000000000005"), "d80b00000000000000000000000000000005"),
]
"""Values, and what version 0.1 wrote for them."""


@pytest.mark.parametrize(("value", "released"), RELEASED, ids=[str(n) for n in range(len(RELEASED))])
def test_what_is_written_is_what_older_processes_read_and_write(value: Any, released: str) -> None:
    assert dumps(value).hex() == released
    assert the_same(loads(bytes.fromhex(released)), value)


def test_an_object_of_an_older_process_is_validated() -> None:
    def older(tag: str, fields: dict[str, Any]) -> bytes:
        return encode_packed(Ext(12, encode_packed([tag, fields])))

    register_type(Note, tag="a note")
    assert loads(older("a note", {"text": "a"})) == Note("a")
    assert loads(older("a note", {"text": "a", "more": 1})) == {"text": "a", "more": 1}
    told = {"type": "A", "message": "b", "traceback": "c", "retryable": True}
    assert loads(older("ErrorInfo", told)) == ErrorInfo("A", "b", "c", retryable=True)


def test_g41_what_cannot_travel_is_refused_at_the_same_path_in_process_and_on_the_wire() -> None:
    rng = random.Random(13)
    bad: list[Any] = [
        bytearray(b"x"),
        object(),
        Ticket(len),
        Point(1, object()),
        "\ud800",
        len,
        int,
        1j,
        range(3),
        float,
    ]
    refused = 0
    for _ in range(4000):
        value = a_value(rng, rng.randrange(1, 5), lambda rng: rng.choice(bad) if rng.random() < 0.2 else a_leaf(rng))
        outcomes = []
        for way in (travel, over_the_wire):
            try:
                outcomes.append(way(value))
            except EncodeError as error:
                outcomes.append(str(error))
        assert the_same(*outcomes)
        if isinstance(outcomes[0], str) and outcomes[0].startswith("payload"):
            refused += 1
    assert refused > 500


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (Text("é"), "é"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Moment(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)),
        ({Text("k"): 1}, {"k": 1}),
        ([Text("plain")], ["plain"]),
    ],
)
def test_g41_a_subclass_that_equals_its_base_travels_as_the_base(value: object, base: object) -> None:
    assert the_same(travel(value), base)
    assert the_same(over_the_wire(value), base)


def test_a_subclass_that_does_not_equal_its_base_is_refused() -> None:
    class Odd(int):
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    class Broken(dict):  # type: ignore[type-arg]
        def __iter__(self) -> Any:  # makes dict() ask for the keys
            raise OSError

        keys = __iter__

    with pytest.raises(EncodeError, match="Odd' does not equal its int"):
        travel(Odd(3))
    with pytest.raises(EncodeError, match="Broken' cannot be read as its dict"):
        travel(Broken(a=1))


def test_not_a_number_travels() -> None:
    for way in (travel, over_the_wire):
        assert math.isnan(way(math.nan))
        assert way(Decimal("NaN")).is_nan()
        assert way(Decimal("sNaN")).is_snan()
        assert math.isnan(way(Finding(1, score=math.nan, notes=[math.nan])).notes[0])


def test_g41_a_zone_travels_as_its_offset() -> None:
    rome = ZoneInfo("Europe/Rome")
    summer = datetime(2024, 7, 1, 12, tzinfo=rome)
    twice = datetime(2024, 10, 27, 2, 30, tzinfo=rome, fold=1)
    for way in (travel, over_the_wire):
        assert way(summer) == summer
        assert the_same(way(summer), datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=2))))
        assert way(twice).astimezone(UTC) == twice.astimezone(UTC)
        assert way(twice).fold == 1
        assert way(time(1, 2, tzinfo=rome)) == time(1, 2)


def test_a_zone_that_fails_is_refused() -> None:
    class Nowhere(tzinfo):
        def utcoffset(self, _: object) -> timedelta:
            raise LookupError

        dst = utcoffset

        def tzname(self, _: object) -> str:
            return "nowhere"

    with pytest.raises(EncodeError, match=r"payload\.when .*'Nowhere' gives no offset"):
        travel({"when": datetime(2020, 1, 1, tzinfo=Nowhere())})


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"items": [1, 2, 3, {"when": object()}]}, "payload.items[3].when", "a dataclass or a model"),
        ({"a b": bytearray()}, "payload['a b']", "send bytes"),
        ({1: {2: object()}}, "payload[1][2]", "not among the types that travel"),
        ({(1, len): 1}, "payload.keys()[1]", "builtin_function_or_method"),
        ({"tags": {1, len}}, "payload.tags{...}", "builtin_function_or_method"),
        (({"x": {Stranger}},), "payload[0].x{...}", "StructMeta"),
        (Finding(1, notes=[{"x": len}]), "payload.notes[0].x", "builtin_function_or_method"),
        (Row(1, (1, len)), "payload.items[1]", "builtin_function_or_method"),
        ([Stranger(len)], "payload[0].name", "builtin_function_or_method"),  # type: ignore[arg-type]
        ([Point(1, {len: 1})], "payload[0][1].keys()", "builtin_function_or_method"),
        ({"\ud800": 1}, "payload.keys()", "lone surrogate at index 0"),
        (["ok", "é\udfff"], "payload[1]", "lone surrogate at index 1"),
        ({"x" * 100: {"y y" * 100: len}}, f"payload.{'x' * 100}['{'y y' * 18}yy...]", "builtin_function"),
    ],
)
def test_g13_a_refused_value_is_named_by_its_path_and_a_way_out(value: object, path: str, reason: str) -> None:
    for way in (travel, pack):
        with pytest.raises(EncodeError) as caught:
            way(value)
        assert caught.value.path.startswith(path[:80])
        assert len(path) > 80 or caught.value.path == path
        assert reason in caught.value.reason


def test_the_caller_says_what_the_value_is_called() -> None:
    with pytest.raises(EncodeError, match=r"response\.x cannot travel"):
        travel({"x": len}, "response")


def test_g13_a_value_nested_too_deeply_or_in_itself_is_refused_without_a_recursion_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    looped: dict[str, Any] = {}
    looped["self"] = {"again": (looped,)}
    struct = Finding(1)
    struct.extra = struct
    deepest: Any = 1
    for _ in range(MAX_DEPTH):
        deepest = [deepest]
    for way in (travel, over_the_wire):
        assert way(deepest) == deepest
        for value in (endless, looped, struct, [deepest], {"a": (deepest,)}, OrderedDict(a=looped)):
            with pytest.raises(EncodeError, match="deeper than 100 levels, or contains itself") as caught:
                way(value)
            assert caught.value.path.endswith("...")

    def near_the_end_of_the_stack(more: int) -> object:
        return travel(deepest) if not more else near_the_end_of_the_stack(more - 1)

    with pytest.raises((EncodeError, RecursionError)) as at_the_end:
        near_the_end_of_the_stack(10_000)
    with pytest.raises(EncodeError, match="left of the stack"):
        near_the_end_of_the_stack(len(at_the_end.traceback) - 60)


def test_g41_a_payload_is_isolated_from_what_its_sender_does_later() -> None:
    inner: list[Any] = [1]
    finding = Finding(1, notes=[inner], extra={"x": inner})
    flat = {"x": 1}
    sent: dict[str, Any] = {"a": inner, "t": (inner,), "s": {1}, "f": finding}
    arrived, arrived_flat = travel(sent), travel(flat)
    before = repr(arrived)
    inner.append(2)
    sent["a"] = None
    sent["s"].add(2)
    finding.line_no = 7
    flat["x"] = 2
    assert repr(arrived) == before
    assert arrived_flat == {"x": 1}


def test_what_cannot_change_is_shared() -> None:
    for value in (Source("a"), (1, "a"), frozenset({1}), Ticket((1, None))):
        assert travel(value) is value
    assert travel(Ticket([1])).value == [1]


def test_an_object_without_equality_travels() -> None:
    for way in (travel, over_the_wire):
        assert way([Ticket({"a": Ticket(5)})])[0].value["a"].value == 5


@pytest.mark.parametrize(
    "value",
    [
        Finding("1"),  # type: ignore[arg-type]
        Source("a", "high"),  # type: ignore[arg-type]
        Finding(1, notes=(1,)),  # type: ignore[arg-type]
        Finding(1, score=2**53 + 1),
        Finding(1, source={"name": "a"}),  # type: ignore[arg-type]
    ],
)
def test_g41_an_object_whose_fields_belie_its_annotations_comes_out_as_it_is(value: object) -> None:
    for way in (travel, over_the_wire):
        assert the_same(way({"x": value}), {"x": value})


def test_a_class_has_one_tag_at_a_time_and_a_tag_that_is_given_is_nobody_elses() -> None:
    @register_type
    class Local(msgspec.Struct):
        n: int

    assert over_the_wire(Local(1)) == Local(1)
    register_type(Local, tag="a tag of its own")
    assert over_the_wire(Local(1)) == Local(1)
    assert not [each for each in REGISTERED.by_tag[f"{Local.__module__}:{Local.__qualname__}"] if each.cls is Local]
    with pytest.raises(DuplicateNameError, match=r"already taken by .*Local"):
        register_type(Stranger, tag="a tag of its own")
    assert over_the_wire(Stranger("s")) == Stranger("s")


@pytest.mark.parametrize("thing", [int, len, list[int], 5, "text", object])
def test_only_classes_whose_objects_can_be_taken_apart_can_be_registered(thing: Any) -> None:
    with pytest.raises(TypeError, match="cannot be registered"):
        register_type(thing)


def test_g49_an_unknown_tag_is_plain_data_and_nothing_is_imported_for_it() -> None:
    @register_type
    class Known(msgspec.Struct):
        n: int

    data = encode_packed(pack([Known(1)]))
    for tag in (b"os:system", b"antigravity:geohash"):
        old = f"{Known.__module__}:{Known.__qualname__}".encode()
        forged = data.replace(b"\xd9" + bytes([len(old)]) + old, bytes([0xA0 + len(tag)]) + tag)
        forged = forged[:2] + bytes([forged[2] - len(old) + len(tag) - 1]) + forged[3:]
        assert unpack(forged) == [{"n": 1}]


def test_g49_an_object_that_does_not_fit_its_class_is_plain_data() -> None:
    data = encode_packed(pack(Source("abc")))
    assert b"\xa4name" in data
    assert unpack(data.replace(b"\xa4name", b"\xa4nome")) == {"nome": "abc", "level": "low"}


def test_any_bytes_are_a_value_or_a_decode_error() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        value = a_value(rng, 3)
        data = bytearray(encode_packed(pack(value)))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with suppress(DecodeError):
            unpack(bytes(data))


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        ({"lineNo": 3}, Finding, Finding(3)),
        ({"text": "a"}, Note, Note("a")),
        ({"a": 1}, dict[str, int], {"a": 1}),
        ([{"name": "a"}], list[Source], [Source("a")]),
        (None, Finding | None, None),
        (None, Any, None),
        (5, int, 5),
        (5, object, 5),
    ],
)
def test_a_payload_becomes_what_the_annotation_asks_for(value: object, type_: Any, expected: object) -> None:
    assert convert(value, type_) == expected


def test_a_payload_that_is_of_its_type_already_is_the_same_object() -> None:
    finding = Finding(1)
    assert convert(finding, Finding) is finding


@pytest.mark.parametrize(
    ("value", "type_", "text"),
    [
        (
            {"items": [1, 2, 3, {"n": "x"}]},
            dict[str, list[int | dict[str, int]]],
            "payload[...][3][...]: expected int, got str",
        ),
        ({"lineNo": 1, "source": {"name": 1}}, Finding, "payload.source.name: expected str, got int"),
        ({}, Finding, "payload: missing required field lineNo"),
        (None, Finding, "payload: expected a dict, got None"),
        ("3", int, "payload: expected int, got str"),
        ({1: 1}, dict[str, int], "payload.keys(): expected str, got int"),
    ],
)
def test_a_payload_that_does_not_fit_names_the_field(value: object, type_: Any, text: str) -> None:
    with pytest.raises(PayloadError) as caught:
        convert(value, type_)
    assert str(caught.value) == text
    assert isinstance(caught.value, ValueError)


def test_a_payload_error_names_the_item() -> None:
    with pytest.raises(PayloadError, match=r"^payload\.items\[3\]\.n: expected int, got str$") as caught:
        convert({"items": [{"n": 1}] * 3 + [{"n": "x"}]}, Order)
    assert (caught.value.path, caught.value.reason) == ("payload.items[3].n", "expected int, got str")


def test_a_payload_without_end_is_a_payload_error() -> None:
    endless: dict[str, Any] = {}
    endless["child"] = [endless]
    with pytest.raises(PayloadError, match="payload: it is nested too deeply, or contains itself"):
        convert(endless, Tree)


def test_g41_pydantic_models_travel() -> None:
    models: Any = pytest.importorskip("pydantic")
    inner_cls: Any = register_type(models.create_model("Inner", n=int))
    outer_cls: Any = register_type(
        models.create_model(
            "Outer",
            __config__={"extra": "allow"},
            inner=inner_cls,
            level=(Level, Level.LOW),
            named=(int, models.Field(default=1, alias="alsoNamed")),
        )
    )
    value = {"o": [outer_cls(inner=inner_cls(n=1), alsoNamed=5, other=(1, 2))]}
    for way in (travel, over_the_wire):
        arrived = way(value)
        assert arrived == value
        assert arrived["o"][0] is not value["o"][0]
        assert arrived["o"][0].other == (1, 2)
    assert convert({"inner": {"n": 1}, "alsoNamed": 2}, outer_cls).named == 2
    many: Any = list.__class_getitem__(inner_cls)
    assert convert([{"n": 1}], many) == [inner_cls(n=1)]
    with pytest.raises(PayloadError, match=r"^payload\.inner\.n: .*valid integer"):
        convert({"inner": {"n": "x"}}, outer_cls)
    with pytest.raises(PayloadError, match=r"^payload\[1\]\.n: .*valid integer"):
        convert([{"n": 1}, {"n": "x"}], many)
