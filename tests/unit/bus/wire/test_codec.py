"""Frames: messages as bytes, and what becomes of bytes from anybody."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from bus import messages
from bus.errors import DecodeError, DuplicateNameError, EncodeError
from bus.messages import (
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusDataMessage,
    BusEndMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobUpdateMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    BusTopicMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    ErrorInfo,
    JobStatus,
    WorkerRegistryEntry,
)
from bus.wire.codec import MAX_MESSAGE_BYTES, VERSION, Header, decode, decode_header, encode, register_message
from bus.wire.signing import Signer

ORIGIN = "runner#1a"


@register_message
class Noted(BusDataMessage, kw_only=True):
    job_id: int
    tags: set[str] = msgspec.field(default_factory=set)
    note: Any = None
    status: JobStatus = JobStatus.FAILED


@register_message
@dataclass
class Alarm(BusSystemMessage):
    level: int = 0
    causes: list[ErrorInfo] = field(default_factory=list)


@register_message
class Traced(BusJobUpdateMessage, kw_only=True):
    extra: tuple[int, ...] = ()


REQUEST = BusJobRequestMessage(
    source="client",
    target="worker",
    destination="other#2",
    job_id="j-1",
    job_name="research",
    payload={"q": "hello", "n": 3, "when": (1, {2}, 2**70)},
    timeout=2.5,
    window=7,
    attempt=3,
    lineage=("j-0", "j-00"),
    trace="00-abc",
)

MESSAGES: list[BusMessage] = [
    REQUEST,
    BusJobRequestMessage(source="a", job_id="j"),
    BusJobResponseMessage(source="w", target="c", job_id="j", sequence=9, status=JobStatus.COMPLETED, response=(1, 2)),
    BusJobResponseUrgentMessage(
        source="w", job_id="j", status=JobStatus.ERROR, error=ErrorInfo("E", "m", retryable=True)
    ),
    BusJobUpdateMessage(source="w", job_id="j", sequence=1, update=[b"x", None]),
    BusJobStreamDataMessage(source="w", job_id="j", sequence=2, data="chunk", attempt=2),
    BusJobCancelMessage(source="c", target="w", job_id="j", reason="enough"),
    BusActivateWorkerMessage(source="c", target="w", args={"t": (1,)}),
    BusActivateWorkerMessage(source="c", target="w"),
    BusEndMessage(source="r", session="s"),
    BusWorkerReadyMessage(source="w", worker_name="w", runner="r", started_at=1.5, version=4, topics=("news",)),
    BusWorkerRegistryMessage(
        source="r", runner="r", workers=[WorkerRegistryEntry("w", "p", active=True, topics=("a", "b"))], version=2
    ),
    BusTopicMessage(source="w", topic="news", data={1: "x"}),
    Noted(source="a", job_id=5, tags={"x", "y"}, note={"deep": [(1,)]}),
    Alarm(source="a", level=2, causes=[ErrorInfo("E", "m")]),
    Traced(source="w", job_id="j", sequence=3, update={1}, extra=(1, 2)),
]


def over_the_wire(message: BusMessage, **options: Any) -> BusMessage:
    return decode(*decode_header(encode(message, id="f1", origin=ORIGIN, **options)))


@pytest.mark.parametrize("message", MESSAGES, ids=[f"{type(m).__name__}{n}" for n, m in enumerate(MESSAGES)])
def test_g41_a_message_arrives_equal_and_says_where_it_came_from(message: BusMessage) -> None:
    arrived = over_the_wire(message)
    assert type(arrived) is type(message)
    assert arrived == msgspec.structs.replace(message, origin=ORIGIN)


def test_every_type_of_the_bus_has_a_frame_unless_it_is_local() -> None:
    for cls in vars(messages).values():
        if isinstance(cls, type) and issubclass(cls, BusMessage) and cls.__name__.endswith("Message"):
            if cls.__name__.startswith("_") or issubclass(cls, BusLocalMessage):
                continue
            wanted = {"runner", "job_id", "error", "topic", "worker_name"} & set(cls.__struct_fields__)
            values: dict[str, Any] = dict.fromkeys(wanted, "x")
            if "status" in cls.__struct_fields__:
                values = {"job_id": "x", "status": JobStatus.FAILED}
            if "workers" in cls.__struct_fields__:
                values["workers"] = []
            if "chunks" in cls.__struct_fields__:
                values["chunks"] = []
            if "limit" in cls.__struct_fields__:
                values["limit"] = 3
            message = cls(source="a", **values)
            assert over_the_wire(message) == msgspec.structs.replace(message, origin=ORIGIN)


def test_the_header_is_read_without_the_body() -> None:
    header, body = decode_header(encode(REQUEST, id="f1", origin=ORIGIN))
    assert header == Header(
        "BusJobRequestMessage", "f1", "client", "worker", ORIGIN, "other#2", "j-1", 3, 0, 2.5, "00-abc", ""
    )
    frame = encode(REQUEST, id="f1", origin=ORIGIN)
    assert frame[0] == VERSION
    broken = frame[: -len(body)] + b"\xc1" * len(body)
    assert decode_header(broken)[0] == header
    with pytest.raises(DecodeError):
        decode(*decode_header(broken))


def test_a_deadline_that_has_passed_is_sent_as_no_time_left() -> None:
    late = BusJobRequestMessage(source="a", job_id="j", timeout=-1.5)
    arrived = over_the_wire(late)
    assert isinstance(arrived, BusJobRequestMessage)
    assert arrived.timeout == 0.0


def test_equal_messages_give_equal_frames() -> None:
    one, other = (
        Noted(source="a", job_id=1, tags=set(order), note=frozenset(order)) for order in ("abcdefgh", "hgfedcba")
    )
    assert encode(one, id="f", origin=ORIGIN) == encode(other, id="f", origin=ORIGIN)


def test_g13_a_value_that_cannot_travel_is_named_by_its_path() -> None:
    for message, path in (
        (BusJobRequestMessage(source="a", job_id="j", payload={"items": [{"when": len}]}), "payload.items[0].when"),
        (BusJobResponseMessage(source="a", job_id="j", status=JobStatus.COMPLETED, response=[len]), "response[0]"),
        (BusActivateWorkerMessage(source="a", args={"x": len}), "args.x"),
        (Noted(source="a", job_id=1, note=[len]), "Noted.note[0]"),
        (Noted(source="a", job_id="x"), "Noted.job_id"),  # type: ignore[arg-type]
        (BusEndMessage(source="a", session="\ud800"), "BusEndMessage"),
    ):
        with pytest.raises(EncodeError) as caught:
            encode(message, id="f", origin=ORIGIN)
        assert caught.value.path == path


def test_a_local_message_never_becomes_a_frame() -> None:
    for message in (BusAddWorkerMessage(source="a", worker=5), BusWorkerLocalErrorMessage(source="a", error="e")):
        with pytest.raises(EncodeError, match="never leaves its process"):
            encode(message, id="f", origin=ORIGIN)
    with pytest.raises(TypeError, match="never leaves its process"):

        @register_message
        class Near(BusDataMessage, BusLocalMessage):
            pass


def test_a_type_of_message_must_be_registered_on_both_sides() -> None:
    class Unknown(BusDataMessage):
        pass

    with pytest.raises(EncodeError, match=r"call bus.register_message"):
        encode(Unknown(source="a"), id="f", origin=ORIGIN)
    header, body = decode_header(encode(Noted(source="a", job_id=1), id="f", origin=ORIGIN))
    with pytest.raises(DecodeError, match=r"'os:system' is unknown here: call bus.register_message"):
        decode(msgspec.structs.replace(header, type="os:system"), body)
    with pytest.raises(DecodeError, match="a BusTopicMessage does not fit its class: missing required field topic"):
        decode(msgspec.structs.replace(header, type="BusTopicMessage"), body)


def test_a_tag_belongs_to_one_class() -> None:
    class Thief(BusDataMessage):
        pass

    with pytest.raises(DuplicateNameError, match=r"taken by bus\.messages\.BusEndMessage"):
        register_message(Thief, tag="BusEndMessage")
    with pytest.raises(TypeError, match="derive it from BusDataMessage or BusSystemMessage"):
        register_message(ErrorInfo)  # type: ignore[type-var]


def test_a_frame_that_is_too_big_is_refused_on_both_sides() -> None:
    big = BusTopicMessage(source="a", topic="t", data=b"x" * MAX_MESSAGE_BYTES)
    with pytest.raises(EncodeError, match="more than max_message_bytes=1048576"):
        encode(big, id="f", origin=ORIGIN)
    frame = encode(big, id="f", origin=ORIGIN, max_message_bytes=2**21)
    with pytest.raises(DecodeError, match="more than max_message_bytes=1048576"):
        decode_header(frame)
    assert len(decode_header(frame, max_message_bytes=len(frame))[1]) > MAX_MESSAGE_BYTES


def test_a_frame_of_another_version_is_refused_by_its_number() -> None:
    frame = encode(REQUEST, id="f", origin=ORIGIN)
    with pytest.raises(DecodeError, match="version 2 cannot be read: this process reads version 1"):
        decode_header(b"\x02" + frame[1:])


def test_g40_any_bytes_are_a_message_or_a_decode_error() -> None:
    rng = random.Random(40)
    frames = [encode(message, id="f1", origin=ORIGIN) for message in MESSAGES]
    frames.append(encode(REQUEST, id="f1", origin=ORIGIN, signer=Signer(b"k" * 32)))
    decoded = 0
    for _ in range(20_000):
        data = bytearray(rng.choice(frames))
        kind = rng.random()
        if kind < 0.8:
            first = rng.choice((0, len(data) // 2))  # the latter half is body: it is decoded only below a sound header
            for _ in range(rng.randrange(1, 4)):
                place = rng.randrange(first, len(data))
                flipped = data[place] ^ (1 << rng.randrange(8))
                data[place] = rng.choice((flipped, flipped, rng.randrange(256), rng.choice(b"\xc1\xc7\xdd\x00\xff")))
        elif kind < 0.85:
            del data[rng.randrange(len(data)) :]
        elif kind < 0.95:
            place = rng.randrange(len(data))
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
        else:
            data = bytearray(b"\x01\0\0\0" * (rng.random() < 0.5) + rng.randbytes(rng.randrange(99)))
        with suppress(DecodeError):
            assert isinstance(decode(*decode_header(bytes(data))), BusMessage)
            decoded += 1
    assert 2000 < decoded < 18_000


def test_g40_a_body_nested_without_end_or_claiming_gigabytes_is_a_decode_error() -> None:
    header, _ = decode_header(encode(REQUEST, id="f1", origin=ORIGIN))
    tuples = b"\x90"
    for _ in range(2000):
        tuples = b"\x91\xc9" + len(tuples).to_bytes(4, "big") + b"\x02" + tuples
    for body in (
        b"\x91" * 500_000,
        tuples,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xa7payload\xc7\x03\x06\x92\x90\x90",
        b"\x81\xa7payload" + b"\xc7\x06\x0a\xa5hello",
        b"\x81\xa7payload\xd4\x63\x00",
        b"\x81\xa7payload\xa1\xff",
        b"\x80\x80",
        b"\x05",
        b"",
    ):
        with pytest.raises(DecodeError):
            decode(header, body)


def test_g40_a_header_with_impossible_numbers_is_refused() -> None:
    for change in ({"attempt": -1}, {"sequence": 2**60}, {"timeout": float("nan")}, {"timeout": -0.5}, {"source": 5}):
        header = msgspec.structs.replace(Header("BusEndMessage", "f", "a"), **change)
        packed = msgspec.msgpack.encode(header)
        with pytest.raises(DecodeError, match="the header of a frame is broken"):
            decode_header(b"\x01" + len(packed).to_bytes(4, "big") + packed + b"\x80")
