"""What happened in a run, and whether it may have: the judge of simulated and real programs. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Literal

import msgspec

from bus import JobStatus

Kind = Literal["asked", "ended", "abandoned", "began", "finished", "saw", "died", "disturbed"]


class Happening(msgspec.Struct, frozen=True):
    """One line of a history.

    Attributes:
        kind: `asked`, `ended`, `abandoned` (the requester was cancelled) and `saw` (an event) at the requester;
            `began` and `finished` (its handler) at the performer; `died` of a runner's life; `disturbed` for anything
            that excuses a second execution.
        time: When, on the clock of the run.
        life: Which life of which runner it happened in.
        job_id: The job, empty for `died` and `disturbed`.
        worker: Who was asked.
        attempt: Which delivery.
        number: For `saw`, the event's number as the performer counted; for `ended`, how many it should have been.
        status: For `ended`.
    """

    kind: Kind
    time: float
    life: str
    job_id: str = ""
    worker: str = ""
    attempt: int = 0
    number: int = 0
    status: JobStatus | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What a history amounts to.

    Attributes:
        violations: Sentences, one for each promise that was broken; empty if none was.
        jobs: Jobs asked for, each member of a group counted.
        executions: Handlers begun.
        outcomes: Ends by status.
    """

    violations: tuple[str, ...]
    jobs: int
    executions: int
    outcomes: dict[str, int]


Key = tuple[str, str]


def judge(history: list[Happening]) -> Verdict:
    """Check a complete history: every job one outcome, order kept, nothing run twice without an excuse."""
    dead = {happening.life for happening in history if happening.kind == "died"}
    disturbed = any(happening.kind in {"died", "disturbed"} for happening in history)
    by_job: dict[Key, list[Happening]] = defaultdict(list)
    for happening in history:
        if happening.job_id:
            by_job[happening.job_id, happening.worker].append(happening)
    violations: list[str] = []
    for (job_id, worker), lines in by_job.items():
        who = f"job {job_id} on {worker}"
        violations += [f"{who}: {what}" for what in _outcome(lines, dead)]
        violations += [f"{who}: {what}" for what in _executions(lines, disturbed=disturbed)]
        violations += [f"{who}: {what}" for what in _order(lines)]
    outcomes = Counter(str(happening.status) for happening in history if happening.kind == "ended")
    return Verdict(
        violations=tuple(violations),
        jobs=sum(happening.kind == "asked" for happening in history),
        executions=sum(happening.kind == "began" for happening in history),
        outcomes=dict(sorted(outcomes.items())),
    )


def _outcome(lines: list[Happening], dead: set[str]) -> list[str]:
    asked = [line for line in lines if line.kind == "asked"]
    ended = [line for line in lines if line.kind == "ended"]
    if not asked:
        return ["it ran or ended, but nobody asked for it"]
    if len(asked) > 1:
        return ["it was asked for twice under one id"]
    abandoned = any(line.kind == "abandoned" for line in lines)
    if not ended and not abandoned and asked[0].life not in dead:
        return ["its requester was never told"]
    if len(ended) > 1:
        return [f"it ended {len(ended)} times: {', '.join(str(line.status) for line in ended)}"]
    if ended and ended[0].status is JobStatus.COMPLETED and not any(line.kind == "began" for line in lines):
        return ["it completed without having run"]
    return []


def _executions(lines: list[Happening], *, disturbed: bool) -> list[str]:
    began = [line for line in lines if line.kind == "began"]
    found = []
    attempts = Counter(line.attempt for line in began)
    found += [f"attempt {attempt} ran {count} times" for attempt, count in attempts.items() if count > 1]
    if len(began) > 1 and not disturbed:
        found.append(f"it ran {len(began)} times although nothing excuses it")
    return found


def _order(lines: list[Happening]) -> list[str]:
    saw = [line for line in lines if line.kind == "saw"]
    found = []
    numbers: dict[int, list[int]] = defaultdict(list)
    latest = 0
    for line in saw:
        if line.attempt < latest:
            found.append(f"an event of attempt {line.attempt} came after one of attempt {latest}")
        latest = max(latest, line.attempt)
        numbers[line.attempt].append(line.number)
    for attempt, seen in numbers.items():
        if seen != list(range(len(seen))):
            found.append(f"events of attempt {attempt} came as {seen[:20]}")
    ended = [line for line in lines if line.kind == "ended" and line.status is JobStatus.COMPLETED]
    if ended and len(numbers.get(ended[0].attempt, [])) != ended[0].number:
        found.append(f"it completed with {len(numbers.get(ended[0].attempt, []))} of {ended[0].number} events seen")
    return found
