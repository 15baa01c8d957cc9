"""A request under the id of a job that its worker has already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.job import Job
    from bus import BusJobRequestMessage


def meet(first: Job[Any], request: BusJobRequestMessage) -> str | None:
    """Why the second request is refused; None if it is not, for it is the same one again, or comes after the first.

    It does that if the job was stopped because its lease was lost, and is ours anew before its handler has stopped.
    """
    same = (first.request.source, first.request.origin) == (request.source, request.origin)
    if same and (not first.cancelled or request.attempt > first.attempt):
        first.second = request if first.cancelled else None
        return None
    return f"job id {request.job_id!r} is in use by {first.requester!r}: {first!r}"


def withdraw(first: Job[Any]) -> BusJobRequestMessage | None:
    """Take away the second request, which is to be stopped, too; None if there is none."""
    second, first.second = first.second, None
    return second
