"""What is seen of jobs: events while they run, the answers of a group, and the record that hooks are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

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

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    AnswerT = TypeVar("AnswerT", default=Any)
else:
    from typing import TypeVar

    AnswerT = TypeVar("AnswerT")

JobEventType = Literal["update", "stream_start", "stream_data", "stream_end"]
JobGroupEventType = Literal["update", "stream_start", "stream_data", "stream_end", "member_done"]


class JobEvent(msgspec.Struct):
    """Something a job sent before its answer.

    Attributes:
        type: `UPDATE`, `STREAM_START`, `STREAM_DATA` or `STREAM_END`.
        data: What it sent.
        attempt: Which delivery of the job it comes from; see `JobGroupEvent`.
    """

    UPDATE: ClassVar[Literal["update"]] = "update"
    STREAM_START: ClassVar[Literal["stream_start"]] = "stream_start"
    STREAM_DATA: ClassVar[Literal["stream_data"]] = "stream_data"
    STREAM_END: ClassVar[Literal["stream_end"]] = "stream_end"

    type: JobEventType
    data: Any = None
    attempt: int = 1


class JobGroupEvent(msgspec.Struct):
    """Something a member of a group sent before its answer, or that it has ended.

    Attributes:
        type: `UPDATE`, `STREAM_START`, `STREAM_DATA` or `STREAM_END`; `MEMBER_DONE`, the last one of each member.
        worker_name: Whose event it is.
        data: What the member sent; of `MEMBER_DONE`, what it answered.
        attempt: Which delivery of the job it comes from. When this grows, a performer died and another began again:
            what the earlier one had streamed is void.
        result: Of `MEMBER_DONE`, how the member ended, also if it did not complete; None of the others.
    """

    UPDATE: ClassVar[Literal["update"]] = "update"
    STREAM_START: ClassVar[Literal["stream_start"]] = "stream_start"
    STREAM_DATA: ClassVar[Literal["stream_data"]] = "stream_data"
    STREAM_END: ClassVar[Literal["stream_end"]] = "stream_end"
    MEMBER_DONE: ClassVar[Literal["member_done"]] = "member_done"

    type: JobGroupEventType
    worker_name: str
    data: Any = None
    attempt: int = 1
    result: JobResult | None = None


class JobGroupResponse(msgspec.Struct, Generic[AnswerT], frozen=True):
    """A group that has completed.

    Attributes:
        job_id: The group.
        responses: Answers by worker name.
        results: How each member ended, by worker name.
    """

    job_id: str
    responses: dict[str, AnswerT]
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

SHOWN_AS: dict[type[Any], tuple[JobEventType, str]] = {
    BusJobStreamStartMessage: (JobGroupEvent.STREAM_START, "on_job_stream_start"),
    BusJobStreamDataMessage: (JobGroupEvent.STREAM_DATA, "on_job_stream_data"),
    BusJobStreamEndMessage: (JobGroupEvent.STREAM_END, "on_job_stream_end"),
}
"""As which event of an iterator, and to which hook, a message of a member is shown."""
