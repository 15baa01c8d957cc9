"""How refused frames are counted and logged."""

from __future__ import annotations

import pytest

from bus.errors import DecodeError
from bus.transport.refusals import MAX_LOGGED, Refusals


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
