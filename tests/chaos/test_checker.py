"""The judge of chaos runs, judged: histories made by hand, good ones and one for each thing that may go wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bus.nats.queues import LIFE
from tests.chaos.checker import Limits, Verdict, check
from tests.chaos.lines import KILLED as BROKER_KILLED
from tests.chaos.lines import REMEMBERED, Event, Journal, Line, Reader


def line(event: Event, time: float, node: str = "w0#1", attempt: int = 1, **fields: object) -> Line:
    job = (
        ""
        if event in {"died", "paused", "resumed", "told", "left", "lost", "ready", "statistics", "disturbed"}
        else "j"
    )
    return Line(event, time, node, job, attempt, **fields)  # type: ignore[arg-type]


ASKED = line("asked", 0.0, "r#9")
ENDED = line("ended", 5.0, "r#9", number=1, status="completed")
WELL = [
    ASKED,
    line("began", 1.0),
    line("sent", 2.0, number=0),
    line("saw", 2.1, "r#9", number=0),
    line("finished", 4.0),
    ENDED,
]
"""A job as it should be."""

KILLED = [
    ASKED,
    line("began", 1.0),
    line("sent", 1.5, number=0),
    line("saw", 1.6, "r#9", number=0),
    line("died", 2.0),
    line("lost", 3.0, "r#9", detail="w0"),
    line("began", 4.0, "w1#2", 2),
    line("sent", 4.2, "w1#2", 2, number=0),
    line("saw", 4.3, "r#9", 2, number=0),
    line("finished", 4.5, "w1#2", 2),
    line("ended", 5.0, "r#9", 2, number=1, status="completed"),
]
"""One whose performer was killed."""

ZOMBIE = [
    ASKED,
    line("began", 1.0),
    line("paused", 2.0),
    line("began", 4.0, "w1#2", 2),
    line("resumed", 6.0),
    line("stopped", 6.2),
    line("finished", 7.0, "w1#2", 2),
    line("ended", 8.0, "r#9", 2, status="completed"),
]
"""One whose performer stood still."""


@pytest.mark.parametrize("history", [WELL, KILLED, ZOMBIE])
def test_nothing_is_found_where_nothing_is_wrong(history: list[Line]) -> None:
    limits = Limits(recover=2.0, wake=0.3, executions=2)
    assert check(history, limits).violations == ()


def test_the_figures_are_those_of_the_history() -> None:
    counted = line("statistics", 9.0, "w1#2", figures={"refused": 2, "late": 1})
    earlier = line("statistics", 8.0, "w1#2", figures={"refused": 1})
    assert check([*KILLED, earlier, counted]) == Verdict(
        violations=(),
        jobs=1,
        kills=1,
        lost=0,
        executions=2,
        stale=0,
        refused=3,
        detect=(1.0,),
        recover=(2.0,),
        wake=(),
    )
    assert check(ZOMBIE).wake == pytest.approx((0.2,))


def test_what_two_lives_of_a_broker_gave_out_overlaps_where_the_first_was_forgotten() -> None:
    history = [
        *WELL[:2],
        line("disturbed", 1.5, "stage", number=1, attempt=0),
        line("began", 1.6, "w1#2", 1 + LIFE),
        *WELL[2:],
        line("stopped", 6.0, "w1#2", 1 + LIFE),
    ]
    assert check(history, Limits(forgets=True)).violations == ()
    assert check(history).stale == 2


def test_a_request_that_was_sent_again_may_run_again_where_brokers_forget() -> None:
    history = [
        *WELL,
        line("disturbed", 1.5, "stage", number=1, attempt=0, detail=BROKER_KILLED),
        line("began", 6.0, "w1#2"),
        line("finished", 7.0, "w1#2"),
    ]
    assert check(history, Limits(forgets=True)).violations == ()
    assert "attempt 1 ran 2 times" in str(check(history).violations)


def test_events_of_another_attempt_may_be_missing_where_an_answer_was_remembered() -> None:
    ended = Line("ended", 5.0, "r#9", "j", 2, number=3, status="completed", detail=REMEMBERED)
    assert check([*KILLED[:-1], ended]).violations == ()
    assert "it completed with 1 of 3 events seen" in str(check([*KILLED[:-1], replace(ended, detail="")]).violations)


def test_a_death_that_the_next_life_tells_of_is_not_a_detection() -> None:
    born = line("ready", 2.5, "w0#3")
    assert check([*KILLED, born]).detect == ()


def without(history: list[Line], *numbers: int) -> list[Line]:
    return [each for number, each in enumerate(history) if number not in numbers]


@pytest.mark.parametrize(
    ("history", "limits", "violation"),
    [
        (without(WELL, 5), Limits(), "its requester was never told"),
        ([*WELL, ENDED], Limits(), "it ended 2 times"),
        (without(WELL, 1, 4), Limits(), "it completed without having run"),
        (without(WELL, 0), Limits(), "nobody asked for it"),
        ([*WELL, ASKED], Limits(), "it was asked for twice"),
        ([*WELL, line("began", 1.2, "w1#2")], Limits(settled=False), "attempt 1 ran 2 times"),
        (without(KILLED, 4), Limits(settled=False), "it ran 2 times although nothing excuses it"),
        (without(WELL, 3), Limits(), "it completed with 0 of 1 events seen"),
        ([*WELL, line("saw", 2.2, "r#9", number=2)], Limits(), "events of attempt 1 came as [0, 2]"),
        ([*WELL, line("saw", 2.2, "r#9", number=0)], Limits(), "events of attempt 1 came as [0, 0]"),
        ([*WELL, line("saw", 6.0, "r#9", number=1)], Limits(), "an event came after it had ended"),
        ([*KILLED, line("saw", 4.4, "r#9", number=1)], Limits(), "an event of attempt 1 came after one of attempt 2"),
        (
            [*ZOMBIE, line("sent", 6.05, number=0), line("saw", 6.1, "r#9", number=0)],
            Limits(),
            "event 0 of attempt 1 was accepted, but it was stale",
        ),
        (
            [*without(ZOMBIE, 5, 7), line("finished", 6.5), line("ended", 8.0, "r#9", status="completed")],
            Limits(),
            "the answer of attempt 1 was accepted, but it was stale",
        ),
        (without(KILLED, 6, 7, 8, 9, 10), Limits(), "j was interrupted and did not run again"),
        (KILLED, Limits(recover=1.9), "ran again 2.0 s after its performer's death, later than 1.9 s"),
        (ZOMBIE, Limits(wake=0.1), "j ran on for 0.2 s in a zombie that had lost it"),
        (without(ZOMBIE, 5), Limits(wake=0.1, settled=False), "j ran on for inf s in a zombie that had lost it"),
        (ZOMBIE, Limits(executions=1), "2 executions, more than the 1 there may be"),
        (without(WELL, 4), Limits(), "attempt 1 never came to its end on w0#1"),
        ([*WELL[:-1], line("ended", 5.0, "r#9", status="failed")], Limits(), "job j ended as failed"),
        ([*WELL, line("told", 6.0)], Limits(), "w0#1 was told to end and did not"),
        ([*WELL, line("told", 6.0), line("left", 9.0)], Limits(leave=2.0), "w0#1 took 3.0 s to end"),
        ([*WELL, line("told", 6.0), line("left", 6.1, number=1)], Limits(), "w0#1 ended with code 1"),
        (
            [*WELL, line("told", 0.1), line("left", 9.0)],
            Limits(accept=0.5),
            "w0#1 began job j 0.9 s after it was told to end",
        ),
        (
            [ASKED, line("began", 1.0), line("died", 2.0, "r#9"), line("finished", 9.0)],
            Limits(orphans=5.0),
            "j ran on for more than 5 s after its requester's death",
        ),
        (
            [ASKED, line("began", 1.0), line("died", 2.0, "r#9")],
            Limits(orphans=5.0, settled=False),
            "j ran on for more than 5 s after its requester's death",
        ),
    ],
)
def test_what_is_wrong_is_found(history: list[Line], limits: Limits, violation: str) -> None:
    found = check(history, limits).violations
    assert any(violation in each for each in found), found


def test_a_job_without_an_outcome_is_lost_unless_its_requester_died() -> None:
    assert check(without(WELL, 5)).lost == 1
    assert check([*without(WELL, 5), line("died", 9.0, "r#9")]).lost == 0


def test_lines_come_back_as_they_were_written_whoever_dies_in_the_middle_of_one(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path / "w0.jsonl", "w0#1"), Reader(tmp_path)
    first = journal.write("began", job="j", attempt=2)
    assert reader.read() == [first]
    with (tmp_path / "w0.jsonl").open("ab") as file:
        file.write(b'{"event":"fini')
    assert reader.read() == [first]
    other = Journal(tmp_path / "w1.jsonl", "w1#2")
    second = other.write("died", "w0#1")
    assert reader.read() == [first, second]
    journal.close()
    other.close()
