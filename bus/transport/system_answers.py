"""Answers that the bus itself gives for a job, when the workers at its two ends cannot."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from bus.errors import BusError
from bus.local.dead_letters import DEAD_LETTERED
from bus.messages import (
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobReturnedMessage,
    BusJobRunningMessage,
    BusJobStreamChunksMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    ErrorInfo,
    JobStatus,
)
from bus.wire.codec import Header

_EVENTS = frozenset(
    kind.__name__
    for kind in (
        BusJobResponseMessage,
        BusJobResponseUrgentMessage,
        BusJobUpdateMessage,
        BusJobUpdateUrgentMessage,
        BusJobStreamStartMessage,
        BusJobStreamDataMessage,
        BusJobStreamChunksMessage,
        BusJobStreamEndMessage,
    )
)
"""Tags of what a requester takes in order: if one were missing, it would wait for ever."""


def cannot_leave(request: BusJobRequestMessage, error: BusError) -> BusJobResponseMessage:
    """The answer to a request of this process that its worker here gives up, and that cannot go to others."""
    return answered_by_bus(request, JobStatus.FAILED, _info(error))


def in_place_of(answer: Any, error: BusError) -> BusJobResponseMessage:
    """The answer in place of one that cannot travel."""
    return BusJobResponseMessage(
        source=answer.source,
        target=answer.target,
        destination=answer.destination,
        job_id=answer.job_id,
        sequence=answer.sequence,
        attempt=answer.attempt,
        asked=answer.asked,
        status=JobStatus.ERROR,
        error=_info(error),
    )


def to_unreadable_request(header: Header, attempt: int, error: BusError) -> BusJobResponseMessage | None:
    """The answer to a request that cannot be read here; None if the frame names no job, or nobody to answer."""
    if header.job_id is None or not header.origin:
        return None
    return BusJobResponseMessage(
        source=header.target or "",
        target=header.source,
        job_id=header.job_id,
        attempt=attempt,
        status=JobStatus.ERROR,
        error=_info(error),
    )


def for_unreadable_event(header: Header, error: BusError) -> BusJobResponseMessage | None:
    """The end of a job for its requester, if what its performer sent cannot be read here and was one of its events."""
    if header.type not in _EVENTS or header.job_id is None:
        return None
    return BusJobResponseMessage(
        source=header.source,
        target=header.target,
        origin=header.origin,
        job_id=header.job_id,
        sequence=header.sequence,
        attempt=header.attempt,
        status=JobStatus.ERROR,
        error=_info(error),
    )


def to_orphan(message: BusJobRunningMessage) -> BusJobCancelMessage:
    """The cancellation for a performer that still works for a requester which is not here any more."""
    return BusJobCancelMessage(
        source=message.target or "",
        target=message.source,
        job_id=message.job_id,
        reason="its requester is gone",
    )


def returned(request: BusJobRequestMessage | BusJobInquiryMessage, *, may_have_run: bool) -> BusJobReturnedMessage:
    """The message for the requester of a job at most once that this process does not have, or not any more."""
    return BusJobReturnedMessage(
        source=request.target or "", target=request.source, job_id=request.job_id, may_have_run=may_have_run
    )


def answered_by_bus(request: BusJobRequestMessage, status: JobStatus, error: ErrorInfo) -> BusJobResponseMessage:
    """The answer to a job that its worker never sees, for the runner that asked."""
    return BusJobResponseMessage(
        source=request.target or "",
        target=request.source,
        destination=request.origin,
        job_id=request.job_id,
        attempt=request.attempt,
        status=status,
        error=error,
    )


def later(answer: Any, attempt: int) -> Any:
    """An answer as that of a later attempt: the job was delivered again, and another may have had it in between.

    The events before the answer are not sent again. A stream would end in the middle, so its job fails instead.
    """
    if not isinstance(answer, BusJobStreamEndMessage):
        return replace(answer, attempt=attempt, sequence=0)
    message = "its stream was sent to the end, but its requester was hearing another performer, and it is not kept"
    return BusJobResponseMessage(
        source=answer.source,
        target=answer.target,
        destination=answer.destination,
        job_id=answer.job_id,
        attempt=attempt,
        asked=answer.asked,
        status=JobStatus.FAILED,
        error=ErrorInfo(type="AnswerForgotten", message=message),
    )


def _info(error: BusError) -> ErrorInfo:
    return ErrorInfo(type=type(error).__name__, message=str(error))


def in_use(request: BusJobRequestMessage) -> BusJobResponseMessage:
    """The answer to a request under the id of another job that still runs."""
    message = f"job id {request.job_id!r} is in use by {request.source!r}: what was asked for under it goes on"
    return BusJobResponseMessage(
        source=request.target or "",
        target=request.source,
        job_id=request.job_id,
        attempt=request.attempt,
        asked=request.asked,
        status=JobStatus.FAILED,
        error=ErrorInfo(type="JobStateError", message=message),
    )


def gave_up(answer: Any) -> bool:
    """Whether an answer says that its job was given up on: then the frame of the job becomes a dead letter."""
    if not isinstance(answer, BusJobResponseMessage) or answer.error is None:
        return False
    return answer.error.type == DEAD_LETTERED and answer.status == JobStatus.FAILED
