"""A group at its requester: how each member ended, how the whole did, and who waits for that."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from anyio import CancelScope

from actors.jobs.errors import JobGroupError, JobResult
from actors.jobs.events import JobGroupEvent, JobGroupResponse, JobRecord
from actors.jobs.outcome import (
    CANCELLED,
    answer_of_the_system,
    cancelled,
    failed_beside,
    group_error,
    is_from_performer,
    timed_out,
    unavailable,
)
from actors.jobs.remembered import Outcome
from actors.observability.trace import Trace
from actors.requester.flow import Asker, Flow, Member, Skipped
from actors.requester.result import Fit, mismatch
from bus import (
    BusJobResponseMessage,
    BusJobRunningMessage,
    BusJobStreamEndMessage,
    ErrorInfo,
    JobStatus,
    PayloadError,
    travel,
)
from bus.local.tasks import wake
from bus.log import log

if TYPE_CHECKING:
    from actors.host import AskingHost
    from actors.jobs.nesting import OuterJob
    from bus.local.deadlines import Deadline
    from bus.local.tasks import Waiter


_HEARD_BY = {
    False: frozenset({"on_job_error", "on_job_response", "on_bus_message"}),
    True: frozenset({"on_job_response", "on_bus_message"}),
}
"""The hooks that are told how a job ended; of those that were asked for by hand fewer are."""

_COMPLETED = JobStatus.COMPLETED  # looking a member of an enumeration up costs as much as a short call


def _cause(message: Any) -> BaseException | None:
    """The exception that an answer of this process is about."""
    cause = getattr(message, "cause", None)
    return cause if isinstance(cause, BaseException) else None


class GroupStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `JobGroup`.

    Attributes:
        open: Members that have not ended.
        buffered: Events that wait for its iterator (at most 256 for each attempt of a member).
        early: Messages that wait for one that a network delivers later (at most 256 for each member).
    """

    open: int
    buffered: int
    early: int


class Group(msgspec.Struct, eq=False):
    """Jobs with one id on one or several workers, until all have ended or the group has.

    It ends exactly once: when every member has, when one fails and `cancel_on_error` is set, at its deadline, or when
    it is cancelled. Members that had not answered by then are told to stop, and their results say how the group ended;
    what they answer afterwards is counted and ignored.

    Attributes:
        asker: Who asked.
        host: The runner of who asked.
        job_id: The id its members share.
        worker_names: Whom it asked, in order.
        members: The same, with what is known of each.
        open: How many of them have not ended.
        name: The job name.
        cancel_on_error: Whether one that does not complete ends the group.
        label: A text for people.
        cancellable: Whether `request_cancel_job_group` may cancel it.
        asked: Tells this use of an id that was chosen from others; None if the id was not chosen.
        trace: What it is part of.
        parent: The job inside which it was asked for; it ends with that.
        deadline: When it ends at the latest.
        fit: Makes of an answer what its requester wants; None takes any.
        by_hand: Whether it was asked for by messages made by hand: hooks are told of answers, not of its end.
        unheard: Whether nobody holds it: without hooks that are told, its failure is logged.
        listening: Whether its events are kept for an iterator.
        done: Whether it has ended.
        error: Why it did not complete; None while it runs and when it did.
    """

    asker: Asker
    host: AskingHost
    job_id: str
    worker_names: tuple[str, ...]
    members: dict[str, Member]
    open: int
    name: str | None
    cancel_on_error: bool
    label: str | None
    cancellable: bool
    asked: str | None
    trace: Trace | None
    parent: OuterJob | None
    deadline: float = math.inf
    by_hand: bool = False
    fit: Fit | None = None
    unheard: bool = False
    listening: bool = False
    done: bool = False
    error: JobGroupError | None = None
    _timer: Deadline | None = None
    _waiter: Waiter | None = None
    _waiters: tuple[Waiter, ...] = ()
    _flow: Flow | None = None
    _scopes: tuple[CancelScope, ...] = ()
    _joins: Group | None = None
    _joined_by: tuple[Group, ...] = ()

    def __repr__(self) -> str:
        state = "done" if self.done else f"{self.open} open"
        return f"<JobGroup {self.job_id} {state} workers={','.join(self.worker_names)}>"

    @property
    def responses(self) -> dict[str, Any]:
        """Answers that members have given, by worker name; one that failed without an answer has no entry."""
        return {
            member.name: member.result.response
            for member in self.members.values()
            if member.answered and member.result is not None
        }

    @property
    def results(self) -> dict[str, JobResult]:
        """How each member ended; members that have not are left out."""
        return {member.name: member.result for member in self.members.values() if member.result is not None}

    @property
    def flow(self) -> Flow:
        """What hands over its events; made when it is first needed."""
        if self._flow is None:
            self._flow = Flow(self.asker, self.host, self, self.members)
            if self.listening:
                self._flow.listen()
        return self._flow

    def statistics(self) -> GroupStatistics:
        """What it holds now."""
        early = sum(len(member.early or ()) for member in self.members.values())
        buffered = self._flow.buffered if self._flow is not None else 0
        return GroupStatistics(open=self.open, buffered=buffered, early=early)

    # --- asking ---

    def begin(self, left: float | None) -> None:
        """Belong to the job around it; end at the deadline, if so many seconds are left until there is one."""
        parent = self.parent
        if parent is not None:
            parent.asks(self)
        if left is not None:
            self._timer = self.host.deadlines.add(self.deadline, self._expired)
        if not self.open:
            self._end(None)

    def join(self, name: str) -> None:
        """Have one more member, of those that are asked one by one."""
        self.members[name] = Member(name)
        self.worker_names = (*self.worker_names, name)
        self.open += 1

    def is_same(self, worker_names: tuple[str, ...], name: str | None) -> bool:
        """Whether these jobs are among its own."""
        return self.name == name and self.members.keys() >= {*worker_names}

    def join_running(self, first: Group) -> None:
        """Ask for nothing: have what becomes of jobs that were asked for under the same id before, and still run."""
        self._joins = first
        first._joined_by = (*first._joined_by, self)
        for name in self.worker_names:
            result = first.members[name].result
            if result is not None:
                self._have(name, result.status, travel(result.response), result.error, result.attempt)

    def recall(self, name: str, outcome: Outcome) -> None:
        """A member has done its job before: have what became of it."""
        self._have(name, outcome.status, travel(outcome.response), outcome.error, outcome.attempt)

    def _have(self, name: str, status: JobStatus, response: Any, error: ErrorInfo | None, attempt: int) -> None:
        member = self.members.get(name)
        if member is not None and member.result is None and not self.done:
            answer = self._system_answer(name, status, error)
            answer.response, answer.attempt = response, attempt
            self._settle(member, answer, status, response, error)

    def until_done(self, scope: CancelScope) -> None:
        """Cancel a scope when the group has ended."""
        self._scopes = (*self._scopes, scope)

    # --- waiting ---

    async def wait(self) -> None:
        """Wait until the group has ended. Cancelling the wait leaves the group running.

        Raises:
            JobGroupError: It did not complete.
        """
        while not self.done:
            waiter = self.waiter()
            try:
                await waiter
            finally:
                self._forget(waiter)
        if self.error is not None:
            raise self.error

    def waiter(self) -> Waiter:
        """What is woken when the group has ended."""
        if self.asker.wanted:
            self.flow.wait_inside_hook()
        waiter = self.host.tasks.waiter()
        if self._waiter is None:
            self._waiter = waiter
        else:  # it is one almost always
            self._waiters = (*self._waiters, waiter)
        return waiter

    def _forget(self, waiter: Waiter) -> None:
        if waiter is self._waiter:
            self._waiter = None
        self._waiters = tuple(other for other in self._waiters if other is not waiter)

    async def next_event(self) -> JobGroupEvent | None:
        """The next event, in order; None when the group has ended and all were taken."""
        return await self.flow.next_event(lambda: self.done)

    # --- what members say, and what becomes of them ---

    def receive(self, message: Any) -> bool:
        """Take a message of a member, in its order. False if it is too late, doubled or nobody's."""
        member = self.members.get(message.source)
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

    def skip(self, message: Any) -> None:
        """Take an event that its asker does not want: those that come after it do not wait for it."""
        self.receive(Skipped(message.source, message.sequence, message.attempt, message.origin))

    def answered(self, message: BusJobResponseMessage) -> bool:
        """Take an answer if nothing was lost, doubled or overtaken before it; False, and nothing done, if not.

        It is checked for its member, attempt, sequence, origin and use of the id, as `receive` and who calls that do.
        """
        member = self.members.get(message.source)
        if (
            member is None
            or message.sequence != member.expected
            or message.attempt != member.attempt
            or member.result is not None
            or member.early
            or (member.origin is not None and message.origin != member.origin)
            or (message.asked is not None and message.asked != self.asked)
        ):
            return False
        member.origin = message.origin
        member.expected += 1
        self._settle(member, message, message.status, message.response, message.error)
        return True

    def awaits(self, name: str) -> bool:
        """Whether the member of that name has not ended."""
        return name in self.members and self.members[name].result is None

    def still_running(self, message: BusJobRunningMessage) -> bool:
        """A distant performer still holds the job of a member that has not ended. False if another does."""
        return self.members[message.source].follows(message)

    def await_ready(self, name: str) -> None:
        """Nobody takes jobs for this member's name now: give it `ready_timeout`."""
        member = self.members[name]
        if all(replica.address != member.origin for replica in self.host.registry.replicas(name)):
            member.origin = None  # who had the job is dead, or will be heard again
        if member.result is None and member.timer is None and not self.done:
            member.timer = self.host.deadlines.after(self.host.ready_timeout, lambda: self._not_ready(member))

    def fail_member(self, name: str, status: JobStatus, error: ErrorInfo) -> None:
        """End one member for a reason of our own, and tell it to stop."""
        member = self.members[name]
        if member.result is None and not self.done:
            self._settle(member, self._system_answer(name, status, error), status, None, error)
            self._stop_member(member, error.message)  # who has not started it answers within this call: too late now

    def cancel(self, reason: str | None = None) -> None:
        """End the group now and tell its members to stop. Does nothing if it has ended."""
        self._fail("", JobStatus.CANCELLED, None, cancelled(reason, "cancelled by its requester"))

    def tell_to_stop(self, reason: str) -> None:
        """Tell its members to stop, and go on waiting for what they say to that."""
        for member in self.members.values():
            self._stop_member(member, reason)

    def _apply(self, member: Member, message: Any) -> None:
        kind = type(message)
        if kind is BusJobResponseMessage or isinstance(message, BusJobResponseMessage):
            self._settle(member, message, message.status, message.response, message.error)
            return
        if kind is Skipped:
            self.flow.skip(member)
            return
        last = kind is BusJobStreamEndMessage
        self.flow.event(member, message, last=last)
        if last:
            self._settle(member, message, JobStatus.COMPLETED, message.data, None)

    def _settle(self, member: Member, message: Any, status: JobStatus, response: Any, error: ErrorInfo | None) -> None:
        if self.asked is not None:
            self._remember(member, message, status, response, error)
        if status is not _COMPLETED and not is_from_performer(message):
            self._given_up(member, status, error)
        member.answered = status is _COMPLETED or response is not None
        if self.fit is not None and status is _COMPLETED:
            try:
                response = self.fit(response)
            except PayloadError as unfit:
                status, error = JobStatus.FAILED, mismatch(member.name, unfit)
                member.answered = False
        elif not member.answered:
            response = {}
        member.result = JobResult(status, response, error, message.attempt and message.attempt + member.repeats)
        member.early = None
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None
        self.open -= 1
        if self._flow is not None:
            self._flow.member_done(member)
        if type(message) is not BusJobStreamEndMessage and "on_job_response" in self.asker.wanted:
            self.asker.queue_hook("on_job_response", message)
        if status is not _COMPLETED and self.cancel_on_error:
            self._fail(member.name, status, response, error, message)
        elif not self.open:
            self._end(None)

    def _fail(self, name: str, status: JobStatus, response: Any, error: ErrorInfo | None, message: Any = None) -> None:
        """End the group because of one member, or, without a name, because of all of them."""
        if self.done:
            return
        others, info = (JobStatus.CANCELLED, failed_beside(name, status, error)) if name else (status, error)
        stopped = [member for member in self.members.values() if member.result is None]
        for member in stopped:
            member.result = JobResult(others, {}, info)
            if self._flow is not None:
                self._flow.member_done(member)
        for member in stopped:  # who has not started it answers within this call: that must not count
            if not self._served(member):
                self._given_up(member, others, info)
            self._stop_member(member, info.message if info is not None else status.value)
            self.asker.queue_hook("on_job_response", self._system_answer(member.name, others, info))
        for group in self._joined_by:
            for member in stopped:
                group._have(member.name, others, {}, info, 0)
        self._end(
            group_error(
                self.job_id,
                self.worker_names,
                ended_by=name,
                status=status,
                response=response,
                error=error,
                results=self.results,
                responses=self.responses,
                cause=_cause(message),
            ),
            message,
        )

    def _end(self, error: JobGroupError | None, message: Any = None) -> None:
        self.done = True
        self.error = error
        if self._timer is not None:
            self._timer.cancel()
        if self.asker.groups.get(self.job_id) is self:
            del self.asker.groups[self.job_id]
        self.host.open_groups.pop(self, None)
        if self.parent is not None:
            self.parent.has_answers(self)
        if error is not None:
            for member in self.members.values():
                if member.timer is not None:
                    member.timer.cancel()
        if self.unheard or self.asker.wanted:
            self._tell_end(error, message)
        if self._flow is not None:
            self._flow.end()
        for scope in self._scopes:
            scope.cancel()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        for other in self._waiters:
            wake(other)

    def _tell_end(self, error: JobGroupError | None, message: Any) -> None:
        if self.unheard:
            self.look_for_loss()
        if self.by_hand:
            return
        if error is None:
            response = JobGroupResponse(self.job_id, self.responses, self.results)
            self.asker.queue_hook("on_job_completed", response)
        elif error.error is None or error.error.type != CANCELLED or message is not None:
            message = message or self._system_answer(error.worker_name, error.status, error.error)
            self.asker.queue_hook("on_job_error", message)

    def let_go(self) -> None:
        """Nobody holds it any more, or asks how it ended."""
        self.unheard = True
        if self.done:
            self.look_for_loss()

    def look_for_loss(self) -> None:
        """Log its failure, unless somebody is told of that, or waits for it, or has cancelled it."""
        if self._waiter is not None or not self.asker.wanted.isdisjoint(_HEARD_BY[self.by_hand]):
            return
        failed = {name: result for name, result in self.results.items() if result.status is not _COMPLETED}
        if self.error is not None:
            info, cancelled_here = self.error.error, self.error.status is JobStatus.CANCELLED
            if cancelled_here and info is not None and info.type == CANCELLED:
                return
        elif failed and "on_job_completed" not in self.asker.wanted:
            info = next(iter(failed.values())).error
        else:
            return
        log().warning(
            "a job failed, and nobody was told",
            worker=self.asker.name,
            job=self.job_id,
            asked=list(failed or self.worker_names),
            error=str(info or "no reason given"),
        )

    def _remember(
        self, member: Member, message: Any, status: JobStatus, response: Any, error: ErrorInfo | None
    ) -> None:
        """An id was chosen by who asked: who asks again under it is told the same."""
        done = status is _COMPLETED or (status is JobStatus.ERROR and is_from_performer(message))
        if done and self._joins is None:
            outcome = Outcome(self.name, status, travel(response), error, message.attempt)
            self.host.outcomes.put((self.asker.name, member.name, self.job_id), outcome)
        for group in self._joined_by:
            group._have(member.name, status, travel(response), error, message.attempt)

    def _system_answer(self, name: str, status: JobStatus, error: ErrorInfo | None) -> BusJobResponseMessage:
        return answer_of_the_system(name, self.asker.name, self.job_id, status, error)

    def _served(self, member: Member) -> bool:
        return self.host.registry.available(member.name) or self.host.holds(member.name, self.job_id)

    def _given_up(self, member: Member, status: JobStatus, error: ErrorInfo | None) -> None:
        events = self.host.job_events
        if events.wanted and self._joins is None:
            run = self.trace.run if self.trace is not None else None
            asked = member.name, self.job_id, self.name, member.attempt, self.asker.name
            events.given_up(JobRecord(*asked, status, error, run))

    def _stop_member(self, member: Member, reason: str) -> None:
        if self._joins is not None:
            return  # others wait for it
        for message in member.cancellations(self.asker.name, self.job_id, reason):
            self.host.bus.post(message)

    def _expired(self) -> None:
        waited_for = [name for name in self.worker_names if self.awaits(name)]
        error = timed_out(waited_for, self.host.registry, networked=self.host.bus.networked)
        self._fail("", JobStatus.FAILED, None, error)

    def _not_ready(self, member: Member) -> None:
        member.timer = None
        if self._served(member):
            return
        if member.origin is not None:
            self.await_ready(member.name)  # who had the job lived: it may have died since
        else:
            registry, networked = self.host.registry, self.host.bus.networked
            error = unavailable(member.name, self.host.ready_timeout, registry, networked=networked)
            self.fail_member(member.name, JobStatus.FAILED, error)
