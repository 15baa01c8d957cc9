"""What the server says when something is wrong: one body, and one table of which error is which."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from actors.jobs.errors import ActorError, HandlerError, JobError, JobRefusedError, JobTimeoutError, RunnerStateError
from actors.jobs.errors import WorkerUnavailableError as Unavailable
from actors.runs.errors import (
    RunConflictError,
    RunFailedError,
    RunNotFoundError,
    RunStateError,
    RunStoreError,
    RunValueError,
)
from bus import (
    BusNotStartedError,
    EncodeError,
    InvalidNameError,
    JobStatus,
    MailboxFullError,
    PayloadError,
    TransportError,
)
from bus.log import log

RETRY_AFTER = {"retry-after": "1"}
"""Seconds after which what failed for a reason that passes may be tried again."""


class Problem(msgspec.Struct, frozen=True):
    """The body of every answer that is an error.

    Attributes:
        code: What went wrong, for programs; it never changes.
        message: The same for people, with the way out.
        retryable: Whether the same request may succeed later.
        request_id: By which the server's log names the request.
    """

    code: str
    message: str
    retryable: bool
    request_id: str


class HttpError(ActorError):
    """An answer that is an error.

    Attributes:
        status: The HTTP status.
        code: See `Problem`.
        retry: See `Problem.retryable`.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry: bool = False, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry = retry
        self.headers = dict(headers or {})

    def problem(self, request_id: str) -> Problem:
        """Its body."""
        message = str(self).encode(errors="replace").decode()
        return Problem(self.code, message, self.retry, request_id)


def unavailable(code: str, message: str) -> HttpError:
    """What will pass: 503."""
    return HttpError(503, code, message, retry=True, headers=RETRY_AFTER)


def invalid(message: str) -> HttpError:
    """What the request says cannot be done: 422."""
    return HttpError(422, "invalid_request", message)


_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int, str], ...] = (
    (RunNotFoundError, 404, "run_not_found"),
    (RunConflictError, 409, "idempotency_conflict"),
    (RunStateError, 409, "run_state"),
    (RunValueError, 409, "run_unreadable"),
    (RunStoreError, 503, "run_store_unavailable"),
    (JobTimeoutError, 504, "job_timeout"),
    (Unavailable, 503, "worker_unavailable"),
    ((JobRefusedError, MailboxFullError), 503, "worker_busy"),
    ((EncodeError, PayloadError, InvalidNameError), 422, "invalid_request"),
    ((TransportError, BusNotStartedError, RunnerStateError), 503, "bus_unavailable"),
)


def http_error(error: Exception) -> HttpError | None:
    """The answer to an error that is expected; None for one that is not."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, HTTPException):
        code = HTTPStatus(error.status_code).name.lower()
        return HttpError(error.status_code, code, error.detail, headers=error.headers)
    if isinstance(error, RunFailedError):
        return HttpError(409, f"run_{error.status.state.value}", str(error))
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            retry = status >= HTTPStatus.INTERNAL_SERVER_ERROR
            return HttpError(status, code, str(error), retry=retry, headers=RETRY_AFTER if retry else None)
    return _job_error(error) if isinstance(error, JobError) else None


def _job_error(error: JobError) -> HttpError:
    reason = error.error
    if reason is not None and reason.type == PayloadError.__name__ and error.status is JobStatus.FAILED:
        return invalid(reason.message)
    refused = reason if reason is not None and reason.worker is None else None  # else a job inside it was
    if refused and refused.type == HandlerError.__name__ and refused.message.startswith("no handler for"):
        return HttpError(404, "no_such_handler", refused.message)
    if error.status is JobStatus.CANCELLED:
        return unavailable("job_cancelled", str(error))
    if error.status is JobStatus.ERROR:
        return HttpError(500, "handler_failed", str(reason or error), retry=bool(reason and reason.retryable))
    return HttpError(500, "job_failed", str(error), retry=bool(reason and reason.retryable))


REQUEST_ID = "actorbus.request_id"
"""Where a request's id is kept in its scope."""


def refusal(error: Exception, scope: Scope) -> Response:
    """The answer to a request that failed. What nobody expected is logged, and not told."""
    known = http_error(error)
    request_id = request_id_of(scope)
    if known is None:
        log().error("request failed", request=request_id, path=scope["path"], exc_info=error)
        known = HttpError(500, "internal", f"this is a defect of the server; its log names request {request_id}")
    return Response(msgspec.json.encode(known.problem(request_id)), known.status, known.headers, "application/json")


def request_id_of(scope: Scope) -> str:
    """The id of a request, made where there is none yet."""
    request_id: str = scope.setdefault(REQUEST_ID, secrets.token_hex(8))
    return request_id
