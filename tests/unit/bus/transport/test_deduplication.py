"""What is remembered of frames, so that one that comes twice counts once, and how much of it."""

from __future__ import annotations

import pytest

from bus.errors import DecodeError
from bus.transport.deduplication import Deduplication
from bus.wire.codec import Header


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
