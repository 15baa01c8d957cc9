"""Whether what became of a job can be true, given what its handler was told to do and what went wrong. Pure."""

from __future__ import annotations

import msgspec

from actors import JobResult, JobStatus
from tests.simulation.plan import Ask, Step

DISTURBANCES = ("WorkerUnavailableError", "DeadLettered", "DataLostError")
"""What a job fails with that nobody could do."""

LOST = "JobLost"
"""What a job that runs at most once fails with when nobody can tell whether it has run."""


class Circumstances(msgspec.Struct, frozen=True):
    """What may excuse that a job did not complete.

    Attributes:
        disturbed: Something went wrong with the network or a runner, or was taken away.
        limited: It had a deadline, its own or that of the job inside which it was asked for.
        stopped: The job inside which it was asked for was cancelled, or is over.
        cut_short: A member of its group that failed ends the others.
        lossy: A runner died, was cut off, or left while a request was on its way; or the network loses what it carries.
        once: It was asked for at most once.
    """

    disturbed: bool
    limited: bool
    stopped: bool
    cut_short: bool
    lossy: bool = False
    once: bool = False


def untrue(ask: Ask, result: JobResult, circumstances: Circumstances) -> str:
    """What cannot be true of an outcome; empty if it can."""
    kind = result.error.type if result.error is not None else ""
    if result.status is JobStatus.COMPLETED:
        return "completed although its handler raises" if must_fail(ask.how, ask.plan) else ""
    if result.status is JobStatus.ERROR:
        may = can_fail(ask.how, ask.plan, limited=circumstances.limited, disturbed=circumstances.disturbed)
        raised = {"ValueError", "Error", "JobGroupError"}
        passed_on = {"JobTimeoutError", LOST, *DISTURBANCES} if any(step.ask for step in ask.plan) else set()
        fits = kind in raised | passed_on
        return "" if may and fits else "is an error although nothing in it raises that"
    if result.status is JobStatus.FAILED:
        excuses = {"JobTimeoutError": circumstances.limited}
        excuses |= dict.fromkeys(DISTURBANCES, circumstances.disturbed)
        excuses[LOST] = circumstances.lossy and circumstances.once
        return "" if excuses.get(kind) else "failed with what nothing excuses"
    excused = circumstances.disturbed or circumstances.stopped or circumstances.cut_short
    return "" if excused else "was cancelled although nobody cancelled it"


def is_plain(ask: Ask) -> bool:
    """Whether nothing keeps it from completing but what goes wrong outside."""
    spoils = {"raise", "ask", "swallow"}
    return ask.timeout is None and ask.cancel_after is None and not any(step.do in spoils for step in ask.plan)


def must_fail(how: str, plan: tuple[Step, ...]) -> bool:
    """Whether a handler that gets to the end of its plan has raised."""
    asked = [step.ask for step in plan if step.ask is not None and how]
    return any(step.do == "raise" for step in plan) or any(
        ask.cancel_on_error and ask.cancel_after is None and must_fail(ask.how, ask.plan) for ask in asked
    )


def can_fail(how: str, plan: tuple[Step, ...], *, limited: bool, disturbed: bool) -> bool:
    """Whether a handler may raise: as planned, or because of what it asks for."""
    asked = [step.ask for step in plan if step.ask is not None and how]
    if any(step.do == "raise" for step in plan) or (asked and (limited or disturbed)):
        return True
    return any(
        ask.timeout is not None or (ask.cancel_on_error and can_fail(ask.how, ask.plan, limited=False, disturbed=False))
        for ask in asked
    )


def count_events(plan: tuple[Step, ...]) -> int:
    """How many events a plan sends."""
    return sum(step.count for step in plan if step.do in {"update", "burst"})
