"""Every table of states: of workers, of what they do with requests, and of jobs; and the only ways between them.

A worker goes from NEW to STOPPED once, a job from WAITING to ENDED. What is not in a table does not happen: `moved`
says so where an impossible step is made, and it is no mystery later.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeVar


class _State(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python, and each step of each job is a look-up


class WorkerState(_State):
    """Where a worker is in its life."""

    NEW = auto()
    """Made, not added to a runner."""
    ATTACHED = auto()
    """Added: requests for it wait."""
    STARTING = auto()
    """Its `start()` runs."""
    READY = auto()
    """Registered: it is given jobs while it is active."""
    DRAINING = auto()
    """Ending: running jobs go on, nothing new begins."""
    STOPPING = auto()
    """Its jobs are being cancelled and its requesters answered."""
    STOPPED = auto()
    """Gone; its name is free."""


WORKER_STEPS: dict[WorkerState, tuple[WorkerState, ...]] = {
    WorkerState.NEW: (WorkerState.ATTACHED,),
    WorkerState.ATTACHED: (WorkerState.STARTING, WorkerState.DRAINING, WorkerState.STOPPING),
    WorkerState.STARTING: (WorkerState.READY, WorkerState.DRAINING, WorkerState.STOPPING),
    WorkerState.READY: (WorkerState.DRAINING, WorkerState.STOPPING),
    WorkerState.DRAINING: (WorkerState.STOPPING,),
    WorkerState.STOPPING: (WorkerState.STOPPED,),
    WorkerState.STOPPED: (),
}

ALIVE = frozenset({WorkerState.ATTACHED, WorkerState.STARTING, WorkerState.READY})
"""The states of a worker that nobody ends: it may have new children."""

ENDING = frozenset({WorkerState.DRAINING, WorkerState.STOPPING})
"""The states of a worker whose last jobs are waited for."""


class JobState(_State):
    """Where a job is at its performer: whether its handler has begun, has ended, and whether it is answered."""

    WAITING = auto()
    """Accepted: it waits for a slot, or for its worker to become active."""
    RUNNING = auto()
    """Its handler runs."""
    OPEN = auto()
    """Its handler has returned without an answer; the worker answers later. It holds its slot until then."""
    ANSWERED = auto()
    """It is answered, and its handler goes on."""
    STOPPING = auto()
    """Its handler has been told to stop; it is answered when that has, or after the grace period."""
    CLOSING = auto()
    """It is answered, and its handler has been told to stop."""
    QUARANTINED = auto()
    """It is answered; its handler swallows its cancellation, and holds no slot any more."""
    ABANDONED = auto()
    """It is answered; its handler goes on in a thread, which cannot be stopped, and holds its slot until that ends."""
    ENDED = auto()
    """It is answered and its handler has ended; or it was handed back before it began."""


JOB_STEPS: dict[JobState, tuple[JobState, ...]] = {
    JobState.WAITING: (JobState.RUNNING, JobState.ENDED),
    JobState.RUNNING: (JobState.OPEN, JobState.ANSWERED, JobState.STOPPING, JobState.ABANDONED, JobState.ENDED),
    JobState.OPEN: (JobState.ENDED,),
    JobState.ANSWERED: (JobState.CLOSING, JobState.ABANDONED, JobState.ENDED),
    JobState.STOPPING: (JobState.CLOSING, JobState.QUARANTINED, JobState.ABANDONED, JobState.ENDED),
    JobState.CLOSING: (JobState.QUARANTINED, JobState.ABANDONED, JobState.ENDED),
    JobState.QUARANTINED: (JobState.ENDED,),
    JobState.ABANDONED: (JobState.ENDED,),
    JobState.ENDED: (),
}

UNANSWERED = frozenset({JobState.WAITING, JobState.RUNNING, JobState.OPEN, JobState.STOPPING})
"""The states of a job that somebody waits for."""

HANDLED = frozenset(
    {
        JobState.RUNNING,
        JobState.ANSWERED,
        JobState.STOPPING,
        JobState.CLOSING,
        JobState.QUARANTINED,
        JobState.ABANDONED,
    }
)
"""The states of a job whose handler runs."""

JOB_TIMERS: dict[JobState, str | None] = {
    JobState.WAITING: "wait",
    JobState.RUNNING: "deadline",
    JobState.OPEN: "deadline",
    JobState.ANSWERED: None,
    JobState.STOPPING: "grace",
    JobState.CLOSING: "grace",
    JobState.QUARANTINED: None,
    JobState.ABANDONED: None,
    JobState.ENDED: None,
}
"""What the timer of a job limits in each state. A step between states of one meaning leaves it alone."""

AFTER_RESPONSE = {
    JobState.WAITING: JobState.ENDED,
    JobState.RUNNING: JobState.ANSWERED,
    JobState.OPEN: JobState.ENDED,
    JobState.STOPPING: JobState.CLOSING,
}
"""Where an answer by `respond` leads."""


class AdmissionState(_State):
    """What a worker does with requests for jobs."""

    PAUSED = auto()
    """It is not ready, or not active: they wait, and none starts."""
    SERVING = auto()
    """They start as there are slots."""
    DRAINING = auto()
    """It ends: only what was asked for inside a job starts; the others are handed back."""
    CLOSED = auto()
    """It has ended: all are handed back."""


ADMISSION_STEPS: dict[AdmissionState, tuple[AdmissionState, ...]] = {
    AdmissionState.PAUSED: (AdmissionState.SERVING, AdmissionState.DRAINING, AdmissionState.CLOSED),
    AdmissionState.SERVING: (AdmissionState.PAUSED, AdmissionState.DRAINING, AdmissionState.CLOSED),
    AdmissionState.DRAINING: (AdmissionState.CLOSED,),
    AdmissionState.CLOSED: (),
}


StateT = TypeVar("StateT", WorkerState, JobState, AdmissionState)


def moved(steps: dict[StateT, tuple[StateT, ...]], old: StateT, new: StateT) -> StateT:
    """The new state, if it can be reached from the old one.

    Raises:
        AssertionError: It cannot; this is a defect of this package.
    """
    if new not in steps[old]:
        raise AssertionError(f"no step from {old} to {new}")
    return new
