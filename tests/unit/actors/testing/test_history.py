"""The judge of histories, on hand-made bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from actors import JobStatus
from actors.testing.history import Happening, judge


def line(kind: Any, **more: Any) -> Happening:
    where = {"time": 0.0, "life": "r#1", "job_id": "j", "worker": "w", **more}
    return Happening(kind, **where)


GOOD = (
    line("asked"),
    line("began", attempt=1),
    line("saw", attempt=1, number=0),
    line("saw", attempt=1, number=1),
    line("finished", attempt=1),
    line("ended", attempt=1, number=2, status=JobStatus.COMPLETED),
)
DEATH = line("died", job_id="", life="p#1", time=-1.0)
CANCELLED = line("ended", status=JobStatus.CANCELLED)


def test_a_good_history_has_no_violations_and_is_counted() -> None:
    verdict = judge(list(GOOD))
    assert verdict.violations == ()
    assert (verdict.jobs, verdict.executions, verdict.outcomes) == (1, 1, {"completed": 1})
    assert verdict.distant == 0


def test_a_job_that_completed_in_another_life_is_counted_as_distant() -> None:
    assert judge([GOOD[0], line("began", attempt=1, life="p#1"), *GOOD[2:]]).distant == 1


def test_an_answer_that_was_remembered_may_count_as_that_of_a_later_attempt() -> None:
    assert judge([*GOOD[:-1], line("ended", attempt=2, number=2, status=JobStatus.COMPLETED)]).violations == ()


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
        ((*GOOD, line("disturbed", job_id=""), line("began", attempt=2)), "it ran 2 times although nothing excuses it"),
        ((DEATH, *GOOD[:2], line("began", attempt=2, time=1.0)), "it ran 2 times although nothing excuses it"),
        (
            (*GOOD[:2], line("began", attempt=2), line("disturbed", job_id="", number=1, time=1.0)),
            "it ran 2 times although nothing excuses it",
        ),
        (
            (*GOOD[:2], line("disturbed", job_id="", number=1), line("began", attempt=2), line("began", attempt=3)),
            "it ran 3 times although no more than 1 more are excused",
        ),
        ((*GOOD[:-2], line("ended", attempt=2, number=0, status=JobStatus.COMPLETED)), "attempt 2, which never began"),
        ((*GOOD, line("saw", attempt=1, number=2)), "an event came after it had ended"),
        (
            (*GOOD[:2], line("saw", attempt=2), line("ended", attempt=1, status=JobStatus.FAILED)),
            "it ended in attempt 1, but events of attempt 2 had come",
        ),
        ((GOOD[0], CANCELLED, line("began", attempt=1, time=6.0)), "it began 6 s after it was over"),
        ((GOOD[0], line("abandoned"), line("began", attempt=1, time=6.0)), "it began 6 s after it was over"),
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


def test_a_job_may_begin_while_its_cancellation_is_on_the_way_or_something_keeps_that_from_it() -> None:
    assert judge([GOOD[0], CANCELLED, line("began", attempt=1, time=4.0)]).violations == ()
    late = line("began", attempt=1, time=6.0)
    assert judge([GOOD[0], CANCELLED, line("disturbed", job_id=""), late]).violations == ()


def test_an_end_that_the_system_gave_belongs_to_no_attempt() -> None:
    assert judge([*GOOD[:2], line("saw", attempt=1), CANCELLED]).violations == ()
