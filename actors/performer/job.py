"""A job, as its handler sees it."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from msgspec.structs import replace

from actors.observability.trace import Trace
from bus import (
    BusJobRequestMessage,
    BusJobStreamDataMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    ErrorInfo,
    JobStatus,
    travel,
)

PayloadT = TypeVar("PayloadT")


class Performed(Protocol):
    """A job that is being done, as what its handler holds needs it: an execution."""

    request: BusJobRequestMessage
    payload: Any
    streaming: bool
    stopped_for: ErrorInfo | None

    @property
    def worker_name(self) -> str:
        """Name of the worker that does it."""

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline; None if there is none."""

    @property
    def answered(self) -> bool:
        """Whether the requester has its outcome."""

    async def event(self, kind: type[Any], **fields: Any) -> None:
        """Send one event; waits while the requester has no room for more."""

    def respond(self, response: Any, status: JobStatus, *, urgent: bool = False, stream_end: bool = False) -> None:
        """Answer the job."""


class Job(Generic[PayloadT]):
    """One request as its handler holds it: `async def handler(self, job: Job[Question])`.

    Updates and chunks reach the requester in the order sent, none lost, all before the answer.

    Attributes:
        payload: What was sent, converted to the annotated type.
    """

    __slots__ = ("__execution", "payload")

    def __init__(self, execution: Performed) -> None:
        self.__execution = execution
        self.payload: PayloadT = execution.payload

    def __repr__(self) -> str:
        return repr(self.__execution)

    @property
    def id(self) -> str:
        """Identity of the job, the same in every attempt."""
        return self.__execution.request.job_id

    @property
    def name(self) -> str | None:
        """The job name it was asked for under."""
        return self.__execution.request.job_name

    @property
    def request(self) -> BusJobRequestMessage:
        """The message it came with: a copy of it."""
        return replace(self.__execution.request)

    @property
    def requester(self) -> str:
        """Name of the worker or client that asked."""
        return self.__execution.request.source

    @property
    def worker_name(self) -> str:
        """Name of the worker that does the job."""
        return self.__execution.worker_name

    @property
    def attempt(self) -> int:
        """1 for the first delivery, more after a performer died with it."""
        return self.__execution.request.attempt

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed; None if there is none."""
        return self.__execution.remaining

    @property
    def trace(self) -> Trace | None:
        """The run and the trace it is part of; None if it is of neither."""
        return Trace.of(self.__execution.request)

    @property
    def cancelled(self) -> bool:
        """Whether the job has been told to stop."""
        return self.__execution.stopped_for is not None

    @property
    def ended(self) -> bool:
        """Whether the requester has been answered."""
        return self.__execution.answered

    async def update(self, update: Any = None, *, urgent: bool = False) -> None:
        """Send the requester a progress report.

        Waits while the requester has 256 events of this job that it has not taken.

        Args:
            update: Anything that can travel.
            urgent: Overtake what is queued at the requester for other jobs, never this job's earlier events.

        Raises:
            EncodeError: The value cannot travel; nothing was sent, the job goes on.
            JobStateError: The job has ended.
        """
        kind = BusJobUpdateUrgentMessage if urgent else BusJobUpdateMessage
        await self.__execution.event(kind, update=travel(update, "update"))

    async def stream(self, data: Any = None) -> None:
        """Send one chunk; the first one opens the stream. Waits and raises as `update`."""
        data = travel(data, "data")
        if not self.__execution.streaming:
            await self.stream_start()
        await self.__execution.event(BusJobStreamDataMessage, data=data)

    async def stream_start(self, data: Any = None) -> None:
        """Open the stream with a value about it. Waits and raises as `update`."""
        data = travel(data, "data")
        self.__execution.streaming = True
        await self.__execution.event(BusJobStreamStartMessage, data=data)

    async def stream_end(self, data: Any = None) -> None:
        """End the stream and the job: `data` is its response.

        Raises:
            EncodeError: The value cannot travel; the requester was answered ERROR.
            JobStateError: The job has ended.
        """
        self.__execution.respond(data, JobStatus.COMPLETED, stream_end=True)

    async def respond(
        self, response: Any = None, *, status: JobStatus = JobStatus.COMPLETED, urgent: bool = False
    ) -> None:
        """Answer the job, once. What the handler does or returns afterwards changes nothing for the requester.

        Raises:
            EncodeError: The response cannot travel; the requester was answered ERROR.
            JobStateError: The job has ended.
        """
        self.__execution.respond(response, JobStatus(status), urgent=urgent)
