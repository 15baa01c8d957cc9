"""Frames are signed: what a key verifies, what it does not, and where keys come from: G42."""

from __future__ import annotations

import traceback
from typing import Any

import msgspec
import pytest

from bus import NetworkBus
from bus.errors import DecodeError
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.messages import BusJobRequestMessage
from bus.wire.codec import decode, decode_header, encode
from bus.wire.signing import ENVIRONMENT, MAC_BYTES, Signer, signer_for

ORIGIN = "runner#1a"
OLD, NEW, OTHER = b"o" * 32, b"n" * 40, b"x" * 100


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


def test_g42_a_signed_frame_is_verified_by_any_of_the_keys() -> None:
    frame = encode(REQUEST, id="f", origin=ORIGIN, signer=Signer(OLD))
    for keys in (OLD, (OLD, NEW), (NEW, OLD)):
        header, body = decode_header(frame, verifier=Signer(keys))
        assert header.key_id == Signer(OLD).key_id
        assert decode(header, body) == msgspec.structs.replace(REQUEST, origin=ORIGIN)
    assert decode_header(encode(REQUEST, id="f", origin=ORIGIN, signer=Signer((NEW, OLD))), verifier=Signer(NEW))
    assert decode(*decode_header(frame)) == msgspec.structs.replace(REQUEST, origin=ORIGIN)


def test_g42_an_unsigned_or_foreign_or_altered_frame_is_refused() -> None:
    verifier = Signer((NEW, OLD))
    with pytest.raises(DecodeError, match=r"from 'client' at 'runner#1a' is not signed"):
        decode_header(encode(REQUEST, id="f", origin=ORIGIN), verifier=verifier)
    with pytest.raises(DecodeError, match="signed with a key unknown here"):
        decode_header(encode(REQUEST, id="f", origin=ORIGIN, signer=Signer(OTHER)), verifier=verifier)
    frame = encode(REQUEST, id="f", origin=ORIGIN, signer=verifier)
    for place in range(len(frame)):
        altered = bytearray(frame)
        altered[place] ^= 1
        with pytest.raises(DecodeError):
            decode_header(bytes(altered), verifier=verifier)
    for length in range(len(frame)):
        with pytest.raises(DecodeError):
            decode_header(frame[:length], verifier=verifier)
    with pytest.raises(DecodeError):
        decode_header(frame + b"\0", verifier=verifier)


def test_g42_keys_are_long_and_never_shown() -> None:
    unfit: list[Any] = [b"short", (), (OLD, b"k" * 31), "t" * 32, (OLD, "t" * 32)]
    for keys in unfit:
        with pytest.raises(ValueError, match=r"key") as caught:
            Signer(keys)
        assert "kkk" not in str(caught.value)
    for keys in (OLD, (OLD, NEW, OTHER)):
        signer = Signer(keys)
        assert "ooo" not in repr(signer)
        assert signer.key_id in repr(signer)
        assert not any(isinstance(getattr(signer, name), bytes) for name in signer.__slots__)
    assert Signer(OLD).key_id != Signer(NEW).key_id
    assert len(Signer(OLD).sign(b"data")) == MAC_BYTES
    assert not Signer(OLD).verify("nobody", b"data", Signer(OLD).sign(b"data"))


def test_g42_keys_come_from_the_argument_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = bytes(range(32)), bytes(range(32, 96))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert signer_for(None) is None
    monkeypatch.setenv(ENVIRONMENT, f" {first.hex()} ,{second.hex().upper()}\n")
    assert repr(signer_for(None)) == repr(Signer((first, second)))
    assert repr(signer_for(second)) == repr(Signer(second)), "the argument goes before the environment"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "key 1 of 1"),
        ("ab" * 31, "key 1 of 1"),
        ("secret" * 20, "key 1 of 1"),
        ("ab" * 32 + ",", "key 2 of 2"),
        ("ab" * 32 + ",zz" + "ab" * 32, "key 2 of 2"),
        ("ab" * 32 + "a", "key 1 of 1"),
    ],
)
def test_g42_a_bad_key_in_the_environment_is_refused_by_the_name_of_the_variable(
    text: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, text)
    with pytest.raises(ValueError, match=f"{place} in the environment variable ACTORBUS_SIGNING_KEY") as caught:
        NetworkBus(MemoryTransport(MemoryBroker()))
    shown = "".join(traceback.format_exception(caught.value))
    assert "abab" not in shown
    assert "secret" not in shown.partition("ValueError")[2]
