"""What is seen of jobs: events while they run, the answers of a group, and the record that hooks are given."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from actors.jobs.errors import JobResult
from bus import (
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    ErrorInfo,
    JobStatus,
)
from bus.wire.known import own_type


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


class JobRecord(msgspec.Struct, frozen=True):
    """What the hooks `on_job_start`, `on_job_complete` and `on_job_error` are told.

    Attributes:
        worker_name: Who does the job.
        job_id: The job.
        job_name: Its name, None if it has none.
        attempt: Which delivery of it.
        requester: Who asked.
        status: How it ended; None at its start.
        error: What went wrong; None if nothing did.
        run: The run it is part of; None if it is part of none.
    """

    worker_name: str
    job_id: str
    job_name: str | None
    attempt: int
    requester: str
    status: JobStatus | None = None
    error: ErrorInfo | None = None
    run: str | None = None


own_type(JobRecord, "JobRecord")

SHOWN_AS: dict[type[Any], tuple[str, str]] = {
    BusJobStreamStartMessage: (JobGroupEvent.STREAM_START, "on_job_stream_start"),
    BusJobStreamDataMessage: (JobGroupEvent.STREAM_DATA, "on_job_stream_data"),
    BusJobStreamEndMessage: (JobGroupEvent.STREAM_END, "on_job_stream_end"),
}
"""As which event of an iterator, and to which hook, a message of a member is shown."""
