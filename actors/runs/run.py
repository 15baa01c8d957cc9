"""A run: a job, or a group of jobs, with a record that outlives who submitted it and who does it."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import msgspec

from bus import ErrorInfo


class RunState(Enum):
    """Where a run stands."""

    PENDING = "pending"
    """Nobody does it now."""
    RUNNING = "running"
    """Its owner asks for its jobs, or its owner has died and nobody has found out yet."""
    COMPLETED = "completed"
    """It has its result."""
    FAILED = "failed"
    """It has not, and will not."""
    CANCELLED = "cancelled"
    """It was cancelled, and what it did has stopped."""

    @property
    def terminal(self) -> bool:
        """Whether it is never left again."""
        return not STEPS[self]


STEPS: dict[RunState, tuple[RunState, ...]] = {
    RunState.PENDING: (RunState.RUNNING, RunState.FAILED, RunState.CANCELLED),
    # Back to pending: its owner ended before it, and leaves it to another.
    RunState.RUNNING: (RunState.PENDING, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED),
    RunState.COMPLETED: (),
    RunState.FAILED: (),
    RunState.CANCELLED: (),
}


class RunEventType(Enum):
    """What an event of a run is about."""

    AGENT_STARTED = "agent_started"
    """A worker was asked."""
    AGENT_COMPLETED = "agent_completed"
    """A worker has answered; `data` is its answer."""
    AGENT_FAILED = "agent_failed"
    """A worker's job ended otherwise; `data` says its status and error."""
    UPDATE = "update"
    """A worker sent an update."""
    STREAM = "stream"
    """A worker sent a chunk of its stream."""
    GROUP_COMPLETED = "group_completed"
    """The last event of a run that completed or failed; `data` says which, and the error."""
    RUN_CANCELLED = "run_cancelled"
    """The last event of a run that was cancelled."""

    @property
    def terminal(self) -> bool:
        """Whether nothing follows it."""
        return self in {RunEventType.GROUP_COMPLETED, RunEventType.RUN_CANCELLED}


class RunProgress(msgspec.Struct, frozen=True):
    """How many of a run's workers were asked, have completed, have failed, and are at it."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    running: int = 0


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done.

    Attributes:
        worker_names: Whom to ask: one for a job, several for a group.
        name: Which of their handlers.
        payload: What the handlers get.
        payloads: Payloads of single workers, by name; the others get `payload`.
        timeout: Seconds one attempt may take.
        cancel_on_error: Whether one worker that does not complete ends the run.
        delivery: How the requests travel; None is the bus's own setting.
        label: A text for people.
        traceparent: The trace that it was submitted in; see `tracing`. It does not tell one request from another.
        tracestate: What belongs to that.
    """

    worker_names: tuple[str, ...]
    name: str | None = None
    payload: Any = None
    payloads: dict[str, Any] | None = None
    timeout: float | None = None
    cancel_on_error: bool = True
    delivery: Literal["at_least_once", "at_most_once"] | None = None
    label: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run.

    Attributes:
        run_id: Its id; later ones sort after earlier ones.
        state: Where it stands.
        worker_names: Whom it asks.
        job_name: Which of their handlers.
        label: A text for people.
        owner: Who does it, or did last; empty before.
        attempts: How often somebody began to do it.
        created_at: Unix time, like the others by the clock of who wrote it.
        started_at: When somebody last began to do it.
        finished_at: When it reached its last state: for a cancelled run, when what it did had stopped.
        cancel_requested_at: When somebody asked to cancel it.
        progress: Of the present attempt, or the last.
        error: Why it failed or was cancelled.
        idempotency_key: What it was submitted under, if anything.
        ttl: Seconds it is kept after it has finished; None for ever.
    """

    run_id: str
    state: RunState
    worker_names: tuple[str, ...]
    job_name: str | None = None
    label: str | None = None
    owner: str = ""
    attempts: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    cancel_requested_at: float | None = None
    progress: RunProgress = RunProgress()
    error: ErrorInfo | None = None
    idempotency_key: str | None = None
    ttl: float | None = None


class Unreadable(msgspec.Struct, frozen=True):
    """Stands for the data of an event that this process cannot read.

    Attributes:
        reason: Which part of it, and why.
    """

    reason: str


class RunEvent(msgspec.Struct, frozen=True):
    """Something that happened in a run.

    Attributes:
        offset: Its place in the run's events, from 0; each is greater than the one before.
        type: What it is about.
        worker_name: Whose it is; None for the run as a whole.
        data: What came with it; `Unreadable` if that cannot be read in this process.
        attempt: Which attempt at the run.
        at: Unix time, by the clock of the owner.
    """

    offset: int
    type: RunEventType
    worker_name: str | None = None
    data: Any = None
    attempt: int = 0
    at: float = 0.0


class Lease(msgspec.Struct, frozen=True):
    """Who does a run, as one look at its record showed.

    Attributes:
        run_id: The run.
        owner: Who does it; empty if nobody does.
        attempt: The fencing number: what an older attempt writes is refused.
        beat: Counts the owner's signs of life. A beat that does not change for a lease is that of a dead owner, by the
            clock of who watches: clocks are never compared.
        cancelled: Whether the run is to be cancelled.
    """

    run_id: str
    owner: str = ""
    attempt: int = 0
    beat: int = 0
    cancelled: bool = False
