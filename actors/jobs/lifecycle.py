"""The states of workers and jobs, and the only ways from one to the next.

A worker goes from NEW to STOPPED once; a job goes from PENDING to ENDED once. Everything that changes a state asks
`moved`, so that an impossible step is an error where it is made and not a mystery later.
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
    """Its jobs are being cancelled and its requesters told."""
    STOPPED = auto()
    """Gone; its name is free."""


class JobState(_State):
    """Where a job is, seen by its performer."""

    PENDING = auto()
    """Accepted, waits for a free slot or for its worker to become active."""
    RUNNING = auto()
    """Its handler runs."""
    OPEN = auto()
    """Its handler has returned without an answer; the worker answers later."""
    CANCELLING = auto()
    """Its handler has been told to stop and has not yet."""
    ENDED = auto()
    """Answered."""


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

JOB_STEPS: dict[JobState, tuple[JobState, ...]] = {
    JobState.PENDING: (JobState.RUNNING, JobState.ENDED),
    JobState.RUNNING: (JobState.OPEN, JobState.CANCELLING, JobState.ENDED),
    JobState.OPEN: (JobState.ENDED,),
    JobState.CANCELLING: (JobState.ENDED,),
    JobState.ENDED: (),
}

StateT = TypeVar("StateT", WorkerState, JobState)


def moved(steps: dict[StateT, tuple[StateT, ...]], old: StateT, new: StateT) -> StateT:
    """The new state, if it can be reached from the old one.

    Raises:
        AssertionError: It cannot; this is a defect of this package.
    """
    if new not in steps[old]:
        raise AssertionError(f"no step from {old} to {new}")
    return new
