"""The job events of a runner: for its handlers, and for who follows those of the whole fleet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec

from actors.jobs.events import JobRecord
from actors.observability.log_fields import run_of
from actors.observability.trace import watching
from bus import BusError, BusTopicMessage, ErrorInfo, JobStatus, travel
from bus.local.mailbox import Mailbox
from bus.wire.known import own_type

if TYPE_CHECKING:
    from actors.host import EventHost, WatchedJob
    from bus import BusJobRequestMessage


TOPIC = "actorbus.jobs"
"""Where runners publish what becomes of their jobs, while somebody follows that."""

KEPT = 1_000
"""Events that may wait to be published: what is more is dropped, the oldest first, and counted."""

BATCH = 200
"""Events in one message: with their texts cut to `LONGEST_TEXT` that is far below the size of a frame."""

LONGEST_TEXT = 300
"""Characters of an error that followers see."""

PACE = 0.05
"""Seconds between two messages: events are for people, and jobs must not wait behind them."""

FLUSH = 1.0
"""Seconds that the last events may take when the runner ends."""

EventName = Literal["on_job_start", "on_job_complete", "on_job_error"]

_TYPES: dict[EventName, Literal["job_started", "job_completed", "job_failed"]] = {
    "on_job_start": "job_started",
    "on_job_complete": "job_completed",
    "on_job_error": "job_failed",
}


class JobNews(msgspec.Struct, frozen=True):
    """Something that happened to a job of some runner of the fleet.

    Attributes:
        type: `job_started`, `job_completed`, `job_failed`; or `missed`: events of that runner were dropped.
        runner: Name of the runner.
        at: Unix time, by the clock of that runner.
        record: What is known of the job; an error without its traceback, and with 300 characters of its text at most.
            None for `missed`.
        count: How many events this stands for: 1, or those that were dropped.
    """

    type: Literal["job_started", "job_completed", "job_failed", "missed"]
    runner: str
    at: float
    record: JobRecord | None = None
    count: int = 1

    def details(self) -> Any:
        """The record and the runner in one, as people are shown them; of `missed`, the count."""
        if self.record is None:
            return self.count
        return {"runner": self.runner, **msgspec.structs.asdict(self.record)}


own_type(JobNews, "JobNews")


class JobEvents:
    """Tells what becomes of the jobs of a runner. No job waits for that."""

    def __init__(self, host: EventHost) -> None:
        self.wanted = False
        self._host = host
        self._handled = False
        self._mailbox: Mailbox | None = None
        self._news: deque[JobNews] = deque()
        self._missed = 0
        self._quiet: anyio.Event | None = None

    def look(self) -> None:
        """Note who wants to know, now that this may have changed."""
        host = self._host
        self._handled = any(host.listens(event) for event in _TYPES)
        self.wanted = self._handled or self._followed

    def started(self, job: WatchedJob) -> None:
        """A handler begins."""
        if watching:
            watching[0].started(job)
        if self.wanted:
            self._tell("on_job_start", _record(job.request))

    def ended(self, job: WatchedJob, status: JobStatus, error: ErrorInfo | None) -> None:
        """A job was answered."""
        if watching:
            watching[0].ended(job, status, error)
        self.answered(job.request, status, error)

    def answered(self, request: BusJobRequestMessage, status: JobStatus, error: ErrorInfo | None) -> None:
        """A request was answered, whether or not it ever was a job."""
        if self.wanted:
            event: EventName = "on_job_complete" if status is JobStatus.COMPLETED else "on_job_error"
            self._tell(event, _record(request, status, error))

    def given_up(self, record: JobRecord) -> None:
        """A job that was asked for here has no performer that could tell what became of it."""
        if self.wanted:
            self._tell("on_job_error", record)

    async def flush(self) -> None:
        """Let the last events be told, for a second at most."""
        with anyio.move_on_after(FLUSH):
            if self._mailbox is not None:
                flushed = anyio.Event()
                self._mailbox.put(flushed)
                await flushed.wait()
            if self._quiet is not None:
                await self._quiet.wait()
        self.wanted = False  # the tasks that would tell are about to end

    def _tell(self, event: EventName, record: JobRecord) -> None:
        host = self._host
        if self._handled and host.listens(event):
            if self._mailbox is None:
                self._mailbox = Mailbox(host.name, self._emit, host.tasks)
            self._mailbox.put((event, record))
        if self._followed:
            self._keep(JobNews(_TYPES[event], host.name, host.wall_clock(), _short(record)))

    @property
    def _followed(self) -> bool:
        bus, registry = self._host.bus, self._host.registry
        return bus.topics.followed(TOPIC) or bool(registry.followers(TOPIC))

    def _keep(self, news: JobNews) -> None:
        if len(self._news) >= KEPT:
            self._news.popleft()
            self._missed += 1
        self._news.append(news)
        if self._quiet is None:
            self._quiet = anyio.Event()
            self._host.tasks.start(self._publish, None)

    async def _publish(self, _argument: None) -> None:
        host = self._host
        try:
            while self._news:
                batch = [self._news.popleft() for _ in range(min(BATCH, len(self._news)))]
                if self._missed:
                    batch.insert(0, JobNews("missed", host.name, host.wall_clock(), count=self._missed))
                    self._missed = 0
                try:
                    data = travel(batch, "data")
                    await host.bus.publish(BusTopicMessage(source=host.name, topic=TOPIC, data=data))
                except BusError:
                    self._missed += sum(news.count for news in batch)
                await anyio.sleep(PACE)
        finally:
            if self._quiet is not None:
                self._quiet.set()
            self._quiet = None

    async def _emit(self, event: tuple[EventName, JobRecord] | anyio.Event) -> None:
        if isinstance(event, anyio.Event):
            event.set()
        else:
            await self._host.emit(*event)


def _record(
    request: BusJobRequestMessage, status: JobStatus | None = None, error: ErrorInfo | None = None
) -> JobRecord:
    asked = request.target or "", request.job_id, request.job_name, request.attempt, request.source
    return JobRecord(*asked, status, error, run_of(request))


def _short(record: JobRecord) -> JobRecord:
    error = record.error
    if error is None or (error.traceback is None and len(error.message) <= LONGEST_TEXT):
        return record
    cut = ErrorInfo(error.type, error.message[:LONGEST_TEXT], retryable=error.retryable)
    return msgspec.structs.replace(record, error=cut)
