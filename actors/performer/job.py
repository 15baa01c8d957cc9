"""A job, as its handler sees it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Concatenate, Generic, Protocol, TypeVar, Unpack, overload

from msgspec.structs import replace

from actors.host import DoingHost
from actors.jobs.nesting import OuterJob
from actors.jobs.params import CallKeywords, GroupKeywords, JobKeywords, PayloadKeywords
from actors.observability.trace import Trace
from actors.performer.handler import FunctionReference
from actors.requester.blocking import Blocking, SyncEvents, SyncJobContext, SyncJobGroupContext
from actors.requester.contexts import JobContext, JobGroupContext, handed_on
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
T = TypeVar("T")
P = TypeVar("P")


class Performed(OuterJob, Protocol):
    """A job that is being done, as what its handler holds needs it: an execution."""

    request: BusJobRequestMessage
    payload: Any
    streaming: bool
    stopped_for: ErrorInfo | None

    @property
    def host(self) -> DoingHost:
        """The runner where it is done."""

    @property
    def instance(self) -> Any:
        """The user's object that its handler is a method of."""

    async def event(self, kind: type[Any], **fields: Any) -> None:
        """Send one event; waits while the requester has no room for more."""

    def respond(self, response: Any, status: JobStatus, *, urgent: bool = False, stream_end: bool = False) -> None:
        """Answer the job."""


class AsyncVerbs(Protocol):
    """The verbs of a worker or a client, as those that block use them."""

    @property
    def job(self) -> Callable[..., JobContext[Any]]:
        """One job."""

    @property
    def job_group(self) -> Callable[..., JobGroupContext[Any]]:
        """Several jobs."""

    @property
    def request(self) -> Callable[..., Awaitable[Any]]:
        """Ask for a job and return its answer."""

    @property
    def call(self) -> Callable[..., Awaitable[Any]]:
        """Ask for the job of a handler that is given itself."""

    @property
    def stream(self) -> Callable[..., AsyncIterator[Any]]:
        """The chunks of a job."""

    @property
    def gather(self) -> Callable[..., Awaitable[list[Any]]]:
        """Ask one worker for many jobs."""


class SyncVerbs:
    """The verbs of asking, for threads: each does what its twin on workers and clients does, and blocks meanwhile."""

    def __init__(self, thread: Blocking, asker: AsyncVerbs) -> None:
        self.__thread = thread
        self.__asker = asker

    @overload
    def request(
        self, worker_name: str, payload: Any = None, *, result: type[T], **keywords: Unpack[JobKeywords]
    ) -> T: ...
    @overload
    def request(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Any: ...
    def request(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Any:
        """Ask for a job and return its answer; as `Client.request`."""
        return self.__thread.call(lambda: self.__asker.request(worker_name, payload, result=result, **keywords))

    @overload
    def job(self, worker_name: str, *, result: type[T], **keywords: Unpack[PayloadKeywords]) -> SyncJobContext[T]: ...
    @overload
    def job(
        self, worker_name: str, *, result: Any = None, **keywords: Unpack[PayloadKeywords]
    ) -> SyncJobContext[Any]: ...
    def job(self, worker_name: str, *, result: Any = None, **keywords: Unpack[PayloadKeywords]) -> SyncJobContext[Any]:
        """One job, to be entered or waited for with `.result()`; as `Client.job`."""
        self.__thread.require_open()
        return SyncJobContext(self.__thread, handed_on(self.__asker.job(worker_name, result=result, **keywords)))

    @overload
    def job_group(
        self, *worker_names: str, result: type[T], **keywords: Unpack[GroupKeywords]
    ) -> SyncJobGroupContext[T]: ...
    @overload
    def job_group(
        self, *worker_names: str, result: Any = None, **keywords: Unpack[GroupKeywords]
    ) -> SyncJobGroupContext[Any]: ...
    def job_group(
        self, *worker_names: str, result: Any = None, **keywords: Unpack[GroupKeywords]
    ) -> SyncJobGroupContext[Any]:
        """Several jobs, to be entered or waited for with `.result()`; as `Client.job_group`."""
        self.__thread.require_open()
        context = self.__asker.job_group(*worker_names, result=result, **keywords)
        return SyncJobGroupContext(self.__thread, handed_on(context))

    @overload
    def call(
        self, handler: FunctionReference[[P], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self, handler: FunctionReference[[], Awaitable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self,
        handler: FunctionReference[..., Awaitable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    def call(self, handler: FunctionReference[[P], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(self, handler: FunctionReference[[], T], payload: None = None, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self, handler: FunctionReference[..., T], payload: Mapping[str, Any], **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self, handler: Callable[[Any, Job[P]], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self,
        handler: Callable[[Any, BusJobRequestMessage], Awaitable[T]],
        payload: Any = None,
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    def call(self, handler: Callable[[Any, P], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self, handler: Callable[[Any], Awaitable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self,
        handler: Callable[Concatenate[Any, Any, Any, ...], Awaitable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    def call(self, handler: Callable[[Any, Job[P]], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self, handler: Callable[[Any, BusJobRequestMessage], T], payload: Any = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(self, handler: Callable[[Any, P], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(self, handler: Callable[[Any], T], payload: None = None, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self,
        handler: Callable[Concatenate[Any, Any, Any, ...], T],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    def call(self, handler: Any, payload: Any = None, **keywords: Unpack[CallKeywords]) -> Any:
        """Ask for the job of a handler that is given itself, and return its answer; as `Client.call`."""
        return self.__thread.call(lambda: self.__asker.call(handler, payload, **keywords))

    @overload
    def stream(
        self, worker_name: str, payload: Any = None, *, result: type[T], **keywords: Unpack[JobKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Iterator[Any]: ...
    @overload
    def stream(
        self, worker_name: FunctionReference[[P], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: FunctionReference[[], AsyncIterable[T]],
        payload: None = None,
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: FunctionReference[..., AsyncIterable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any, Job[P]], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: Callable[[Any, BusJobRequestMessage], AsyncIterable[T]],
        payload: Any = None,
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any, P], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any], AsyncIterable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: Callable[Concatenate[Any, Any, Any, ...], AsyncIterable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    def stream(self, worker_name: Any, payload: Any = None, *, result: Any = None, **keywords: Any) -> Iterator[Any]:
        """The chunks of a job, in order; as `Client.stream`. Leaving the loop cancels the job."""

        async def opened() -> SyncEvents[Any]:
            return SyncEvents(self.__thread, self.__asker.stream(worker_name, payload, result=result, **keywords))

        return self.__thread.call(opened)

    @overload
    def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: type[T],
        **keywords: Unpack[JobKeywords],
    ) -> list[T]: ...
    @overload
    def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: Any = None,
        **keywords: Unpack[JobKeywords],
    ) -> list[Any]: ...
    def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: Any = None,
        **keywords: Unpack[JobKeywords],
    ) -> list[Any]:
        """Ask one worker for many jobs; as `Client.gather`, but takes all payloads first, in the caller's thread."""
        self.__thread.require_open()
        taken = list(payloads)
        return self.__thread.call(
            lambda: self.__asker.gather(worker_name, taken, max_concurrency=max_concurrency, result=result, **keywords)
        )


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
    def sync(self) -> SyncJob:
        """The verbs of a client, and those for the requester, for a plain `def` handler: each blocks its thread.

        While the handler waits for a job it has asked for, its thread is not counted: such handlers never starve each
        other.
        """
        execution = self.__execution
        return SyncJob(execution.host.threads.blocking(execution), execution.instance, self)

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


class SyncJob(SyncVerbs):
    """What a plain handler says to its requester and asks of others: `job.sync`. Each verb blocks the handler's thread.

    Once the job has been told to stop, each raises `JobStateError`: a thread cannot be stopped otherwise.
    """

    def __init__(self, thread: Blocking, asker: AsyncVerbs, job: Job[Any]) -> None:
        super().__init__(thread, asker)
        self.__thread = thread
        self.__job = job

    def update(self, update: Any = None, *, urgent: bool = False) -> None:
        """Send the requester a progress report; as `Job.update`."""
        self.__thread.call(self.__job.update, update, urgent=urgent)

    def stream_data(self, data: Any = None) -> None:
        """Send one chunk; as `Job.stream`."""
        self.__thread.call(self.__job.stream, data)

    def respond(self, response: Any = None, *, status: JobStatus = JobStatus.COMPLETED, urgent: bool = False) -> None:
        """Answer the job, once; as `Job.respond`."""
        self.__thread.call(self.__job.respond, response, status=status, urgent=urgent)
