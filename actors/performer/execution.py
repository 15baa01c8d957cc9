"""The performer's side: accepts jobs for one worker, runs their handlers, and answers each job once."""

from __future__ import annotations

import math
from sys import modules
from typing import TYPE_CHECKING, Any

from anyio import get_cancelled_exc_class

from actors.jobs.errors import JobTimeoutError, describe
from actors.jobs.lifecycle import JobState
from actors.jobs.nesting import current_job, inside, nested
from actors.jobs.outcome import CANCELLED, cancelled, cancelled_by_stranger, inactive
from actors.observability.log_fields import log_fields
from actors.observability.trace import enter, leave, watching
from actors.performer.admission import ExecutorStatistics, Lane, meet, withdraw
from actors.performer.invoke import call
from actors.performer.job import Job
from bus import BusJobRequestMessage, EncodeError, ErrorInfo, JobStatus, PayloadError, travel
from bus.local.mailbox import Room
from bus.local.tasks import cancelled_from_outside
from bus.log import log

if TYPE_CHECKING:
    from actors.runner.runner import WorkerRunner
    from actors.worker.worker import BaseWorker


class Executor:
    """Runs the jobs of one worker. Every job it accepts it answers exactly once, or hands back unstarted."""

    def __init__(self, worker: BaseWorker, host: WorkerRunner, room: Room) -> None:
        self.name = worker.name
        self.host = host
        self.post = host.bus.post
        self._events = host.job_events
        self.jobs: dict[str, Job[Any]] = {}
        self.paused = True
        self.draining = False
        self._worker = worker
        self._room = room
        self._limit = min(worker.max_concurrency, host.concurrency)
        self._networked = host.bus.networked
        self._running = 0
        self._quarantined = 0
        self._places = 0
        self._lanes: dict[str | None, Lane] = {}

    @property
    def free_slots(self) -> int:
        """How many more jobs could start now."""
        if self.paused or self.draining:
            return 0
        return max(self._limit - self._running - self._room.taken, 0)

    def accept(self, request: BusJobRequestMessage, *, force: bool = False) -> Room | None:
        """Take a request: start it, queue it, or answer why not. Returns the room to wait for if the queue is full."""
        if request.job_id in self.jobs:
            if message := meet(self.jobs[request.job_id], request):
                self.host.refuse(request, JobStatus.FAILED, "JobStateError", message)
            return None
        handler = self._worker._handler_for(request.job_name)
        if handler is None:
            message = self._worker._table.missing(request.job_name, self.name)
            self.host.refuse(request, JobStatus.ERROR, "HandlerError", message)
            return None
        lane = self._lanes.get(handler.name)
        if lane is None:
            lane = self._lanes[handler.name] = Lane(handler.limit or math.inf)
        job: Job[Any] = Job(self, request, handler, lane)
        if self.draining and (self.paused or not nested(request)):
            self.host.bus.give_back(request)
            return None
        starts = self._may_start(job)
        if not starts and not self._room.take():
            if not force and not inside(job, self._lanes.values()):  # room may come only after what asks for it
                return self._room
            self._room.taken += 1
        self.jobs[request.job_id] = job
        if request.timeout is not None:
            self._arm(job, request.timeout)
        if starts:
            self._start(job)
        else:
            self._keep(job)
        return None

    def _keep(self, job: Job[Any]) -> None:
        """Let a job wait for a slot."""
        self._places += 1
        job.place = self._places
        job.lane.keep(job, inner=inside(job, self._lanes.values()))
        if self.paused and self._worker.started_at is not None:
            self._limit_pause(job)

    def cancel(self, job_id: str, reason: str | None, kind: str = CANCELLED) -> Job[Any] | None:
        """Tell a job to stop. Returns it if there was one to cancel.

        One that has not started never will; one that runs is answered when its handler has stopped, or after
        `cancel_grace`.
        """
        job = self.jobs.get(job_id)
        if job is not None and (second := withdraw(job)):
            self.host.refuse(second, JobStatus.CANCELLED, kind, reason or "cancelled")
        if job is None or job.cancelled or job.state is JobState.ENDED:
            return None
        timed_out = kind == JobTimeoutError.__name__
        job.cancelled_for = ErrorInfo(type=kind, message=reason or "cancelled", retryable=timed_out)
        if job.state is JobState.RUNNING:
            job.move(JobState.CANCELLING)
            self._stop_handler(job)
            self._cancel_groups(job)
        else:
            self._finish_cancelled(job)
        return job

    def respond(
        self, job: Job[Any], response: Any, status: JobStatus, *, urgent: bool = False, stream_end: bool = False
    ) -> None:
        """Answer a job for its handler; see `Job.respond`."""
        job.require_open()
        try:
            response = travel(response, "response")
        except EncodeError as failure:
            self._finish(job, JobStatus.ERROR, None, describe(failure))
            raise
        error = None
        if status is not JobStatus.COMPLETED:
            error = ErrorInfo(type=status.name.capitalize(), message=f"answered {status.value}")
        self._finish(job, status, response, error, urgent=urgent, stream_end=stream_end)

    def serve(self, now: bool) -> None:
        """Start what waits, or let it wait, at most `ready_timeout`, until this is called again."""
        self.paused = not now
        for lane in self._lanes.values():
            for job in tuple((lane.inner if now else lane.pending).values()):
                if not now:
                    self._limit_pause(job)
                elif inside(job, (lane,)):
                    self._start_pending(job)  # first: it must not line up behind what waits for its ancestor's slot
        self.resume()

    def resume(self) -> None:
        """Start what may start now."""
        self.host.bus.capacity_changed(self.name)
        while (job := self._next()) is not None:
            self._start_pending(job)

    def _next(self) -> Job[Any] | None:
        """The job that has waited longest, of those that may start."""
        longest: Job[Any] | None = None
        for lane in self._lanes.values():
            if lane.pending:
                job = self._next_of(lane)
                if job is not None and (longest is None or job.place < longest.place):
                    longest = job
        return longest

    def _next_of(self, lane: Lane) -> Job[Any] | None:
        first = next(iter(lane.pending.values()))
        if self._may_start(first, first=True):
            return first
        while lane.inner and not self.paused and not lane.full:
            inner = next(iter(lane.inner.values()))
            if inside(inner, self._lanes.values()):
                return inner
            del lane.inner[inner.id]  # what it was asked for in has ended: from now on it waits like any other
        return None

    def drain(self) -> None:
        """Start nothing new but what running jobs ask for; hand back what has not started."""
        self.draining = True
        self.host.bus.capacity_changed(self.name)
        self.hand_back(keep_nested=True)

    def close(self) -> None:
        """Start nothing any more, hand back what has not started and what still comes, and cancel what has answered."""
        self.paused = self.draining = True
        self.hand_back()
        self._room.close()
        for lane in self._lanes.values():
            for job in lane.running:
                if job.ended and job.task is not None and job.timer is None:
                    self._stop_handler(job)

    def hand_back(self, *, keep_nested: bool = False) -> None:
        """Give the jobs that have not started back to the bus, for another worker of this name."""
        for lane in self._lanes.values():
            for job in tuple(lane.pending.values()):
                if not (keep_nested and nested(job.request)):
                    lane.drop(job)
                    self._room.give()
                    self.jobs.pop(job.id, None)
                    job.move(JobState.ENDED)
                    if job.timer is not None:
                        job.timer.cancel()
                    job.request.timeout = job.remaining
                    self.host.bus.give_back(job.request)
        self._worker._job_left()

    def statistics(self) -> ExecutorStatistics:
        """What there is now."""
        pending = sum(len(lane.pending) for lane in self._lanes.values())
        return ExecutorStatistics(self._running, pending, self._quarantined, self._room.statistics().waiting)

    def _may_start(self, job: Job[Any], *, first: bool = False) -> bool:
        if self.paused:
            return False
        lane = job.lane
        if lane.full:
            return inside(job, (lane,))
        if self._running < self._limit and (first or not lane.pending):
            return True
        return inside(job, self._lanes.values())

    def _arm(self, job: Job[Any], timeout: float) -> None:
        job.deadline = self.host.tasks.now() + timeout
        if job.request.origin:  # a requester in this process keeps the deadline itself
            job.timer = self.host.deadlines.add(job.deadline, lambda: self._expired(job))

    def _start_pending(self, job: Job[Any]) -> None:
        job.lane.drop(job)
        self._room.give()
        self._start(job)

    def _start(self, job: Job[Any]) -> None:
        job.move(JobState.RUNNING)
        job.lane.running[job] = None
        self._running += 1
        job.handler_ended = False
        if job.timer is not None and job.deadline == float("inf"):
            job.timer.cancel()
            job.timer = None
        if job.handler.timeout is not None:
            limit = self.host.tasks.now() + job.handler.timeout
            if limit < job.deadline:
                job.deadline = limit
                if job.timer is not None:
                    job.timer.cancel()
                job.timer = self.host.deadlines.add(limit, lambda: self._expired(job))
        if self._events.wanted or watching:
            self._events.started(job)
        job.task = self.host.tasks.start(self._run, job)

    @staticmethod  # a bound method would be one more object for each job in flight
    async def _run(job: Job[Any]) -> None:
        executor = job._executor
        if job.state is JobState.ENDED or job.state is JobState.CANCELLING:
            executor._handler_ended(job)
            if job.state is not JobState.ENDED:
                executor._finish_cancelled(job)
            return
        current_job.set(job)
        request = job.request
        traced = request.trace is not None or request.run is not None or watching or "structlog" in modules
        exits = enter(job) if traced else ()
        try:
            response = await call(executor._worker, job)
        except BaseException as error:  # noqa: BLE001 - the boundary: whatever a handler raises ends its job and nothing else
            executor._handler_ended(job)
            executor._raised(job, error)
        else:
            executor._handler_ended(job)
            executor._returned(job, response)
        finally:
            current_job.set(None)
            if exits:
                leave(exits)

    def _returned(self, job: Job[Any], response: Any) -> None:
        if job.state is JobState.ENDED:
            return
        if job.state is JobState.CANCELLING:
            self._finish_cancelled(job)
            return
        if response is None and job.handler.name is None:
            job.move(JobState.OPEN)  # `on_job_request` may answer later
            return
        try:
            response = travel(response, "response")
        except EncodeError as error:
            self._finish(job, JobStatus.ERROR, None, describe(error))
        else:
            self._finish(job, JobStatus.COMPLETED, response, None, stream_end=job.streaming)

    def _raised(self, job: Job[Any], error: BaseException) -> None:
        is_cancel = isinstance(error, get_cancelled_exc_class()) or (
            isinstance(error, BaseExceptionGroup) and error.split(get_cancelled_exc_class())[1] is None
        )
        if job.state is JobState.ENDED or (job.state is JobState.CANCELLING and not is_cancel):
            log().warning("handler raised after its job was over", **log_fields(job), error=repr(describe(error)))
        if job.state is JobState.ENDED:
            return
        if job.state is JobState.CANCELLING:
            self._finish_cancelled(job)
        elif is_cancel and cancelled_from_outside():
            job.cancelled_for = cancelled(f"worker {self.name!r} was stopped")
            self._finish_cancelled(job)
        else:
            info = describe(error, tracebacks=self.host.tracebacks)
            if is_cancel:
                info = cancelled_by_stranger(info.type)
            log().debug("handler raised", **log_fields(job), error=str(info), exc_info=error)
            status = JobStatus.FAILED if isinstance(error, PayloadError) else JobStatus.ERROR
            self._finish(job, status, None, info)

    def _finish_cancelled(self, job: Job[Any]) -> None:
        info = job.cancelled_for
        timed_out = info is not None and info.type == JobTimeoutError.__name__
        self._finish(job, JobStatus.FAILED if timed_out else JobStatus.CANCELLED, None, info)

    def _finish(
        self,
        job: Job[Any],
        status: JobStatus,
        response: Any,
        error: ErrorInfo | None,
        *,
        urgent: bool = False,
        stream_end: bool = False,
    ) -> None:
        """Answer a job: the only way to ENDED but handing back."""
        pending = job.state is JobState.PENDING
        job.move(JobState.ENDED)
        if job.timer is not None and (job.handler_ended or not job.cancelled):  # else it limits the handler
            job.timer.cancel()
            job.timer = None
        if pending:
            job.lane.drop(job)
            self._room.give()
        self.jobs.pop(job.id, None)
        self.post(job.answer(status, response, error, urgent=urgent, stream_end=stream_end))
        if job.groups and status is not JobStatus.COMPLETED:
            self._cancel_groups(job)
        job.wake()
        if self._events.wanted or watching:
            self._events.ended(job, status, error)
        if job.handler_ended:
            self._release(job)
        if job.second is not None:
            self.accept(job.second, force=True)

    def _handler_ended(self, job: Job[Any]) -> None:
        job.handler_ended = True
        job.task = None
        if job.state is JobState.ENDED:
            if job.timer is not None:
                job.timer.cancel()
            if job in job.lane.running:
                self._release(job)
            else:
                self._quarantined -= 1

    def _release(self, job: Job[Any]) -> None:
        if job in job.lane.running:
            del job.lane.running[job]
            self._running -= 1
            if job.lane.pending or self._room.taken:
                self.resume()
            if self._networked:
                self.host.bus.capacity_changed(self.name)
        self._worker._job_left()

    def _stop_handler(self, job: Job[Any]) -> None:
        assert job.task is not None
        job.task.cancel()
        if job.timer is not None:
            job.timer.cancel()
        job.timer = self.host.deadlines.after(self.host.cancel_grace, lambda: self._quarantine(job))

    def _quarantine(self, job: Job[Any]) -> None:
        log().warning("handler swallows its cancellation", **log_fields(job), handler=job.handler.attribute)
        assert job.task is not None
        job.task.shield()
        self._quarantined += 1
        if not job.ended:
            self._finish_cancelled(job)
        self._release(job)

    def _expired(self, job: Job[Any]) -> None:
        job.timer = None
        self.cancel(job.id, "deadline passed", JobTimeoutError.__name__)

    def _limit_pause(self, job: Job[Any]) -> None:
        if job.timer is None:
            job.timer = self.host.deadlines.after(self.host.ready_timeout, lambda: self._still_paused(job))

    def _still_paused(self, job: Job[Any]) -> None:
        job.timer = None
        if job.state is JobState.PENDING and self.paused:
            self._finish(job, JobStatus.FAILED, None, inactive(self.name, self.host.ready_timeout))

    def _cancel_groups(self, job: Job[Any]) -> None:
        for group in tuple(job.groups or ()):
            group.cancel(f"job {job.id!r} that asked for it did not complete")
