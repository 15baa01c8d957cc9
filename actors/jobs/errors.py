"""The errors of actors and jobs: one tree under `ActorError`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from bus import ErrorInfo, JobStatus, MailboxFullError
from bus.errors import Portable, flattened
from bus.log import LONGEST_TRACEBACK, said, traceback_of

Fault = Literal["caller", "remote", "system"]


class ActorError(Portable, Exception):
    """Root of everything `actors` raises.

    Attributes:
        retryable: Whether the same call may succeed later without a change by the caller.
        fault: Whose doing it was: the caller's, the remote side's, or the system's between them.
    """

    retryable: ClassVar[bool] = False
    fault: ClassVar[Fault] = "caller"

    def __init__(self, message: str = "") -> None:
        Exception.__init__(self, message)  # not that of a second base, whose arguments are others


class JobResult(msgspec.Struct, frozen=True):
    """How one member of a group ended.

    Attributes:
        status: How it ended.
        response: What it answered; `{}` if it failed without an answer.
        error: What went wrong, None if it completed.
        attempt: Which delivery of the job the answer came from; 0 if nobody answered.
    """

    status: JobStatus
    response: Any
    error: ErrorInfo | None = None
    attempt: int = 0


class JobError(ActorError):
    """A job did not complete. The job is over and nothing of it is left with the requester.

    A handler may raise one too, to say that it cannot do its job: any other exception is logged as a warning.

    Attributes:
        worker_name: Who was asked.
        status: How the job ended.
        response: What it answered, `{}` if nothing.
        error: What went wrong, as the performer or the system told it.
        job_id: The job.
    """

    fault: ClassVar[Fault] = "remote"

    def __init__(
        self,
        message: str = "",
        *,
        worker_name: str = "",
        status: JobStatus = JobStatus.ERROR,
        response: Any = None,
        error: ErrorInfo | None = None,
        job_id: str = "",
    ) -> None:
        self.worker_name = worker_name
        self.status = status
        self.response = {} if response is None else response
        self.error = error
        self.job_id = job_id
        super().__init__(
            message or f"job {job_id!r} on worker {worker_name!r}: {status.value}: {error or 'no reason given'}"
        )


class JobTimeoutError(JobError, TimeoutError):
    """The job's deadline passed. Its performer has been told to stop."""

    retryable = True
    fault = "system"


class WorkerUnavailableError(JobError):
    """Nobody served the name in time. The request was withdrawn."""

    retryable = True
    fault = "system"


class JobRefusedError(JobError, MailboxFullError):
    """The worker had no room for the job and does not let requesters wait (`when_full="refuse"`).

    Attributes:
        capacity: 0: the text tells it.
    """

    retryable = True
    fault = "remote"
    capacity = 0


class ResultMismatchError(JobError):
    """The worker did the job, and answered something else than `result=` says. `response` is what it answered."""


class JobGroupError(JobError):
    """A group did not complete: the member in `worker_name` failed, the deadline passed, or it was cancelled.

    Attributes:
        results: How each member ended, by worker name.
        responses: The answers that had come in, by worker name.
    """

    def __init__(
        self,
        message: str = "",
        *,
        results: dict[str, JobResult] | None = None,
        responses: dict[str, Any] | None = None,
        worker_name: str = "",
        status: JobStatus = JobStatus.ERROR,
        response: Any = None,
        error: ErrorInfo | None = None,
        job_id: str = "",
    ) -> None:
        self.results = results or {}
        self.responses = responses or {}
        super().__init__(message, worker_name=worker_name, status=status, response=response, error=error, job_id=job_id)


class JobStateError(ActorError, RuntimeError):
    """A job, context or group was used in a state that does not allow it. Nothing changed."""


class RunnerStateError(ActorError, RuntimeError):
    """A runner or worker was used before it was started or after it ended. Nothing was sent."""


class HandlerError(ActorError, TypeError, ValueError):
    """A handler is defined in a way nobody can serve. Raised where it is defined, or where its worker is added."""


class SupervisionError(ActorError):
    """A child failed more often than its restart policy allows; its parent fails with this."""

    fault = "remote"

    def __init__(self, parent: str, child: str, restarts: int, period: float, error: str) -> None:
        self.parent = parent
        self.child = child
        super().__init__(
            f"{parent}: worker {child!r} failed again after {restarts} restarts within {period:g} s; "
            f"last error: {error}"
        )


KINDS: dict[str, type[JobError]] = {
    "JobTimeoutError": JobTimeoutError,
    "WorkerUnavailableError": WorkerUnavailableError,
    "MailboxFullError": JobRefusedError,
    "ResultMismatchError": ResultMismatchError,
}
"""Outcomes that have an error class of their own at the requester, by `ErrorInfo.type`."""


_TOLD = frozenset({JobError, JobTimeoutError, WorkerUnavailableError, JobRefusedError, JobGroupError})

_MOST_LEAVES = 4


def describe(error: BaseException, *, tracebacks: bool = False) -> ErrorInfo:
    """What travels of an exception. Never raises, whatever the exception's own methods do.

    Of a group it is what failed in it; of a job inside the job it is what went wrong there, told once, however deep.
    """
    first, *others = leaves(error)
    info = inside(first)
    if info is None:
        info = ErrorInfo(said(type(first).__name__), said(first), retryable=_is_retryable(first))
    if others:
        more = [str(describe(other)) for other in others[:_MOST_LEAVES]]
        more += [f"{len(others) - _MOST_LEAVES} more"] if len(others) > _MOST_LEAVES else []
        info = msgspec.structs.replace(info, message=said(f"{info.message} (and {', '.join(more)})"))
    if tracebacks and info.traceback is None:
        info = msgspec.structs.replace(info, traceback=traceback_of(error))
    return info


def inside(error: BaseException) -> ErrorInfo | None:
    """What went wrong in a job inside the job, if that is all that an exception says.

    Whether the outer job may be repeated because of it, only its handler can know.
    """
    if type(error) not in _TOLD or not isinstance(error, JobError) or not isinstance(error.error, ErrorInfo):
        return None
    info = error.error
    if not said(error, LONGEST_TRACEBACK).endswith(str(info)):  # somebody has said it in words of his own
        return None
    return msgspec.structs.replace(info, retryable=False, worker=info.worker or error.worker_name)


def leaves(error: BaseException) -> list[BaseException]:
    """What failed in an exception group, but for what ends a task or the program; the error itself if it is none."""
    found = flattened(error)
    return [each for each in found if issubclass(type(each), Exception)] or found


def _is_retryable(error: BaseException) -> bool:
    try:
        return bool(getattr(error, "retryable", False))
    except BaseException:  # noqa: BLE001 - an exception that cannot be asked is still an outcome
        return False
