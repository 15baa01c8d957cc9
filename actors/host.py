"""What asking and doing need of the runner that hosts them: ports, stated here and kept by `actors.runner`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Protocol

from actors.jobs.events import JobRecord
from actors.jobs.nesting import OuterJob
from actors.jobs.remembered import Outcomes
from bus import BusJobRequestMessage, ErrorInfo, JobStatus, WorkerBus, WorkerRegistry
from bus.local.deadlines import Deadlines
from bus.local.tasks import Tasks


class WatchedJob(Protocol):
    """A job that a worker does, as those who watch see it."""

    @property
    def request(self) -> BusJobRequestMessage:
        """The message it came with."""

    @property
    def host(self) -> Host:
        """The runner where it is done."""


class JobEventSink(Protocol):
    """Where it is told what becomes of jobs."""

    wanted: bool
    """Whether anybody wants to know; the other methods need not be called if not."""

    def started(self, job: WatchedJob) -> None:
        """A handler begins."""

    def ended(self, job: WatchedJob, status: JobStatus, error: ErrorInfo | None) -> None:
        """A job was answered."""

    def answered(self, request: BusJobRequestMessage, status: JobStatus, error: ErrorInfo | None) -> None:
        """A request was answered, whether or not it ever was a job."""

    def given_up(self, record: JobRecord) -> None:
        """A job that was asked for here has no performer that could tell what became of it."""


class Host(Protocol):
    """A runner, to everything on it: its bus, its clock and its tasks."""

    name: str
    bus: WorkerBus
    registry: WorkerRegistry
    tasks: Tasks
    deadlines: Deadlines
    ready_timeout: float

    @property
    def job_events(self) -> JobEventSink:
        """Where it is told what becomes of jobs."""


class AskingHost(Host, Protocol):
    """A runner, to those who ask for jobs."""

    running: bool
    accepting: bool
    open_groups: dict[Any, Any]
    """What has been asked for here and has not ended."""

    outcomes: Outcomes
    """What became of jobs that were asked for here under ids of their requesters' own."""

    new_id: Callable[[], str]
    """Makes an id that nobody else has."""

    def holds(self, worker_name: str, job_id: str) -> bool:
        """Whether a worker of this runner has a job."""


class HandlerThreads(Protocol):
    """The threads of a runner, to those who do jobs."""

    def call(self, function: Callable[[], Any], name: str, ended: Callable[[], None]) -> Awaitable[Any]:
        """Call a plain function in a thread; `ended()` when that is back, also if nobody waits for it any more."""

    def blocking(self, job: OuterJob) -> Any:
        """The way from a thread that works for a job into the event loop: `Blocking`, of those who ask."""


class DoingHost(Host, Protocol):
    """A runner, to those who do jobs."""

    concurrency: int
    cancel_grace: float
    tracebacks: bool
    rng: Random

    @property
    def threads(self) -> HandlerThreads:
        """The threads of plain handlers."""

    def refuse(self, request: BusJobRequestMessage, status: JobStatus, kind: str, message: str) -> None:
        """Answer a request that no handler will see."""


class EventHost(Host, Protocol):
    """A runner, to who tells its event handlers."""

    def listens(self, event: str) -> bool:
        """Whether an event has a handler."""

    async def emit(self, event: str, *details: Any) -> None:
        """Call the handlers of an event."""

    def wall_clock(self) -> float:
        """Unix time, for people."""
