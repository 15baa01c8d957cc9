"""The judge of histories, on hand-made bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from actors import JobStatus
from actors.testing.history import Happening, judge


def line(kind: Any, **more: Any) -> Happening:
    return Happening(kind, 0.0, more.pop("life", "r#1"), more.pop("job_id", "j"), more.pop("worker", "w"), **more)


GOOD = (
    line("asked"),
    line("began", attempt=1),
    line("saw", attempt=1, number=0),
    line("saw", attempt=1, number=1),
    line("finished", attempt=1),
    line("ended", attempt=1, number=2, status=JobStatus.COMPLETED),
)


def test_a_good_history_has_no_violations_and_is_counted() -> None:
    verdict = judge(list(GOOD))
    assert verdict.violations == ()
    assert (verdict.jobs, verdict.executions, verdict.outcomes) == (1, 1, {"completed": 1})


@pytest.mark.parametrize(
    ("history", "violation"),
    [
        (GOOD[:-1], "its requester was never told"),
        ((*GOOD, GOOD[-1]), "it ended 2 times"),
        (GOOD[1:], "nobody asked for it"),
        ((GOOD[0], *GOOD), "asked for twice"),
        ((GOOD[0], GOOD[-1]), "it completed without having run"),
        ((*GOOD, line("began", attempt=2)), "it ran 2 times although nothing excuses it"),
        ((*GOOD, line("began", attempt=1), line("disturbed", job_id="")), "attempt 1 ran 2 times"),
        ((*GOOD[:2], GOOD[3], GOOD[2], *GOOD[4:]), "events of attempt 1 came as [1, 0]"),
        ((*GOOD[:3], *GOOD[4:]), "it completed with 1 of 2 events seen"),
        ((*GOOD[:2], line("saw", attempt=2), *GOOD[2:]), "an event of attempt 1 came after one of attempt 2"),
    ],
)
def test_a_bad_history_is_found_out(history: tuple[Happening, ...], violation: str) -> None:
    assert any(violation in found for found in judge(list(history)).violations)


def test_who_died_or_gave_up_need_not_be_told() -> None:
    assert judge([line("asked"), line("died", job_id="")]).violations == ()
    assert judge([line("asked"), line("abandoned")]).violations == ()


def test_a_second_attempt_is_excused_by_a_death() -> None:
    again = [line("died", job_id="", life="p#1"), line("began", attempt=2)]
    assert judge([*GOOD[:2], *again, line("ended", attempt=2, status=JobStatus.COMPLETED)]).violations == ()
