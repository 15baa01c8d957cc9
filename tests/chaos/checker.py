"""What the lines of a chaos run amount to, and whether it may have been. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from actors.testing.history import Happening, Kind, judge
from bus import JobStatus
from bus.nats.queues import LIFE
from tests.chaos.lines import KILLED, REMEMBERED, Line

_KINDS: dict[str, Kind] = {
    "asked": "asked",
    "ended": "ended",
    "saw": "saw",
    "began": "began",
    "finished": "finished",
    "died": "died",
    "disturbed": "disturbed",
    "paused": "disturbed",
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a scenario promises besides that every job ends once. Seconds; None where it promises nothing.

    Attributes:
        recover: From a death until what it interrupted runs again.
        orphans: From a requester's death until its jobs have stopped.
        wake: From a zombie's waking until its handlers, of jobs that others have by then, have stopped.
        leave: From being told to end until a node has.
        accept: From being told to end until a node begins no more.
        executions: Most executions of all jobs together.
        statuses: How jobs may end.
        settled: Whether every handler that began must have come to its end, but those that died.
        forgets: Whether a broker that is killed may forget what it gave out last, so that for a moment nobody knows
            that two have the same job (attempts from before and after that are `LIFE` apart), and which requests it has
            had: one that is sent again is stored again, and may run once more as the same attempt.
    """

    recover: float | None = None
    orphans: float | None = None
    wake: float | None = None
    leave: float | None = None
    accept: float | None = None
    executions: int | None = None
    statuses: frozenset[str] = frozenset({"completed"})
    settled: bool = True
    forgets: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """The figures of a run. Seconds, each for one death.

    Attributes:
        violations: A sentence for each promise that was broken.
        jobs: Asked for.
        kills: Processes that died.
        lost: Jobs whose requester lived and was never told how they ended.
        executions: Handlers begun.
        stale: Events and answers accepted that were sent after a later attempt had begun.
        refused: Messages of attempts that had lost their lease, as the nodes that lived to the end counted them.
        detect: From each death until another node knew.
        recover: From each death until the last job it interrupted ran again.
        wake: From each waking until the handlers of lost claims had stopped.
    """

    violations: tuple[str, ...]
    jobs: int
    kills: int
    lost: int
    executions: int
    stale: int
    refused: int
    detect: tuple[float, ...]
    recover: tuple[float, ...]
    wake: tuple[float, ...]


class Case:
    """The lines of one run, in the order of their times."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = sorted(lines, key=lambda line: line.time)
        self.by_job: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines:
            if line.job:
                self.by_job[line.job].append(line)
        self.ends = {line.node: line.time for line in self.lines if line.event == "died"}

    def of(self, *events: str) -> list[Line]:
        return [line for line in self.lines if line.event in events]

    def open_handlers(self, node: str, at: float) -> list[Line]:
        """What had begun on a node at a time and had not come to an end."""
        over = {
            (line.job, line.attempt) for line in self.of("finished", "stopped") if line.node == node and line.time <= at
        }
        began = [line for line in self.of("began") if line.node == node and line.time <= at]
        return [line for line in began if (line.job, line.attempt) not in over]

    def lost(self) -> list[str]:
        """Jobs whose requester lived and was not told."""
        return [
            job
            for job, lines in self.by_job.items()
            if any(line.event == "asked" and line.node not in self.ends for line in lines)
            and not any(line.event == "ended" for line in lines)
        ]

    def stale(self, *, forgets: bool) -> Iterator[str]:
        """What was accepted of an attempt although it was sent after a later one had begun."""
        for job, lines in self.by_job.items():
            began = {line.attempt: line for line in lines if line.event == "began"}
            sent = {(line.attempt, line.number): line.time for line in lines if line.event == "sent"}
            finished = {line.attempt: line.time for line in lines if line.event == "finished"}
            for line in lines:
                most = line.attempt + LIFE if forgets else math.inf
                later = [each.time for each in began.values() if line.attempt < each.attempt < most]
                if not later or not line.attempt:
                    continue
                since = min(later)
                if line.event == "saw" and sent.get((line.attempt, line.number), 0.0) > since:
                    yield f"job {job}: event {line.number} of attempt {line.attempt} was accepted, but it was stale"
                if line.event == "ended" and finished.get(line.attempt, 0.0) > since:
                    yield f"job {job}: the answer of attempt {line.attempt} was accepted, but it was stale"

    def detections(self) -> Iterator[float]:
        """How long it took until a death was known, where no new life of the node told of it."""
        for node, died in self.ends.items():
            name = node.partition("#")[0]
            known = [line.time for line in self.of("lost") if line.detail == name and line.time >= died]
            born = [line.time for line in self.of("ready") if line.node.startswith(f"{name}#") and line.time > died]
            if known and known[0] < min(born, default=float("inf")):
                yield known[0] - died

    def recoveries(self) -> Iterator[tuple[str, float | None]]:
        """For each job that a death interrupted and that was still waited for: how long until it ran again."""
        for node, died in self.ends.items():
            for line in self.open_handlers(node, died):
                later = [other for other in self.by_job[line.job] if other.time > died]
                again = [other.time for other in later if other.event == "began" and other.attempt > line.attempt]
                ended = [other for other in self.by_job[line.job] if other.event == "ended"]
                requester = next((other.node for other in self.by_job[line.job] if other.event == "asked"), "")
                over = any(other.time <= died or other.attempt <= line.attempt for other in ended)
                if again:
                    yield line.job, again[0] - died
                elif not over and requester not in self.ends:
                    yield line.job, None


def check(lines: Sequence[Line], limits: Limits | None = None) -> Verdict:
    """Judge a whole run, once every process has ended."""
    limits = limits or Limits()
    case = Case(lines)
    lost, stale = case.lost(), list(case.stale(forgets=limits.forgets))
    recoveries = list(case.recoveries())
    wakes = list(_wakes(case, limits))
    found = [
        *_judged(case, limits),
        *stale,
        *_statuses(case, limits),
        *_recovered(recoveries, limits),
        *_executed(case, limits),
        *_orphans(case, limits),
        *(what for what, _ in wakes if what),
        *_endings(case, limits),
        *(_unsettled(case) if limits.settled else ()),
    ]
    return Verdict(
        violations=tuple(found),
        jobs=len(case.of("asked")),
        kills=len(case.ends),
        lost=len(lost),
        executions=len(case.of("began")),
        stale=len(stale),
        refused=_refused(case),
        detect=tuple(case.detections()),
        recover=tuple(seconds for _, seconds in recoveries if seconds is not None),
        wake=tuple(seconds for _, seconds in wakes if seconds is not None),
    )


def _judged(case: Case, limits: Limits) -> Iterator[str]:
    """What the judge finds. It does not know of attempts of two lives of a broker, which `Case.stale` compares.

    When a job comes again to who has answered it, after another has had it, the events before that answer are not sent
    again: its requester may have seen some of the other's.
    """
    remembered = tuple(
        f"job {line.job} on work: it completed with" for line in case.of("ended") if line.detail == REMEMBERED
    )
    for violation in judge(_happenings(case, limits)).violations:
        forgotten = limits.forgets and violation.endswith("answered after the next attempt had begun")
        if not forgotten and not violation.startswith(remembered):
            yield violation


def _happenings(case: Case, limits: Limits) -> list[Happening]:
    """The run in the terms of the judge of simulated programs, which knows outcomes, executions and order."""
    return [
        Happening(
            kind="forgot" if limits.forgets and line.detail == KILLED else _KINDS[line.event],
            time=line.time,
            life=line.node,
            job_id=line.job,
            worker="work" if line.job else "",
            attempt=line.attempt,
            number=1 if line.event == "paused" else line.number,
            status=JobStatus(line.status) if line.status else None,
        )
        for line in case.lines
        if line.event in _KINDS
    ]


def _refused(case: Case) -> int:
    last = {line.node: line for line in case.of("statistics")}
    return sum(line.figures.get("refused", 0) + line.figures.get("late", 0) for line in last.values())


def _statuses(case: Case, limits: Limits) -> Iterator[str]:
    for line in case.of("ended"):
        if line.status not in limits.statuses:
            yield f"job {line.job} ended as {line.status}: {line.detail}"


def _recovered(recoveries: list[tuple[str, float | None]], limits: Limits) -> Iterator[str]:
    for job, seconds in recoveries:
        if seconds is None:
            yield f"job {job} was interrupted and did not run again"
        elif limits.recover is not None and seconds > limits.recover:
            yield f"job {job} ran again {seconds:.1f} s after its performer's death, later than {limits.recover:g} s"


def _executed(case: Case, limits: Limits) -> Iterator[str]:
    executions = len(case.of("began"))
    if limits.executions is not None and executions > limits.executions:
        yield f"{executions} executions, more than the {limits.executions} there may be"


def _orphans(case: Case, limits: Limits) -> Iterator[str]:
    if limits.orphans is None:
        return
    for lines in case.by_job.values():
        asked = next((line for line in lines if line.event == "asked"), None)
        died = case.ends.get(asked.node) if asked is not None else None
        if died is None:
            continue
        for began in (line for line in lines if line.event == "began"):
            end = min(case.ends.get(began.node, float("inf")), _end_of(case, began))
            if end > max(died, began.time) + limits.orphans:
                yield f"job {began.job} ran on for more than {limits.orphans:g} s after its requester's death"


def _end_of(case: Case, began: Line) -> float:
    ends = [
        line.time
        for line in case.by_job[began.job]
        if line.event in {"finished", "stopped"} and (line.node, line.attempt) == (began.node, began.attempt)
    ]
    return ends[0] if ends else float("inf")


def _wakes(case: Case, limits: Limits) -> Iterator[tuple[str, float | None]]:
    """For each waking: what was wrong with it, and how long handlers of lost claims went on."""
    for resumed in case.of("resumed"):
        for began in case.open_handlers(resumed.node, resumed.time):
            others = [line for line in case.by_job[began.job] if line.event == "began" and line.time < resumed.time]
            if all(line.attempt <= began.attempt for line in others):
                continue
            seconds = _end_of(case, began) - resumed.time
            late = limits.wake is not None and seconds > limits.wake
            problem = f"job {began.job} ran on for {seconds:.1f} s in a zombie that had lost it" if late else ""
            yield problem, seconds if seconds < float("inf") else None


def _endings(case: Case, limits: Limits) -> Iterator[str]:
    left = {line.node: line for line in case.of("left")}
    for told in case.of("told"):
        end = left.get(told.node)
        if end is None:
            yield f"{told.node} was told to end and did not"
        elif end.number:
            yield f"{told.node} ended with code {end.number}"
        elif limits.leave is not None and end.time - told.time > limits.leave:
            yield f"{told.node} took {end.time - told.time:.1f} s to end, more than {limits.leave:g} s"
        if limits.accept is not None:
            for line in case.of("began"):
                if line.node == told.node and line.time > told.time + limits.accept:
                    yield f"{told.node} began job {line.job} {line.time - told.time:.1f} s after it was told to end"


def _unsettled(case: Case) -> Iterator[str]:
    over = {(line.node, line.job, line.attempt) for line in case.of("finished", "stopped")}
    for line in case.of("began"):
        if (line.node, line.job, line.attempt) not in over and line.node not in case.ends:
            yield f"job {line.job}: attempt {line.attempt} never came to its end on {line.node}"
