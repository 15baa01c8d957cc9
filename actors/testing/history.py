"""What happened in a run, and whether it may have: the judge of simulated and real programs. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Literal

import msgspec

from bus import JobStatus

Kind = Literal["asked", "ended", "abandoned", "began", "finished", "saw", "died", "disturbed", "forgot"]


class Happening(msgspec.Struct, frozen=True):
    """One line of a history.

    Attributes:
        kind: `asked`, `ended`, `abandoned` (the requester was cancelled) and `saw` (an event) at the requester;
            `began` and `finished` (its handler) at the performer; `died` of a runner's life; `disturbed` for anything
            that excuses a second execution; `forgot` when the network forgets which frames it has had: what is sent
            to it again is stored again, and may run once more as the same attempt.
        time: When, on the clock of the run.
        life: Which life of which runner it happened in.
        job_id: The job, empty for `died`, `disturbed` and `forgot`.
        worker: Who was asked.
        attempt: Which delivery.
        number: For `saw`, the event's number as the performer counted; for `ended`, how many it should have been; for
            `disturbed`, how many further executions of any one job it excuses. A death excuses one.
        status: For `ended`.
        once: For `asked`, whether it was asked for at most once: nothing excuses a second execution.
    """

    kind: Kind
    time: float
    life: str
    job_id: str = ""
    worker: str = ""
    attempt: int = 0
    number: int = 0
    status: JobStatus | None = None
    once: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What a history amounts to.

    Attributes:
        violations: Sentences, one for each promise that was broken; empty if none was.
        jobs: Jobs asked for, each member of a group counted.
        executions: Handlers begun.
        distant: Jobs that completed, and began in another life than the one they were asked for in.
        outcomes: Ends by status.
    """

    violations: tuple[str, ...]
    jobs: int
    executions: int
    distant: int
    outcomes: dict[str, int]


Key = tuple[str, str]


def judge(history: list[Happening], *, grace: float = 5.0) -> Verdict:
    """Check a complete history: every job one outcome, order kept, nothing run again or too late without an excuse.

    Args:
        history: What happened, in order.
        grace: Seconds in which a cancellation may still be on its way to a job that has not begun.
    """
    dead = {happening.life for happening in history if happening.kind == "died"}
    excuses = [happening for happening in history if happening.kind in {"died", "disturbed", "forgot"}]
    by_job: dict[Key, list[Happening]] = defaultdict(list)
    for happening in history:
        if happening.job_id:
            by_job[happening.job_id, happening.worker].append(happening)
    violations: list[str] = []
    for (job_id, worker), lines in by_job.items():
        found = [*_outcome(lines, dead), *_executions(lines, excuses), *_order(lines), *_stale(lines)]
        if not excuses:
            found += _too_late(lines, grace)
        violations += [f"job {job_id} on {worker}: {what}" for what in found]
    outcomes = Counter(str(happening.status) for happening in history if happening.kind == "ended")
    return Verdict(
        violations=tuple(violations),
        jobs=sum(happening.kind == "asked" for happening in history),
        executions=sum(happening.kind == "began" for happening in history),
        distant=sum(_is_distant(lines) for lines in by_job.values()),
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
    return _completion(lines) if ended and ended[0].status is JobStatus.COMPLETED else []


def _completion(lines: list[Happening]) -> list[str]:
    ended = next(line for line in lines if line.kind == "ended")
    began = [line.attempt for line in lines if line.kind == "began"]
    if not began:
        return ["it completed without having run"]
    remembered = any(line.kind == "finished" and line.attempt < ended.attempt for line in lines)  # it came again
    if ended.attempt not in began and not remembered:
        return [f"it completed in attempt {ended.attempt}, which never began: those that did are {began}"]
    return []


def _executions(lines: list[Happening], excuses: list[Happening]) -> list[str]:
    began = [line for line in lines if line.kind == "began"]
    found = []
    attempts = Counter(line.attempt for line in began)
    most = 1 + sum(excuse.kind == "forgot" for excuse in excuses)
    found += [f"attempt {attempt} ran {count} times" for attempt, count in attempts.items() if count > most]
    if len(began) > 1 and any(line.once for line in lines):
        found.append(f"it ran {len(began)} times although it was asked for at most once")
    elif len(began) > 1:
        asked = min((line.time for line in lines if line.kind == "asked"), default=0.0)
        excused = sum(_excuse(excuse, asked) for excuse in excuses if excuse.time <= began[-1].time)
        if not excused:
            found.append(f"it ran {len(began)} times although nothing excuses it")
        elif len(began) > 1 + excused:
            found.append(f"it ran {len(began)} times although no more than {excused} more are excused")
    return found


def _excuse(excuse: Happening, asked: float) -> int:
    """How many further executions something excuses of a job asked for then."""
    if excuse.kind in {"died", "forgot"}:
        return int(excuse.time >= asked)
    return excuse.number


def _too_late(lines: list[Happening], grace: float) -> list[str]:
    over = [line.time for line in lines if line.kind in {"ended", "abandoned"}]
    began = [line.time for line in lines if line.kind == "began"]
    if over and began and began[-1] > over[0] + grace:
        return [f"it began {began[-1] - over[0]:g} s after it was over"]
    return []


def _stale(lines: list[Happening]) -> list[str]:
    """Whether the outcome is that of an attempt which was answered after the next one had begun elsewhere."""
    ended = next((line for line in lines if line.kind == "ended" and line.status is JobStatus.COMPLETED), None)
    if ended is None:
        return []
    answered = [line.time for line in lines if line.kind == "finished" and line.attempt == ended.attempt]
    newer = [line.time for line in lines if line.kind == "began" and line.attempt > ended.attempt]
    if answered and newer and min(answered) > min(newer):
        return [f"attempt {ended.attempt} counts, answered after the next attempt had begun"]
    return []


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
    ended = next((line for line in lines if line.kind == "ended"), None)
    if ended is None:
        return found
    if any(line.kind == "saw" for line in lines[lines.index(ended) :]):
        found.append("an event came after it had ended")
    if 0 < ended.attempt < latest:
        found.append(f"it ended in attempt {ended.attempt}, but events of attempt {latest} had come")
    began = any(line.kind == "began" and line.attempt == ended.attempt for line in lines)  # else it is a remembered one
    if began and ended.status is JobStatus.COMPLETED and len(numbers[ended.attempt]) != ended.number:
        found.append(f"it completed with {len(numbers[ended.attempt])} of {ended.number} events seen")
    return found


def _is_distant(lines: list[Happening]) -> bool:
    asked = {line.life for line in lines if line.kind == "asked"}
    ended = {line.attempt for line in lines if line.kind == "ended" and line.status is JobStatus.COMPLETED}
    return any(line.kind == "began" and line.attempt in ended and line.life not in asked for line in lines)
