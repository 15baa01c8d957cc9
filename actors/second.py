"""A request under the id of a job that its worker has already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.outcome import refusal
from bus import JobStatus

if TYPE_CHECKING:
    from actors.job import Job
    from bus import BusJobRequestMessage, BusJobResponseMessage


def meet(first: Job[Any], request: BusJobRequestMessage) -> BusJobResponseMessage | None:
    """What to answer to the second request; None if nothing, for it is the same one again, or comes after the first.

    It does that if the job was stopped because its lease was lost, and is ours anew before its handler has stopped.
    """
    same = (first.request.source, first.request.origin) == (request.source, request.origin)
    if same and (not first.cancelled or request.attempt > first.attempt):
        first.second = request if first.cancelled else None
        return None
    message = f"job id {request.job_id!r} is in use by {first.requester!r}: {first!r}"
    return refusal(request, JobStatus.FAILED, "JobStateError", message)


def withdraw(first: Job[Any], kind: str, reason: str) -> BusJobResponseMessage | None:
    """The answer to a second request that is to be stopped, too; None if there is none."""
    second, first.second = first.second, None
    return refusal(second, JobStatus.CANCELLED, kind, reason) if second is not None else None
