"""Which jobs of a worker may start, and which wait, are refused, or are handed back.

1. At most `max_concurrency` jobs hold a slot, and of one handler at most as many as that allows, but for jobs that were
   asked for inside one that holds the very slot they need: those never wait for it.
2. Of plain handlers no more than `THREADS` work at once, but for such jobs: one that waits for jobs it has asked for is
   not counted, one whose thread is not back is, though it was answered long ago.
3. Among those that may start the one that has waited longest does.
4. What waits takes a place in the worker's room; a request that finds none waits outside, or is refused.
5. A worker that is not active starts nothing; what waits for it waits for `ready_timeout` at most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from actors.jobs.lifecycle import ADMISSION_STEPS, AdmissionState, JobState, moved
from actors.jobs.nesting import holders, nested
from actors.jobs.remembered import Outcome, Outcomes
from actors.observability.trace import watching
from actors.performer.execution import Execution, Lane, run
from actors.performer.handler import Doer
from actors.performer.threads import THREADS
from bus import BusJobRequestMessage, BusJobResponseMessage, ErrorInfo, JobStatus, travel
from bus.local.mailbox import Room

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.host import DoingHost


_SERVING, _RUNNING = AdmissionState.SERVING, JobState.RUNNING  # looking a member up costs as much as a short call


class AdmissionStatistics(msgspec.Struct, frozen=True):
    """A snapshot of one worker's jobs.

    Attributes:
        running: Jobs that hold a slot (at most the worker's `max_concurrency`, plus jobs asked for inside them).
        pending: Jobs that wait for a slot (at most its `mailbox_size`).
        quarantined: Handlers that go on although their job was answered CANCELLED after the grace period.
        senders: Requesters that wait for room.
        threads: Plain handlers that run in threads; they are among `running`.
        abandoned: Those of them whose job has been answered without them, after a timeout or a cancellation.
    """

    running: int
    pending: int
    quarantined: int
    senders: int
    threads: int
    abandoned: int


class Admission:
    """Takes the requests of one worker. Each is answered exactly once, or handed back before its handler has begun."""

    def __init__(self, doer: Doer, host: DoingHost, room: Room, state: AdmissionState) -> None:
        self.doer = doer
        self.host = host
        self.executions: dict[str, Execution] = {}
        self.state = state
        self._room = room
        self._limit = min(doer.max_concurrency, host.concurrency)
        self._networked = host.bus.networked
        self._running = 0
        self._working = 0
        """Plain handlers that have a slot, and wait for no job."""
        serves = doer.definition
        handlers = (*serves.jobs.values(), *(() if serves.default is None else (serves.default,)))
        self._plain = all(each.threaded for each in handlers)
        self._quarantined = 0
        self._places = 0
        self._lanes: dict[str | None, Lane] = {}
        self._outcomes: Outcomes | None = None

    def __repr__(self) -> str:
        return f"<Admission {self.doer.name} {self.state.name.lower()} running={self._running}>"

    @property
    def paused(self) -> bool:
        """Whether no job may start now."""
        return self.state is AdmissionState.PAUSED or self.state is AdmissionState.CLOSED

    @property
    def busy(self) -> bool:
        """Whether a job is not answered, or a handler holds a slot, but for threads that were left behind."""
        return bool(self.executions) or self._running > self._count(JobState.ABANDONED)

    @property
    def free_slots(self) -> int:
        """How many more jobs could start now."""
        if self.state is not AdmissionState.SERVING:
            return 0
        free = self._limit - self._running
        if self._plain:
            free = min(free, THREADS - self._working)
        return max(free - self._room.taken, 0)

    def statistics(self) -> AdmissionStatistics:
        """What there is now."""
        pending = sum(len(lane.pending) for lane in self._lanes.values())
        senders = self._room.statistics().waiting
        threads = sum(execution.away for lane in self._lanes.values() for execution in lane.running)
        abandoned = self._count(JobState.ABANDONED)
        return AdmissionStatistics(self._running, pending, self._quarantined, senders, threads, abandoned)

    # --- requests ---

    def accept(self, request: BusJobRequestMessage, *, force: bool = False) -> Room | None:
        """Take a request: start it, let it wait, or answer why not.

        Args:
            request: The request.
            force: Take it even above the bound of what may wait: it was accepted once already.

        Returns:
            The room to wait for, if there is none.
        """
        first = self.executions.get(request.job_id)
        if first is not None:
            self._met(first, request)
        if first is not None or (request.asked is not None and self._recalled(request)):
            return None
        serves = self.doer.definition
        handler = serves.jobs.get(request.job_name) or serves.default or self.doer.by_events
        if handler is None:
            message = serves.missing(request.job_name, self.doer.name)
            self.host.refuse(request, JobStatus.ERROR, "HandlerError", message)
            return None
        lane = self._lanes.get(handler.name)
        if lane is None:
            lane = self._lanes[handler.name] = Lane(handler)
        deadline = math.inf if request.timeout is None else self.host.tasks.now() + request.timeout
        execution = Execution(self, request, handler, lane, request.payload, request.window, deadline)
        at_once = (
            self.state is _SERVING
            and not lane.pending
            and len(lane.running) < lane.limit
            and self._running < self._limit
            and not (lane.threaded and self._working >= THREADS)
        )
        if not at_once and (
            self.state is AdmissionState.CLOSED or (self.state is AdmissionState.DRAINING and not nested(request))
        ):
            self.host.bus.give_back(request)
            return None
        if at_once or self._may_start(execution):
            self.executions[request.job_id] = execution
            self._start(execution)
            return None
        inner = self._inside(request, self._lanes.values())
        if not self._room.take():
            if not (force or inner):  # room may come only after what asks for it
                return self._room
            self._room.taken += 1
        self.executions[request.job_id] = execution
        self._line_up(execution, inner=inner)
        return None

    def stop(self, job_id: str, error: ErrorInfo) -> bool:
        """Tell a job to stop. Whether there was one to stop."""
        execution = self.executions.get(job_id)
        return execution is not None and execution.stop(error)

    # --- the life of the worker ---

    def serve(self, now: bool) -> None:
        """Start what waits; or let it wait, at most `ready_timeout`, until this is called again."""
        state = AdmissionState.SERVING if now else AdmissionState.PAUSED
        if state is not self.state:
            self.state = moved(ADMISSION_STEPS, self.state, state)
        for lane in self._lanes.values():
            for execution in tuple((lane.inner if now else lane.pending).values()):
                if not now:
                    execution.limit_wait()
                elif self._inside(execution.request, (lane,)):
                    self._start_waiting(execution)  # first: it must not line up behind what waits for that slot
        self.resume()

    def resume(self) -> None:
        """Start what may start now."""
        self.host.bus.capacity_changed(self.doer.name)
        while (execution := self._next()) is not None:
            self._start_waiting(execution)

    def drain(self) -> None:
        """Start nothing new but what was asked for inside jobs; hand back what has not started."""
        serving = self.state is AdmissionState.SERVING
        self._turn_away(AdmissionState.DRAINING if serving else AdmissionState.CLOSED)

    def close(self) -> None:
        """Start nothing any more, hand back what has not started and what still comes; end what has answered."""
        self._turn_away(AdmissionState.CLOSED)
        self._room.close()
        for lane in self._lanes.values():
            for execution in tuple(lane.running):
                execution.close()

    # --- what executions tell ---

    def answered(self, execution: Execution) -> None:
        """A job is about to be answered: it leaves the table, and the line if it stands in one."""
        del self.executions[execution.id]
        if execution.state is JobState.WAITING:
            self._leave_line(execution)
            if self.doer.leaving:
                self.doer.job_left()

    def released(self, execution: Execution) -> None:
        """A handler has ended, or is left alone: its slot is free."""
        running = execution.lane.running
        if execution in running:
            del running[execution]
            self._running -= 1
            if execution.lane.threaded and not execution.lent:
                self._working -= 1
            if execution.state is JobState.QUARANTINED:
                self._quarantined += 1
            if self._room.taken or execution.lane.pending:
                self.resume()
            elif self._networked:
                self.host.bus.capacity_changed(self.doer.name)
        else:
            self._quarantined -= 1
        if self.doer.leaving:
            self.doer.job_left()

    def completed(self, execution: Execution) -> bool:
        """A job that ran is about to be answered, and its handler has ended. Whether `freed` is to be called then."""
        del self.executions[execution.request.job_id]
        lane = execution.lane
        del lane.running[execution]
        self._running -= 1
        if lane.threaded and not execution.lent:
            self._working -= 1
        return bool(self._room.taken or lane.pending or self._networked or self.doer.leaving)

    def freed(self) -> None:
        """Its requester has the answer: let others have the slot, and see who waits for the last job."""
        if self._room.taken:
            self.resume()
        elif self._networked:
            self.host.bus.capacity_changed(self.doer.name)
        if self.doer.leaving:
            self.doer.job_left()

    def lend(self, execution: Execution) -> None:
        """A plain handler waits for jobs: another may work meanwhile, or those might wait for this one's thread."""
        if execution in execution.lane.running:
            execution.lent = True
            self._working -= 1
            if self._room.taken:
                self.resume()

    def take_back(self, execution: Execution) -> None:
        """It goes on at once, above the limit if need be."""
        execution.lent = False
        if execution in execution.lane.running:
            self._working += 1

    def abandoned(self) -> None:
        """A job is answered whose thread is not back."""
        if self.doer.leaving:
            self.doer.job_left()

    def remember(self, execution: Execution, status: JobStatus, response: Any, error: ErrorInfo | None) -> None:
        """A job whose id its requester has chosen was done: it is not done again, whoever of that name asks."""
        if self._outcomes is None:
            self._outcomes = Outcomes(self.host.tasks.now)
        request = execution.request
        outcome = Outcome(request.job_name, status, travel(response), error, request.attempt)
        self._outcomes.put((request.source, self.doer.name, request.job_id), outcome)

    # --- inside ---

    def _recalled(self, request: BusJobRequestMessage) -> bool:
        """Answer a request for a job that was done here under the same id of its requester's. Whether it was."""
        outcomes = self._outcomes
        outcome = outcomes.get((request.source, self.doer.name, request.job_id)) if outcomes is not None else None
        if outcome is None:
            return False
        if outcome.name != request.job_name:
            text = f"job id {request.job_id!r} names job {outcome.name!r}, which was done a while ago: choose another"
            self.host.refuse(request, JobStatus.FAILED, "JobStateError", text)
            return True
        self.host.bus.post(
            BusJobResponseMessage(
                source=self.doer.name,
                target=request.source,
                destination=request.origin,
                job_id=request.job_id,
                attempt=request.attempt,
                status=outcome.status,
                response=travel(outcome.response),
                error=outcome.error,
            )
        )
        return True

    def _count(self, state: JobState) -> int:
        """How many that hold a slot are in a state."""
        return sum(execution.state is state for lane in self._lanes.values() for execution in lane.running)

    def _met(self, first: Execution, request: BusJobRequestMessage) -> None:
        """A request under the id of a job that is here.

        It is the same one again, and needs nothing; or comes because the first one's lease was lost and is ours anew
        before its handler has stopped: then it begins after that. Anything else is refused.
        """
        same = (first.request.source, first.request.origin) == (request.source, request.origin)
        stopping = first.stopped_for is not None
        if not same or (stopping and request.attempt <= first.request.attempt):
            text = f"job id {request.job_id!r} is in use by {first.request.source!r}: {first!r}"
            self.host.refuse(request, JobStatus.FAILED, "JobStateError", text)
        elif stopping:
            first.successor = request

    def _may_start(self, execution: Execution, *, first: bool = False) -> bool:
        """Whether a job may start now; the first in its lane, or one that has just come."""
        if self.state is AdmissionState.PAUSED or self.state is AdmissionState.CLOSED:
            return False
        lane = execution.lane
        if len(lane.running) >= lane.limit:
            return self._inside(execution.request, (lane,))
        free = self._running < self._limit and not (lane.threaded and self._working >= THREADS)
        if free and (first or not lane.pending):
            return True
        return self._inside(execution.request, self._lanes.values())

    def _inside(self, request: BusJobRequestMessage, lanes: Iterable[Lane]) -> bool:
        """Whether it was asked for inside a job that holds a slot of these lanes."""
        if not request.lineage:
            return False
        outer = holders(request)
        return bool(outer) and any(running.id in outer for lane in lanes for running in lane.running)

    def _line_up(self, execution: Execution, *, inner: bool) -> None:
        lane = execution.lane
        self._places += 1
        execution.place = self._places
        lane.pending[execution.id] = execution
        if inner:
            lane.inner[execution.id] = execution
        execution.wait()
        if self.state is AdmissionState.PAUSED:
            execution.limit_wait()

    def _leave_line(self, execution: Execution) -> None:
        lane = execution.lane
        del lane.pending[execution.id]
        lane.inner.pop(execution.id, None)
        self._room.give()

    def _start_waiting(self, execution: Execution) -> None:
        self._leave_line(execution)
        self._start(execution)

    def _start(self, execution: Execution) -> None:
        lane = execution.lane
        lane.running[execution] = None
        self._running += 1
        if lane.threaded:
            self._working += 1
        execution.state = _RUNNING
        host, handler = self.host, execution.handler
        request = execution.request
        limited = (request.timeout is not None and request.origin) or execution.place or handler.timeout is not None
        if limited or host.job_events.wanted or watching:
            execution.start()
        execution.task = host.tasks.start(run, execution)

    def _next(self) -> Execution | None:
        """The job that has waited longest, of those that may start."""
        longest: Execution | None = None
        for lane in self._lanes.values():
            if lane.pending:
                execution = self._next_of(lane)
                if execution is not None and (longest is None or execution.place < longest.place):
                    longest = execution
        return longest

    def _next_of(self, lane: Lane) -> Execution | None:
        first = next(iter(lane.pending.values()))
        if self._may_start(first, first=True):
            return first
        while lane.inner and not self.paused and not lane.full:
            inner = next(iter(lane.inner.values()))
            if self._inside(inner.request, self._lanes.values()):
                return inner
            del lane.inner[inner.id]  # what it was asked for in has ended: from now on it waits like any other
        return None

    def _turn_away(self, state: AdmissionState) -> None:
        """Hand back what waits and may not start in the state that comes."""
        if self.state is not state:
            self.state = moved(ADMISSION_STEPS, self.state, state)
        self.host.bus.capacity_changed(self.doer.name)
        for lane in self._lanes.values():
            for execution in tuple(lane.pending.values()):
                if state is AdmissionState.CLOSED or not nested(execution.request):
                    self._leave_line(execution)
                    del self.executions[execution.id]
                    self.host.bus.give_back(execution.hand_back())
        if self.doer.leaving:
            self.doer.job_left()
