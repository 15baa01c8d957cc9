"""What a requester sees of its jobs: events while they run, and the answers of a group."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from actors.jobs.errors import JobResult
from bus import BusJobStreamDataMessage, BusJobStreamEndMessage, BusJobStreamStartMessage


class JobEvent(msgspec.Struct):
    """Something a job sent before its answer.

    Attributes:
        type: `UPDATE`, `STREAM_START`, `STREAM_DATA` or `STREAM_END`.
        data: What it sent.
        attempt: Which delivery of the job it comes from; see `JobGroupEvent`.
    """

    UPDATE: ClassVar[str] = "update"
    STREAM_START: ClassVar[str] = "stream_start"
    STREAM_DATA: ClassVar[str] = "stream_data"
    STREAM_END: ClassVar[str] = "stream_end"

    type: str
    data: Any = None
    attempt: int = 1


class JobGroupEvent(msgspec.Struct):
    """Something a member of a group sent before its answer.

    Attributes:
        type: `UPDATE`, `STREAM_START`, `STREAM_DATA` or `STREAM_END`.
        worker_name: Who sent it.
        data: What it sent.
        attempt: Which delivery of the job it comes from. When this grows, a performer died and another began again:
            what the earlier one had streamed is void.
    """

    UPDATE: ClassVar[str] = "update"
    STREAM_START: ClassVar[str] = "stream_start"
    STREAM_DATA: ClassVar[str] = "stream_data"
    STREAM_END: ClassVar[str] = "stream_end"

    type: str
    worker_name: str
    data: Any = None
    attempt: int = 1


class JobGroupResponse(msgspec.Struct, frozen=True):
    """A group that has completed.

    Attributes:
        job_id: The group.
        responses: Answers by worker name.
        results: How each member ended, by worker name.
    """

    job_id: str
    responses: dict[str, Any]
    results: dict[str, JobResult] = {}


SHOWN_AS: dict[type[Any], tuple[str, str]] = {
    BusJobStreamStartMessage: (JobGroupEvent.STREAM_START, "on_job_stream_start"),
    BusJobStreamDataMessage: (JobGroupEvent.STREAM_DATA, "on_job_stream_data"),
    BusJobStreamEndMessage: (JobGroupEvent.STREAM_END, "on_job_stream_end"),
}
"""As which event of an iterator, and to which hook, a message of a member is shown."""
