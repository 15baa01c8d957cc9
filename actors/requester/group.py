"""The requester's side: what was asked for, what came back, and who waits for it."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from actors.jobs.errors import JobGroupError, JobResult, JobStateError
from actors.jobs.events import SHOWN_AS, JobGroupEvent, JobGroupResponse
from actors.jobs.outcome import (
    CANCELLED,
    answer_of_the_system,
    cancelled,
    failed_beside,
    group_error,
    refused,
    timed_out,
    told_by_performer,
    unavailable,
)
from actors.observability.trace import current_trace, send_traced, watching
from actors.requester.delivery import WINDOW, GroupStatistics, Member, holds
from bus import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobRunningMessage,
    BusJobStreamEndMessage,
    ErrorInfo,
    JobStatus,
)
from bus.local.tasks import wake

if TYPE_CHECKING:
    from actors.jobs.params import JobGroupParams
    from actors.performer.job import Job
    from actors.runner.runner import WorkerRunner
    from actors.worker.worker import BaseWorker
    from bus.local.deadlines import Deadline
    from bus.local.mailbox import Room
    from bus.local.tasks import Waiter


class JobGroup:
    """Jobs with one id on one or several workers, until all have ended or the group has.

    It ends exactly once: when every member has, when one fails and `cancel_on_error` is set, at its deadline, or when
    it is cancelled. Members that had not answered by then are told to stop, and their results say how the group ended;
    what they answer afterwards is counted and ignored.

    Attributes:
        job_id: The id its members share.
        worker_names: Whom it asked, in order.
        responses: Answers that have come in, by worker name.
    """

    def __init__(
        self, owner: BaseWorker, host: WorkerRunner, worker_names: tuple[str, ...], params: JobGroupParams
    ) -> None:
        self.job_id = params.job_id or host.new_id()
        self.asked = host.new_id() if params.job_id else None
        self.worker_names = worker_names
        self.cancel_on_error = params.cancel_on_error
        self.label = params.label
        self.cancellable = params.cancellable
        self.name = params.name
        self.delivery = params.delivery
        self.trace = current_trace.get()
        self.responses: dict[str, Any] = {}
        self.deadline = math.inf
        self.parent: Job[Any] | None = None
        self._owner = owner
        self._host = host
        self._members = {name: Member(name) for name in worker_names}
        self._open = len(worker_names)
        self._error: JobGroupError | None = None
        self._done = False
        self._timer: Deadline | None = None
        self._waiters: list[Waiter] | None = None
        self._buffer: deque[tuple[Member, JobGroupEvent]] | None = None
        self._reader: Waiter | None = None
        self._sending: tuple[CancelScope, ...] = ()
        self._inside_hook = False

    def __repr__(self) -> str:
        state = "done" if self._done else f"{self._open} open"
        return f"<JobGroup {self.job_id} {state} workers={','.join(self.worker_names)}>"

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._done

    @property
    def terminated(self) -> set[str]:
        """Names of the members that have ended."""
        return set(self.results)

    @property
    def results(self) -> dict[str, JobResult]:
        """How each member ended; members that have not are left out."""
        return {member.name: member.result for member in self._members.values() if member.result is not None}

    @property
    def error(self) -> JobGroupError | None:
        """Why it did not complete; None while it runs and when it did."""
        return self._error

    def statistics(self) -> GroupStatistics:
        """What it holds now."""
        early = sum(len(member.early or ()) for member in self._members.values())
        return GroupStatistics(open=self._open, buffered=len(self._buffer or ()), early=early)

    async def wait(self) -> None:
        """Wait until the group has ended. Cancelling the wait leaves the group running.

        Raises:
            JobGroupError: It did not complete.
        """
        while not self._done:
            waiter = self.waiter()
            try:
                await waiter
            finally:
                if self._waiters is not None and not self._done:
                    self._waiters.remove(waiter)
        if self._error is not None:
            raise self._error

    def waiter(self) -> Waiter:
        """What is woken when the group has ended."""
        self._wait_inside_hook()
        waiter = self._host.tasks.waiter()
        self._waiters = [*(self._waiters or ()), waiter]
        return waiter

    async def ask_later(self, name: str, payload: Any, lineage: tuple[str, ...], room: Room | None) -> None:
        """Send a request to a member that had no room, as soon as it has; give up when the group has ended."""
        with CancelScope() as scope:
            self._sending = (*self._sending, scope)
            while room is not None and not self._done:
                if room.refuses:
                    self.fail_member(name, JobStatus.FAILED, refused(room))
                    break
                await room.wait()
                left = None if self.deadline == math.inf else max(self.deadline - self._host.tasks.now(), 0.0)
                waited, room = room, None if self.is_done else self.ask(name, payload, lineage, left)
                waited.pass_on()

    def begin(self, timeout: float | None, parent: Job[Any] | None) -> float | None:
        """Enter the tables, belong to the job inside which this was asked for, arm the deadline; say what is left."""
        left = timeout
        if timeout is not None:
            self.deadline = self._host.tasks.now() + timeout
        if parent is not None:
            if parent.deadline < self.deadline:
                self.deadline = parent.deadline
                left = parent.remaining
            self.parent = parent
            if parent.groups is None:
                parent.groups = {}
            parent.groups[self] = None
        if left is not None:
            self._timer = self._host.deadlines.add(self.deadline, self._expired)
        self._owner._groups[self.job_id] = self
        self._host.open_groups[self] = None
        if not self._open:
            self._end(None)
        return left

    def ask(self, name: str, payload: Any, lineage: tuple[str, ...], remaining: float | None) -> Room | None:
        """Send the request to one member. Returns the room to wait for if it has none."""
        host = self._host
        request = BusJobRequestMessage(
            source=self._owner.name,
            target=name,
            job_id=self.job_id,
            job_name=self.name,
            payload=payload,
            timeout=remaining,
            window=WINDOW,
            lineage=lineage,
            delivery=self.delivery,
            asked=self.asked,
        )
        traced = watching or self.trace is not None
        room = send_traced(host, request) if traced else host.bus.post(request)
        if room is None and not host.registry.available(name):
            self.await_ready(name)
        return room

    def listen(self) -> None:
        """Keep events for an iterator from now on."""
        self._buffer = deque()

    def stop_listening(self) -> None:
        """Nobody iterates any more: let the performers go on."""
        if self._buffer is not None:
            self._buffer = None
            for member in self._members.values():
                self._grant(member)

    async def next_event(self) -> JobGroupEvent | None:
        """The next event, in order; None when the group has ended and all were taken."""
        buffer = self._buffer
        if buffer is None:
            return None
        while not buffer:
            if self._done:
                return None
            self._wait_inside_hook()
            if self._reader is not None:
                raise JobStateError(f"two tasks iterate over {self!r} at once: let one of them hand on what it gets")
            self._reader = self._host.tasks.waiter()
            try:
                await self._reader
            finally:
                self._reader = None
        member, event = buffer.popleft()
        member.iterated += 1
        if member.iterated + WINDOW - member.granted >= WINDOW // 2:
            self._grant(member)
        return event

    def receive(self, message: Any) -> bool:
        """Take a message of a member, in its order. False if it is too late, doubled or nobody's."""
        member = self._members.get(message.source)
        if member is None:
            return False
        if (
            message.sequence == member.expected
            and message.attempt == member.attempt
            and (member.origin is None or message.origin == member.origin)
            and member.result is None
            and not member.early
        ):
            member.origin = message.origin  # the usual case: nothing lost, doubled or overtaken
            member.expected += 1
            self._apply(member, message)
            return True
        due = member.in_order(message)
        if due is None:
            return False
        for each in due:
            self._apply(member, each)
        return True

    def still_running(self, message: BusJobRunningMessage) -> bool:
        """A distant performer still holds the job of a member that has not ended. False if another does."""
        return self._members[message.source].follows(message)

    def hook_done(self, member: Member) -> None:
        """A hook has dealt with one event of a member."""
        member.hooked += 1
        self._grant(member)

    def await_ready(self, name: str) -> None:
        """Nobody takes jobs for this member's name now: give it `ready_timeout`."""
        member = self._members[name]
        if all(replica.address != member.origin for replica in self._host.registry.replicas(name)):
            member.origin = None  # who had the job is dead, or will be heard again
        if member.result is None and member.timer is None and not self._done:
            member.timer = self._host.deadlines.after(self._host.ready_timeout, lambda: self._not_ready(member))

    def awaits(self, name: str) -> bool:
        """Whether the member of that name has not ended."""
        return name in self._members and self._members[name].result is None

    def cancel(self, reason: str | None = None) -> None:
        """End the group now and tell its members to stop. Does nothing if it has ended."""
        self._fail("", JobStatus.CANCELLED, None, cancelled(reason or "cancelled by its requester"))

    def fail_member(self, name: str, status: JobStatus, error: ErrorInfo) -> None:
        """End one member for a reason of our own, and tell it to stop."""
        member = self._members[name]
        if member.result is None and not self._done:
            self._settle(member, answer_of_the_system(name, self, status, error), status, None, error)
            self._tell_to_stop(member, error.message)  # who has not started it answers within this call: too late now

    def _apply(self, member: Member, message: Any) -> None:
        kind = type(message)
        if kind is BusJobResponseMessage or isinstance(message, BusJobResponseMessage):
            self._settle(member, message, message.status, message.response, message.error)
            return
        event_type, hook = SHOWN_AS.get(kind, (JobGroupEvent.UPDATE, "on_job_update"))
        if self._buffer is not None:
            data = message.update if event_type is JobGroupEvent.UPDATE else message.data
            attempt = message.attempt + member.repeats
            self._buffer.append((member, JobGroupEvent(event_type, member.name, data, attempt)))
            self._wake_reader()
        hooked = self._owner._queue_event(hook, message, self, member)
        if kind is BusJobStreamEndMessage:
            self._settle(member, message, JobStatus.COMPLETED, message.data, None)
        elif hooked:
            if self._inside_hook and member.stalls:
                self._owner._lanes().apart(self.job_id)
        else:
            member.hooked += 1
            if self._buffer is None:
                self._grant(member)

    def _settle(self, member: Member, message: Any, status: JobStatus, response: Any, error: ErrorInfo | None) -> None:
        if status is not JobStatus.COMPLETED and not told_by_performer(message):
            self._host.job_events.given_up(self, member, status, error)
        response = {} if response is None else response
        member.result = JobResult(status, response, error, message.attempt and message.attempt + member.repeats)
        member.early = None
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None
        self._open -= 1
        self.responses[member.name] = response
        if "on_job_response" in self._owner._wanted and type(message) is not BusJobStreamEndMessage:
            self._owner._queue_hook("on_job_response", message)
        if status is not JobStatus.COMPLETED and self.cancel_on_error:
            self._fail(member.name, status, response, error, message)
        elif not self._open:
            self._end(None)

    def _fail(self, name: str, status: JobStatus, response: Any, error: ErrorInfo | None, message: Any = None) -> None:
        if self._done:
            return
        others, info = (JobStatus.CANCELLED, failed_beside(name, status, error)) if name else (status, error)
        stopped = [member for member in self._members.values() if member.result is None]
        for member in stopped:
            member.result = JobResult(others, {}, info)
        for member in stopped:  # who has not started it answers within this call: that must not count
            if not (self._host.registry.available(member.name) or holds(self._host, member.name, self.job_id)):
                self._host.job_events.given_up(self, member, others, info)
            self._tell_to_stop(member, info.message if info is not None else status.value)
            self._owner._queue_hook("on_job_response", answer_of_the_system(member.name, self, others, info))
        self._end(group_error(self, name, status, response, error), message)

    def _end(self, error: JobGroupError | None, message: Any = None) -> None:
        self._done = True
        self._error = error
        if self._timer is not None:
            self._timer.cancel()
        if error is not None:
            for member in self._members.values():
                if member.timer is not None:
                    member.timer.cancel()
        self._leave_tables()
        if error is None:
            if "on_job_completed" in self._owner._wanted:
                self._owner._queue_hook("on_job_completed", JobGroupResponse(self.job_id, self.responses, self.results))
        elif error.error is None or error.error.type != CANCELLED or message is not None:
            message = message or answer_of_the_system(error.worker_name, self, error.status, error.error)
            self._owner._queue_hook("on_job_error", message)
        if self._inside_hook:
            self._owner._lanes().together(self.job_id)
        for scope in self._sending:
            scope.cancel()
        for waiter in self._waiters or ():
            wake(waiter)
        self._wake_reader()

    def _leave_tables(self) -> None:
        if self._owner._groups.get(self.job_id) is self:
            del self._owner._groups[self.job_id]
        self._host.open_groups.pop(self, None)
        if self.parent is not None and self.parent.groups is not None:
            self.parent.groups.pop(self, None)

    def _wake_reader(self) -> None:
        if self._reader is not None:
            wake(self._reader)

    def _wait_inside_hook(self) -> None:
        """If the owner waits for this inside a hook, hooks of this job that must go on do so beside that one."""
        if not self._done and self._owner._waits_inside_hook():
            self._inside_hook = True
            if any(member.stalls for member in self._members.values()):
                self._owner._lanes().apart(self.job_id)

    def _grant(self, member: Member) -> None:
        taken = member.hooked if self._buffer is None else min(member.hooked, member.iterated)
        credit = member.credit(taken, self._owner.name, self.job_id)
        if credit is not None:
            self._host.bus.post(credit)

    def _tell_to_stop(self, member: Member, reason: str) -> None:
        for message in member.cancellations(self._owner.name, self.job_id, reason):
            self._host.bus.post(message)

    def _expired(self) -> None:
        waited_for = [name for name in self.worker_names if self.awaits(name)]
        self._fail("", JobStatus.FAILED, None, timed_out(waited_for, self._host))

    def _not_ready(self, member: Member) -> None:
        member.timer = None
        waits = not self._host.registry.available(member.name) and not holds(self._host, member.name, self.job_id)
        if waits and member.origin is not None:
            self.await_ready(member.name)  # who had the job lived: it may have died since
        elif waits:
            self.fail_member(member.name, JobStatus.FAILED, unavailable(member.name, self._host))
