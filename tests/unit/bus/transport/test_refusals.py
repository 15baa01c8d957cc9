"""How refused frames are counted and logged, what is remembered of frames, and where the keys come from."""

from __future__ import annotations

import traceback

import pytest

from bus import NetworkBus
from bus.errors import DecodeError
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.transport.deduplication import Deduplication
from bus.transport.refusals import MAX_LOGGED, Refusals
from bus.wire.codec import Header
from bus.wire.signing import ENVIRONMENT, Signer, signer_for


def test_each_sender_and_reason_is_logged_once_and_inventing_senders_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = Refusals()
    for number in range(3 * MAX_LOGGED):
        refusals.add(DecodeError("bad", "unsigned", f"{number % 5}"), "inbox")
    assert len(caplog.records) == 5
    for number in range(3 * MAX_LOGGED):
        refusals.add(DecodeError("bad", "altered", f"{number}" + "x" * 10_000), "inbox")
    assert len(caplog.records) == MAX_LOGGED + 1
    assert max(len(record.getMessage()) for record in caplog.records) < 1000
    statistics = refusals.statistics()
    assert (statistics.unsigned, statistics.altered, statistics.total) == (3000, 3000, 6000)


def test_g47_what_is_remembered_of_frames_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.transport.deduplication.SEEN", 10)
    monkeypatch.setattr("bus.transport.deduplication.MAX_SENDERS", 5)
    deduplication = Deduplication(strict=True)
    for number in range(100):
        assert deduplication.is_new(Header("t", f"{number}-1", "s", origin=f"a#{number}"), "inbox")
    assert len(deduplication._seen) == 10
    assert len(deduplication._forgotten) == 5
    with pytest.raises(DecodeError, match="is older than"):
        deduplication.is_new(Header("t", "89-1", "s", origin="a#89"), "inbox")
    assert deduplication.is_new(Header("t", "89-1", "s", origin="a#89"), "everyone"), (
        "each lane has an order of its own"
    )
    assert deduplication.is_new(Header("t", "7-50", "s", origin="a#7"), "everyone")
    for number in range(200, 220):
        assert deduplication.is_new(Header("t", f"{number}-1", "s", origin=f"a#{number}"), "inbox")
    assert deduplication.is_new(Header("t", "7-40", "s", origin="a#7"), "inbox"), "what overtook it went another way"
    for frame_id in ("90-2", "89-x", "89", "89-" + "1" * 30, ""):
        with pytest.raises(DecodeError, match="is none of a frame from"):
            deduplication.is_new(Header("t", frame_id, "s", origin="a#89"), "inbox")


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
