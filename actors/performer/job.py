"""A job, seen by the worker that does it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from actors.jobs.errors import JobStateError
from actors.jobs.lifecycle import JOB_STEPS, JobState, moved
from actors.observability.trace import Trace
from bus import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    EncodeError,
    ErrorInfo,
    JobStatus,
    travel,
)
from bus.local.tasks import wake

if TYPE_CHECKING:
    from actors.performer.admission import Lane
    from actors.performer.execution import Executor
    from actors.performer.handler import Handler
    from actors.requester.group import JobGroup
    from actors.runner.runner import WorkerRunner
    from bus.local.deadlines import Deadline
    from bus.local.tasks import PooledTask, Waiter


PayloadT = TypeVar("PayloadT")


class Job(Generic[PayloadT]):
    """One request as its performer holds it: `async def handler(self, job: Job[Question])`.

    Updates and chunks reach the requester in the order sent, none lost, all before the answer.

    Attributes:
        payload: What was sent, converted to the annotated type.
        request: The message it came with.
    """

    __slots__ = (
        "_executor",
        "_waiters",
        "cancelled_for",
        "deadline",
        "groups",
        "handler",
        "handler_ended",
        "lane",
        "limit",
        "payload",
        "place",
        "request",
        "second",
        "sequence",
        "state",
        "streaming",
        "task",
        "timer",
    )

    place: int
    """Its place in the line of those that wait for a slot."""

    def __init__(self, executor: Executor, request: BusJobRequestMessage, handler: Handler, lane: Lane) -> None:
        self._executor = executor
        self.request = request
        self.second: BusJobRequestMessage | None = None
        self.payload: PayloadT = request.payload
        self.handler = handler
        self.lane = lane
        self.state = JobState.PENDING
        self.sequence = 0
        self.limit = request.window
        self.streaming = False
        self.handler_ended = True
        self.cancelled_for: ErrorInfo | None = None
        self.deadline = math.inf
        self.groups: dict[JobGroup, None] | None = None
        self.task: PooledTask | None = None
        self.timer: Deadline | None = None
        self._waiters: list[Waiter] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name or ''} {self.state.name.lower()} attempt={self.attempt}>"

    @property
    def host(self) -> WorkerRunner:
        """The runner whose worker does the job."""
        return self._executor.host

    @property
    def worker_name(self) -> str:
        """Name of the worker that does the job."""
        return self._executor.name

    @property
    def id(self) -> str:
        """Identity of the job, the same in every attempt."""
        return self.request.job_id

    @property
    def name(self) -> str | None:
        """The job name it was asked for under."""
        return self.request.job_name

    @property
    def requester(self) -> str:
        """Name of the worker or client that asked."""
        return self.request.source

    @property
    def attempt(self) -> int:
        """1 for the first delivery, more after a performer died with it."""
        return self.request.attempt

    @property
    def trace(self) -> Trace | None:
        """The run and the trace it is part of; None if it is of neither."""
        request = self.request
        return None if request.trace is None and request.run is None else Trace.of(request)

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed; None if there is none."""
        if self.deadline == math.inf:
            return None
        return max(self.deadline - self._executor.host.tasks.now(), 0.0)

    @property
    def cancelled(self) -> bool:
        """Whether the job has been told to stop."""
        return self.cancelled_for is not None

    @property
    def ended(self) -> bool:
        """Whether the requester has been answered."""
        return self.state is JobState.ENDED

    @property
    def takes_part(self) -> set[str]:
        """Names of the workers that do this job, and the ones inside which it was asked for."""
        return {self.worker_name, *(entry.rpartition("@")[2] for entry in self.request.lineage)}

    async def update(self, update: Any = None, *, urgent: bool = False) -> None:
        """Tell the requester about progress.

        Waits while the requester has 256 events of this job it has not taken.

        Args:
            update: Anything that can travel.
            urgent: Overtake what is queued at the requester for other jobs, never this job's earlier events.

        Raises:
            EncodeError: The value cannot travel; nothing was sent, the job goes on.
            JobStateError: The job has ended.
        """
        kind = BusJobUpdateUrgentMessage if urgent else BusJobUpdateMessage
        await self.event(kind, update=travel(update, "update"))

    async def stream(self, data: Any = None) -> None:
        """Send one chunk; the first one opens the stream. Waits and raises as `update`."""
        data = travel(data, "data")
        if not self.streaming:
            await self.stream_start()
        await self.event(BusJobStreamDataMessage, data=data)

    async def stream_start(self, data: Any = None) -> None:
        """Open the stream with a value about it. Waits and raises as `update`."""
        data = travel(data, "data")
        self.streaming = True
        await self.event(BusJobStreamStartMessage, data=data)

    async def stream_end(self, data: Any = None) -> None:
        """End the stream and the job: `data` is its response.

        Raises:
            EncodeError: The value cannot travel; the requester was told ERROR.
            JobStateError: The job has ended.
        """
        self._executor.respond(self, data, JobStatus.COMPLETED, stream_end=True)

    async def respond(
        self, response: Any = None, *, status: JobStatus = JobStatus.COMPLETED, urgent: bool = False
    ) -> None:
        """Answer the job, once. What the handler does or returns afterwards changes nothing for the requester.

        Raises:
            EncodeError: The response cannot travel; the requester was told ERROR.
            JobStateError: The job has ended.
        """
        self._executor.respond(self, response, status, urgent=urgent)

    async def event(self, kind: type[Any], **fields: Any) -> None:
        """Send one event message of this job; the machinery under `update` and `stream`."""
        while self.sequence >= self.limit and self.state is not JobState.ENDED:
            await self._wait_for_credit()
        self.require_open()
        sequence = self.sequence
        self.sequence = sequence + 1
        request = self.request
        try:
            self._executor.post(
                kind(
                    source=self._executor.name,
                    target=request.source,
                    destination=request.origin,
                    job_id=request.job_id,
                    sequence=sequence,
                    attempt=request.attempt,
                    **fields,
                )
            )
        except EncodeError:
            self.sequence = sequence  # it was not sent: what comes next takes its place
            raise

    def answer(
        self, status: JobStatus, response: Any, error: ErrorInfo | None, *, urgent: bool, stream_end: bool
    ) -> BusMessage:
        """The message that ends this job at its requester."""
        request = self.request
        if stream_end:
            return BusJobStreamEndMessage(
                source=self._executor.name,
                target=request.source,
                destination=request.origin,
                job_id=request.job_id,
                sequence=self.sequence,
                attempt=request.attempt,
                data=response,
            )
        kind = BusJobResponseUrgentMessage if urgent else BusJobResponseMessage
        return kind(
            source=self._executor.name,
            target=request.source,
            destination=request.origin,
            job_id=request.job_id,
            sequence=self.sequence,
            attempt=request.attempt,
            status=status,
            response=response,
            error=error,
        )

    def require_open(self) -> None:
        """Raise if the job has ended.

        Raises:
            JobStateError: It has.
        """
        if self.state is JobState.ENDED:
            raise JobStateError(
                f"job {self.id!r} of worker {self._executor.name!r} has ended: it cannot be answered or updated again"
            )

    def move(self, state: JobState) -> None:
        """Go to another state; see `lifecycle`."""
        self.state = moved(JOB_STEPS, self.state, state)

    def grant(self, limit: int) -> None:
        """Note that the requester has room for events up to sequence `limit`."""
        if limit > self.limit:
            self.limit = limit
            self.wake()

    def wake(self) -> None:
        """Let the senders of this job look again."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            wake(waiter)

    async def _wait_for_credit(self) -> None:
        waiter = self._executor.host.tasks.waiter()
        waiters = self._waiters = self._waiters or []
        waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
