"""One job at its performer: runs its handler, and answers it exactly once, whatever the handler does.

1. A job that was accepted is answered once, or handed back before its handler has begun.
2. The answer comes when the handler returns, raises, or responds; when it is watched to stop, at the latest after the
   grace period.
3. A handler that has begun holds a slot until it has ended, or is quarantined because it swallows its cancellation.
   One in a thread, which cannot be stopped, holds it until the thread is back.
4. There is one timer, and the state says what it means: entering a state arms it, leaving the state cancels it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from sys import modules
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actors.jobs.errors import KINDS, JobError, JobStateError, describe, leaves
from actors.jobs.lifecycle import AFTER_RESPONSE, JOB_STEPS, JOB_TIMERS, UNANSWERED, JobState, moved
from actors.jobs.nesting import OpenGroup, current_job
from actors.jobs.outcome import TIMED_OUT, cancelled, cancelled_by_stranger, inactive, overdue
from actors.observability.log_fields import log_fields, log_raised
from actors.observability.trace import enter, leave, watching
from actors.performer.handler import Doer, Handler, Shape, Takes
from actors.performer.invoke import call, is_refusal
from actors.performer.job import Job
from bus import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusMessage,
    EncodeError,
    ErrorInfo,
    JobStatus,
    convert,
    travel,
)
from bus.local.tasks import PooledTask, Waiter, cancelled_from_outside, only_cancels, wake
from bus.log import log

if TYPE_CHECKING:
    from actors.host import DoingHost
    from bus.local.deadlines import Deadline


class Slots(Protocol):
    """Who gives jobs their slots: an admission."""

    host: DoingHost
    doer: Doer

    @property
    def paused(self) -> bool:
        """Whether no job may start now."""

    def accept(self, request: BusJobRequestMessage, *, force: bool = False) -> object:
        """Take a request."""

    def answered(self, execution: Execution) -> None:
        """A job is about to be answered: it leaves the table, and the line if it stands in one."""

    def released(self, execution: Execution) -> None:
        """A handler has ended, or is left alone: its slot is free."""

    def completed(self, execution: Execution) -> bool:
        """Both at once, of a job that ran; if this says so, `freed` is to be called when it is answered."""

    def remember(self, execution: Execution, status: JobStatus, response: Any, error: ErrorInfo | None) -> None:
        """A job whose id its requester has chosen was done."""

    def freed(self) -> None:
        """A slot is free, and its job answered."""

    def lend(self, execution: Execution) -> None:
        """A plain handler waits for jobs that it has asked for: its thread keeps nobody else from starting."""

    def take_back(self, execution: Execution) -> None:
        """It has their answers."""

    def abandoned(self) -> None:
        """A job is answered whose thread is not back: nobody waits for that."""


_RUNNING, _ENDED, _COMPLETED = JobState.RUNNING, JobState.ENDED, JobStatus.COMPLETED
_JOB, _MESSAGE, _copy = Takes.JOB, Takes.MESSAGE, msgspec.structs.replace
_TEXT = frozenset({str})
# These are named here because looking a member of an enumeration up costs as much as a short call.


class Execution(msgspec.Struct, eq=False):
    """A job that a worker has accepted.

    Attributes:
        slots: Who gives it its slot.
        request: The message it came with.
        handler: What does it.
        lane: The jobs of that handler in this worker.
        payload: What was sent; converted to the type of the handler once that begins.
        limit: The sequence number up to which the requester has room for events.
        deadline: When it is stopped.
        state: See `JobState`.
        place: Its place in the line of those that wait for a slot.
        sequence: The sequence number of what it sends next.
        streaming: Whether a stream was opened.
        groups: What its handler has asked for and what has not ended.
        stopped_for: Why it was watched to stop; None if it was not.
        successor: A later attempt at it that came while this one stops, and begins when this one is answered.
        task: Runs the handler.
        away: Whether a thread runs the handler.
        lent: Whether that waits for jobs it has asked for, and is not counted meanwhile.
    """

    slots: Slots
    request: BusJobRequestMessage
    handler: Handler
    lane: Lane
    payload: Any
    limit: int
    deadline: float
    state: JobState = JobState.WAITING
    place: int = 0
    sequence: int = 0
    streaming: bool = False
    groups: dict[OpenGroup, None] | None = None
    stopped_for: ErrorInfo | None = None
    successor: BusJobRequestMessage | None = None
    task: PooledTask | None = None
    away: bool = False
    lent: bool = False
    _timer: Deadline | None = None
    _waiters: list[Waiter] | None = None

    def __repr__(self) -> str:
        request = self.request
        return f"<Job {self.id} {request.job_name or ''} {self.state.name.lower()} attempt={request.attempt}>"

    @property
    def id(self) -> str:
        """Identity of the job, the same in every attempt."""
        return self.request.job_id

    @property
    def host(self) -> DoingHost:
        """The runner where it is done."""
        return self.slots.host

    @property
    def worker_name(self) -> str:
        """Name of the worker that does it."""
        return self.slots.doer.name

    @property
    def instance(self) -> Any:
        """The user's object that its handler is a method of."""
        return self.slots.doer.instance

    @property
    def lineage(self) -> tuple[str, ...]:
        """The jobs around it, the outermost first."""
        return self.request.lineage

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed; None if there is none."""
        if self.deadline == math.inf:
            return None
        return max(self.deadline - self.host.tasks.now(), 0.0)

    @property
    def answered(self) -> bool:
        """Whether the requester has its outcome."""
        return self.state not in UNANSWERED

    # --- what its admission does with it ---

    def wait(self) -> None:
        """Wait for a slot, at most until the deadline."""
        self._arm_deadline()

    def limit_wait(self) -> None:
        """Wait for `ready_timeout` at most, if nothing limits the wait yet: the worker gives no slots now."""
        if self._timer is None:
            self._timer = self.host.deadlines.after(self.host.ready_timeout, self._due)

    def start(self) -> None:
        """A slot is given, and its handler is about to run: arm what limits it, and tell those who watch."""
        if self._timer is not None and self._timer.when != self.deadline:
            self._disarm()  # it limited the wait
        limit = self.handler.timeout
        if limit is not None and (due := self.host.tasks.now() + limit) < self.deadline:
            self.deadline = due
            self._disarm()
            self._timer = self.host.deadlines.add(due, self._due)
        elif self._timer is None:
            self._arm_deadline()
        events = self.host.job_events
        if events.wanted or watching:
            events.started(self)

    def hand_back(self) -> BusJobRequestMessage:
        """Leave unanswered, before the handler has begun: the request, for another worker of the name."""
        self._move(JobState.ENDED)
        self.request.timeout = self.remaining
        return self.request

    def stop(self, error: ErrorInfo) -> bool:
        """Tell the job to stop. False if it has been watched before, or is answered.

        One that has not begun never will; one that runs is answered when its handler has stopped, or after the grace
        period. A later attempt that waits for it is stopped too.
        """
        successor, self.successor = self.successor, None
        if successor is not None:
            self.host.refuse(successor, JobStatus.CANCELLED, error.type, error.message)
        if self.stopped_for is not None or self.state not in UNANSWERED:
            return False
        self.stopped_for = error
        if self.state is JobState.RUNNING:
            self._move(JobState.STOPPING)
            self._cancel_handler()
            self._cancel_groups()
        else:
            self._stopped()
        return True

    def close(self) -> None:
        """Its worker ends: a handler that goes on although the job is answered is watched to stop."""
        if self.state is JobState.ANSWERED:
            self._move(JobState.CLOSING)
            self._cancel_handler()

    # --- what the handler says ---

    def require_open(self) -> None:
        """Refuse what cannot be said any more.

        Raises:
            JobStateError: The job is answered.
        """
        if self.state not in UNANSWERED:
            raise JobStateError(
                f"job {self.id!r} of worker {self.worker_name!r} has ended: it cannot be answered or updated again"
            )

    async def event(self, kind: type[Any], **fields: Any) -> None:
        """Send one event; waits while the requester has no room for more.

        Raises:
            JobStateError: The job is answered.
            EncodeError: A field cannot travel; nothing was sent, the job goes on.
        """
        while self.sequence >= self.limit and self.state in UNANSWERED:
            await self._wait_for_credit()
        self.require_open()
        sequence = self.sequence
        self.sequence = sequence + 1
        request = self.request
        try:
            self.host.bus.post(
                kind(
                    source=self.worker_name,
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

    def grant(self, limit: int) -> None:
        """Note that the requester has room for events up to sequence `limit`."""
        if limit > self.limit:
            self.limit = limit
            self._wake()

    def respond(
        self,
        response: Any,
        status: JobStatus,
        error: ErrorInfo | None = None,
        *,
        urgent: bool = False,
        stream_end: bool = False,
    ) -> None:
        """Answer the job for its handler.

        Raises:
            JobStateError: It is answered.
            EncodeError: The response cannot travel; the requester was answered ERROR.
        """
        self.require_open()
        state = AFTER_RESPONSE[self.state]
        if error is not None and status is JobStatus.FAILED and error.type in KINDS:
            status = JobStatus.ERROR  # it hands on what a job inside it came to: its own outcome is another
        try:
            response = travel({} if response is None and status is not _COMPLETED else response, "response")
        except EncodeError as failure:
            self._finish(state, JobStatus.ERROR, None, describe(failure))
            raise
        if error is None and status is not JobStatus.COMPLETED:
            error = ErrorInfo(type=status.name.capitalize(), message=f"answered {status.value}")
        self._finish(state, status, response, error, urgent=urgent, stream_end=stream_end)

    def returned(self, response: Any) -> None:
        """The handler has returned."""
        if self.state is not _RUNNING:
            if self.state is JobState.STOPPING:
                self._stopped()
            elif self.away:
                self._move(JobState.ABANDONED)
            else:
                self._move(JobState.ENDED)
                self.slots.released(self)
        elif response is None and self.handler.name is None:
            self._move(JobState.OPEN)  # `on_job_request` may answer later
        else:
            try:
                response = travel(response, "response")
            except EncodeError as error:
                self._finish(JobState.ENDED, JobStatus.ERROR, None, describe(error))
                return
            slots, request = self.slots, self.request
            host = slots.host
            watched = host.job_events.wanted or watching
            unusual = self._timer or self._waiters or self.successor or self.streaming or self.groups
            if watched or unusual or request.asked:
                self._finish(JobState.ENDED, JobStatus.COMPLETED, response, None, stream_end=self._ends_stream)
                return
            self.state = _ENDED  # the usual case: as `_finish`, with nothing to stop, to wake or to tell
            more = slots.completed(self)
            host.bus.post(
                BusJobResponseMessage(
                    source=slots.doer.name,
                    target=request.source,
                    destination=request.origin,
                    job_id=request.job_id,
                    sequence=self.sequence,
                    attempt=request.attempt,
                    status=_COMPLETED,
                    response=response,
                )
            )
            if more:
                slots.freed()

    def raised(self, error: BaseException) -> None:
        """The handler has raised."""
        is_cancel = only_cancels(error)
        if self.state is not JobState.RUNNING:
            if self.state is not JobState.STOPPING or not is_cancel:
                log_raised(self.request, error, describe(error), "handler raised after its job was over")
            self.returned(None)
        elif is_cancel and cancelled_from_outside():
            self.stopped_for = cancelled(f"worker {self.worker_name!r} was stopped")
            self._stopped()
        else:
            info = describe(error, tracebacks=self.host.tracebacks)
            if is_cancel:
                info = cancelled_by_stranger(info.type)
            refused = is_refusal(error)
            told = refused or all(issubclass(type(leaf), JobError) for leaf in leaves(error))  # inside, or on purpose
            status = JobStatus.FAILED if refused else JobStatus.ERROR
            self._finish(JobState.ENDED, status, None, info, cause=error if not self.request.origin else None)
            log_raised(self.request, error, info, "handler raised", told=told)

    # --- its thread, and what it asks for ---

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Call a plain function in a thread. When this is cancelled, that goes on, and the slot stays taken."""
        self.away = True
        return await self.host.threads.call(function, f"{self.worker_name}.{self.handler.attribute}", self._back)

    def _back(self) -> None:
        """Its thread has ended."""
        self.away = False
        if self.state is JobState.ABANDONED:
            self._move(JobState.ENDED)
            self.slots.released(self)

    def asks(self, group: OpenGroup) -> None:
        """Note that its handler has asked for jobs: they end with it."""
        if self.groups is None:
            self.groups = {}
        self.groups[group] = None
        if self.away and not self.lent:
            self.slots.lend(self)

    def has_answers(self, group: OpenGroup) -> None:
        """Note that those jobs have ended."""
        groups = self.groups or {}
        groups.pop(group, None)
        if self.lent and not groups:
            self.slots.take_back(self)

    # --- inside ---

    def _move(self, state: JobState) -> None:
        if self._timer is not None and JOB_TIMERS[self.state] != JOB_TIMERS[state]:
            self._disarm()
        self.state = moved(JOB_STEPS, self.state, state)

    def _finish(
        self,
        state: JobState,
        status: JobStatus,
        response: Any,
        error: ErrorInfo | None,
        *,
        urgent: bool = False,
        stream_end: bool = False,
        cause: BaseException | None = None,
    ) -> None:
        """Answer the job, and go to a state in which it is answered: the only way there but handing back."""
        slots, held = self.slots, self.state is not JobState.WAITING
        if self.away and state is JobState.ENDED:
            state = JobState.ABANDONED
        slots.answered(self)
        self._move(state)
        if self.request.asked is not None and held and status in {JobStatus.COMPLETED, JobStatus.ERROR}:
            slots.remember(self, status, response, error)
        self.host.bus.post(self._answer(status, response, error, cause, urgent=urgent, stream_end=stream_end))
        if status is not JobStatus.COMPLETED:
            self._cancel_groups()
        self._wake()
        events = self.host.job_events
        if events.wanted or watching:
            events.ended(self, status, error)
        if held and state in {JobState.ENDED, JobState.QUARANTINED}:
            slots.released(self)
        elif state is JobState.ABANDONED:
            slots.abandoned()
        if self.successor is not None:
            slots.accept(self.successor, force=True)

    def _stopped(self, state: JobState = JobState.ENDED) -> None:
        info = self.stopped_for
        timed_out = info is not None and info.type == TIMED_OUT
        self._finish(state, JobStatus.FAILED if timed_out else JobStatus.CANCELLED, None, info)

    def _answer(
        self,
        status: JobStatus,
        response: Any,
        error: ErrorInfo | None,
        cause: BaseException | None,
        *,
        urgent: bool,
        stream_end: bool,
    ) -> BusMessage:
        request = self.request
        if stream_end:
            return BusJobStreamEndMessage(
                source=self.worker_name,
                target=request.source,
                destination=request.origin,
                job_id=request.job_id,
                sequence=self.sequence,
                attempt=request.attempt,
                data=response,
            )
        kind = BusJobResponseUrgentMessage if urgent else BusJobResponseMessage
        return kind(
            source=self.worker_name,
            target=request.source,
            destination=request.origin,
            job_id=request.job_id,
            sequence=self.sequence,
            attempt=request.attempt,
            status=status,
            response=response,
            error=error,
            cause=cause,
        )

    @property
    def _ends_stream(self) -> bool:
        """Whether what the handler returns ends a stream: one that is handed the message says so itself."""
        return self.streaming and (self.handler.takes is not _MESSAGE or self.handler.shape is Shape.GENERATOR)

    def _arm_deadline(self) -> None:
        if self.deadline != math.inf and self.request.origin:  # a requester in this process sees to it itself
            self._timer = self.host.deadlines.add(self.deadline, self._due)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        """What the timer limits is over."""
        self._timer = None
        if JOB_TIMERS[self.state] == "grace":
            self._quarantine()
        elif self.state is not JobState.WAITING or self.deadline <= self.host.tasks.now():
            self.stop(overdue())
        elif self.slots.paused:
            info = inactive(self.worker_name, self.host.ready_timeout)
            self._finish(JobState.ENDED, JobStatus.FAILED, None, info)

    def _cancel_handler(self) -> None:
        assert self.task is not None
        self.task.cancel()
        self._timer = self.host.deadlines.after(self.host.cancel_grace, self._due)

    def _quarantine(self) -> None:
        if self.away:  # what was cancelled is the wait for its thread, and that ends
            return
        fields = log_fields(self.request)
        log().warning("handler swallows its cancellation", **fields, handler=self.handler.attribute)
        assert self.task is not None
        self.task.shield()
        if self.state is JobState.STOPPING:
            self._stopped(JobState.QUARANTINED)
        else:
            self._move(JobState.QUARANTINED)
            self.slots.released(self)

    def _cancel_groups(self) -> None:
        for group in tuple(self.groups or ()):
            group.cancel(f"job {self.id!r} that asked for it did not complete")

    def _wake(self) -> None:
        """Let those look again who wait to send an event."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            wake(waiter)

    async def _wait_for_credit(self) -> None:
        waiter = self.host.tasks.waiter()
        waiters = self._waiters = self._waiters or []
        waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)


class Lane:
    """The jobs of one handler in one worker: those that hold a slot, and those that wait for one.

    `inner` are those that wait and were asked for inside a job that held a slot of this worker when they came.
    """

    __slots__ = ("inner", "limit", "pending", "running", "threaded")

    def __init__(self, handler: Handler) -> None:
        self.limit = handler.limit or math.inf
        self.threaded = handler.threaded
        self.running: dict[Execution, None] = {}
        self.pending: OrderedDict[str, Execution] = OrderedDict()
        self.inner: dict[str, Execution] = {}

    @property
    def full(self) -> bool:
        """Whether as many run as may."""
        return len(self.running) >= self.limit


async def run(execution: Execution) -> None:
    """Run the handler of a job that has a slot. Whatever it raises ends that job and nothing else."""
    if execution.state is not _RUNNING:  # it was stopped before this task came to it
        execution.returned(None)
        return
    current_job.set(execution)
    request, handler = execution.request, execution.handler
    traced = request.trace is not None or request.run is not None or watching or "structlog" in modules
    exits = enter(execution) if traced else ()
    try:
        if handler.plain:
            takes, payload = handler.takes, execution.payload
            # Most handlers take a dict with texts as keys, and get one: it needs no conversion, and is a copy already.
            kind = type(payload)
            as_it_is = kind is handler.type or (
                handler.fields and kind is dict and _TEXT.issuperset(map(type, payload))
            )
            if not as_it_is and handler.type is not None:
                execution.payload = payload = convert(payload, handler.type, "payload")
            argument = Job(execution) if takes is _JOB else _copy(request) if takes is _MESSAGE else payload
            response = await handler.call(execution.slots.doer.instance, argument)
        else:
            response = await call(execution)
    except BaseException as error:  # noqa: BLE001 - the boundary between a user's code and everybody else's jobs
        execution.raised(error)
    else:
        execution.returned(response)
    finally:
        current_job.set(None)
        if exits:
            leave(exits)
