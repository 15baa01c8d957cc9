"""How jobs end when nobody answers for them, in words: pure, so that requesters and performers say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.jobs.errors import KINDS, JobError, JobGroupError, JobResult
from bus import (
    DEAD_LETTERED,
    BusJobRequestMessage,
    BusJobResponseMessage,
    ErrorInfo,
    JobStatus,
    MailboxFullError,
    WorkerRegistry,
)
from bus.log import reason_of

CANCELLED = "JobCancelled"
"""`ErrorInfo.type` of a job that somebody told to stop."""

TIMED_OUT = "JobTimeoutError"
"""`ErrorInfo.type` of a job whose deadline passed."""


MISMATCH = "ResultMismatchError"
"""`ErrorInfo.type` of a job whose answer is not what its requester wants."""


def cancelled(reason: str | None = None, otherwise: str = "cancelled") -> ErrorInfo:
    """Somebody told the job to stop."""
    return ErrorInfo(type=CANCELLED, message=reason_of(reason, otherwise))


def overdue(reason: str = "timeout: the deadline passed") -> ErrorInfo:
    """The performer stopped the job at its deadline."""
    return ErrorInfo(type=TIMED_OUT, message=reason, retryable=True)


def cancelled_by_stranger(kind: str) -> ErrorInfo:
    """A handler raised a cancellation that nobody asked for."""
    return ErrorInfo(type=kind, message="the handler was cancelled by something it awaited, not by its requester")


def refused(error: MailboxFullError) -> ErrorInfo:
    """A worker's mailbox had no room."""
    return ErrorInfo(type="MailboxFullError", message=str(error), retryable=True)


def timed_out(waited_for: Sequence[str], registry: WorkerRegistry, *, networked: bool) -> ErrorInfo:
    """The deadline of a group passed before these workers had answered."""
    message = f"timeout: no answer from {', '.join(map(repr, waited_for))} before the deadline"
    missing = next((name for name in waited_for if name not in registry), None)
    if missing is not None:
        message += f"; nobody serves {missing!r}: {_whom_to_ask(missing, registry, networked=networked)}"
    return ErrorInfo(type=TIMED_OUT, message=message, retryable=True)


def unavailable(name: str, seconds: float, registry: WorkerRegistry, *, networked: bool) -> ErrorInfo:
    """Nobody has served a name for as long as a requester waits for that."""
    message = f"nobody served {name!r} within {seconds:g} s; {_whom_to_ask(name, registry, networked=networked)}"
    return ErrorInfo(type="WorkerUnavailableError", message=message, retryable=True)


def _whom_to_ask(name: str, registry: WorkerRegistry, *, networked: bool) -> str:
    alive = registry.who_is_alive(name)
    if alive.endswith("?"):
        return alive
    if not networked:
        return f"{alive}; this bus reaches only its own process: to reach others set ACTORBUS_BUS, or give a URL"
    if not registry.remote_workers:
        return f"{alive}; no other runner was heard: has it been started, with the same URL, namespace and signing key?"
    return alive


def inactive(name: str, seconds: float) -> ErrorInfo:
    """A worker kept a job for that long without being active."""
    message = f"worker {name!r} was not active within {seconds:g} s: activate it, or ask another"
    return ErrorInfo(type="WorkerUnavailableError", message=message, retryable=True)


def lost(name: str) -> ErrorInfo:
    """The network has lost what it had stored."""
    message = f"the network lost what it had stored: whether {name!r} did the job is not known"
    return ErrorInfo(type="DataLostError", message=message, retryable=True)


def failed_beside(name: str, status: JobStatus, error: ErrorInfo | None) -> ErrorInfo:
    """Another member of the group did not complete."""
    reason = error.message if error is not None else f"it ended as {status.value}"
    return cancelled(f"worker {name!r} of the same group: {reason}")


def refusal(request: BusJobRequestMessage, status: JobStatus, kind: str, message: str) -> BusJobResponseMessage:
    """The answer to a request that no handler will see."""
    return BusJobResponseMessage(
        source=request.target or "",
        target=request.source,
        destination=request.origin,
        job_id=request.job_id,
        attempt=request.attempt,
        status=status,
        error=ErrorInfo(type=kind, message=message),
    )


def answer_of_the_system(
    worker_name: str, requester: str, job_id: str, status: JobStatus, error: ErrorInfo | None
) -> BusJobResponseMessage:
    """What hooks get when the system, and not the member, ended its job."""
    return BusJobResponseMessage(
        source=worker_name, target=requester, job_id=job_id, status=status, error=error, attempt=0
    )


def is_from_performer(answer: Any) -> bool:
    """Whether an answer that tells of a failure comes from who did the job, and not from the system."""
    return answer.attempt > 0 and not is_told(answer.status, answer.error, DEAD_LETTERED)


def is_told(status: JobStatus, error: ErrorInfo | None, kind: str) -> bool:
    """Whether the system says that a job ended in a way of its own: what handlers raise is never called FAILED."""
    return error is not None and error.type == kind and status == JobStatus.FAILED


def group_error(
    job_id: str,
    worker_names: Sequence[str],
    *,
    ended_by: str,
    status: JobStatus,
    response: Any,
    error: ErrorInfo | None,
    results: dict[str, JobResult],
    responses: dict[str, Any],
    cause: BaseException | None = None,
) -> JobGroupError:
    """The error of a group that one member ended, or, where `ended_by` is empty, the system."""
    who = f"job {job_id!r} on worker {ended_by or ', '.join(worker_names)!r}"
    made = JobGroupError(
        f"{who}: {status.value}: {error or 'no reason given'}",
        results=results,
        responses=responses,
        worker_name=ended_by or next(iter(worker_names), ""),
        status=status,
        response=response,
        error=error,
        job_id=job_id,
    )
    made.__cause__ = cause
    return made


def job_error(worker_name: str, error: JobGroupError) -> JobError:
    """The error of a group of one, as the error of its job."""
    told = error.error if error.status == JobStatus.FAILED else None  # a handler may raise one of these, too
    kind = KINDS.get(told.type, JobError) if told is not None else JobError
    made = kind(
        str(error),
        worker_name=worker_name,
        status=error.status,
        response=error.response,
        error=error.error,
        job_id=error.job_id,
    )
    made.__cause__ = error.__cause__
    return made
