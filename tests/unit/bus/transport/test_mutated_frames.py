"""Mutated frames, some thousands of the million that `make fuzz` reads."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzz

FRAMES = 20_000


@pytest.mark.parametrize("signed", [True, False], ids=["with a key", "without a key"])
def test_g40_mutated_frames_are_refused_and_counted_and_the_work_goes_on(signed: bool) -> None:
    report = fuzz(40, FRAMES, signed=signed)
    assert report.problems == ()
    assert report.jobs > FRAMES // 500
    assert sum(report.refused.values()) + report.dropped + report.taken == FRAMES
    if signed:
        often = {"oversized", "malformed", "unknown_key", "altered", "misdirected"}
        assert often <= set(report.refused) <= {*often, "unsigned"}  # it is rare that the id of the key goes
        assert report.taken == report.strange_runs == 0
    else:
        assert report.refused["undecodable"] > 1000
        assert report.taken > 500
        assert "undeliverable" not in report.refused


def test_the_same_seed_reads_the_same_frames() -> None:
    one, other = (fuzz(7, 2000, signed=False) for _ in range(2))
    assert (one.refused, one.taken, one.dropped) == (other.refused, other.taken, other.dropped)
