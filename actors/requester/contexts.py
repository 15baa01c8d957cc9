"""Jobs as those who ask hold them: entered, iterated or simply awaited; or a group that goes on by itself."""

from __future__ import annotations

from collections.abc import Generator
from sys import _getframe
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar
from warnings import warn_explicit

from actors.jobs.errors import JobGroupError, JobResult, JobStateError
from actors.jobs.events import AnswerT, JobEvent, JobGroupEvent, JobGroupResponse
from actors.jobs.outcome import job_error
from actors.requester.group import Group, GroupStatistics
from actors.requester.request import request, request_late
from actors.requester.result import Fit

if TYPE_CHECKING:
    from types import TracebackType

    from actors.jobs.params import JobGroupParams
    from actors.requester.flow import Asker


class JobGroup:
    """Jobs with one id on one or several workers, that were asked for and go on by themselves.

    It ends exactly once: when every member has, when one fails and `cancel_on_error` is set, at its deadline, or when
    it is cancelled. Members that had not answered by then are told to stop, and their results say how the group ended;
    what they answer afterwards is counted and ignored.
    """

    __slots__ = ("_group", "_held")

    def __init__(self, group: Group, *, held: bool = False) -> None:
        self._group = group
        self._held = held
        """Whether this is where who asked for it learns of its end, and has not asked yet."""

    def __del__(self) -> None:
        """Who asked for it does not care any more: a failure is logged."""
        if self._held:
            self._group.let_go()

    def __repr__(self) -> str:
        return repr(self._group)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobGroup) and self._group is other._group

    def __hash__(self) -> int:
        return hash(self._group)

    @property
    def job_id(self) -> str:
        """The id its members share."""
        return self._group.job_id

    @property
    def worker_names(self) -> tuple[str, ...]:
        """Whom it asked, in order."""
        return self._group.worker_names

    @property
    def name(self) -> str | None:
        """The job name it was asked for under."""
        return self._group.name

    @property
    def label(self) -> str | None:
        """The text for people that it was given."""
        return self._group.label

    @property
    def cancellable(self) -> bool:
        """Whether `request_cancel_job_group` may cancel it."""
        return self._group.cancellable

    @property
    def cancel_on_error(self) -> bool:
        """Whether a member that does not complete ends the group."""
        return self._group.cancel_on_error

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._group.done

    @property
    def terminated(self) -> set[str]:
        """Names of the members that have ended."""
        return set(self._group.results)

    @property
    def responses(self) -> dict[str, Any]:
        """Answers that have come in, by worker name."""
        return self._group.responses

    @property
    def results(self) -> dict[str, JobResult]:
        """How each member ended; members that have not are left out."""
        self._held = self._held and not self._group.done
        return self._group.results

    @property
    def error(self) -> JobGroupError | None:
        """Why it did not complete; None while it runs and when it did."""
        self._held = self._held and not self._group.done
        return self._group.error

    async def wait(self) -> None:
        """Wait until the group has ended. Cancelling the wait leaves the group running.

        Raises:
            JobGroupError: It did not complete.
        """
        try:
            await self._group.wait()
        finally:
            self._held = self._held and not self._group.done

    def cancel(self, reason: str | None = None) -> None:
        """End the group now and tell its members to stop. Does nothing if it has ended."""
        self._group.cancel(reason)

    def tell_to_stop(self, reason: str) -> None:
        """Tell its members to stop, and go on waiting for what they say to that."""
        self._group.tell_to_stop(reason)

    def statistics(self) -> GroupStatistics:
        """What it holds now."""
        return self._group.statistics()


EventT = TypeVar("EventT", JobEvent, JobGroupEvent)
WholeT = TypeVar("WholeT")
ContextT = TypeVar("ContextT", bound="_Context[Any, Any]")


class _Context(Generic[EventT, WholeT]):
    """What `JobContext` and `JobGroupContext` share."""

    __slots__ = ("_asker", "_fit", "_group", "_made_at", "_made_in", "_params", "_worker_names")

    _asked: ClassVar[type]
    """What it becomes when it is asked for: one that nobody need look after any more."""

    _tells_members: ClassVar[bool]
    """Whether iterating also tells of members that have ended."""

    def __init__(
        self, asker: Asker, worker_names: tuple[str, ...], params: JobGroupParams, fit: Fit | None = None
    ) -> None:
        self._asker = asker
        self._worker_names = worker_names
        self._params = params
        self._fit = fit
        self._group: Group | None = None
        frame = _getframe(2)  # a verb makes it for who calls that
        self._made_in = frame.f_code
        self._made_at = frame.f_lasti

    @property
    def job_id(self) -> str:
        """Identity of the job or group."""
        return self._entered("job_id").job_id

    @property
    def results(self) -> dict[str, JobResult]:
        """How each member ended, by worker name; members that have not are left out."""
        return self._entered("results").results

    async def cancel(self, reason: str | None = None) -> None:
        """End the job or group now; leaving the context then raises its error."""
        self._entered("cancel()").cancel(reason)

    def __aiter__(self) -> Self:
        self._entered("iteration")
        return self

    async def __aenter__(self) -> Self:
        self.__class__ = self._asked
        if self._group is not None:
            self._refuse_again()
        group, late = request(self._asker, self._worker_names, self._params, self._fit)
        self._group = group
        del self._params  # a job under way holds its copy of the payload, not the caller's
        group.listening = True
        if self._tells_members:
            group.flow.listen(to_members=True)
        if late is not None:
            await request_late(group, late)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        group: Group = self._entered("exit") if self._group is None else self._group
        group.listening = False
        if group._flow is not None:
            group._flow.stop_listening()
        if kind is not None:
            if group.done:
                group.look_for_loss()  # what the body raised goes on, and this would be lost
            group.cancel(f"its requester left the context: {kind.__name__}")
            return
        try:
            while not group.done:
                if group.asker.wanted or group._waiter is not None:
                    await group.waiter()
                else:
                    group._waiter = waiter = group.host.tasks.waiter()
                    await waiter
        except BaseException as error:
            group.cancel(f"its requester stopped waiting: {type(error).__name__}")
            raise
        if group.error is not None:
            self._raise(group)

    def __await__(self) -> Generator[Any, None, WholeT]:
        self.__class__ = self._asked
        if self._group is not None:
            self._refuse_again()
        group, late = request(self._asker, self._worker_names, self._params, self._fit)
        self._group = group
        del self._params
        if late is not None:
            yield from request_late(group, late).__await__()
        try:
            while not group.done:
                if group.asker.wanted or group._waiter is not None:
                    yield from group.waiter().__await__()
                else:
                    group._waiter = waiter = group.host.tasks.waiter()
                    yield from waiter.__await__()  # as `group.wait()`, with two objects less for each job
        except BaseException as error:
            group.cancel(f"its requester stopped waiting: {type(error).__name__}")
            raise
        if group.error is not None:
            self._raise(group)
        return self._answer(group)

    def _refuse_again(self) -> None:
        raise JobStateError("this context was used before: call job() or job_group() again for another job")

    def _entered(self, what: str) -> Group:
        if self._group is None:
            drop(self)  # who made it is told now
            raise JobStateError(
                f"{what} of a job that has not been asked for: enter the context with 'async with', or await it; "
                "with 'with' or '.result()' in a script"
            )
        return self._group

    async def __anext__(self) -> EventT:
        raise NotImplementedError

    def _answer(self, group: Group) -> WholeT:
        raise NotImplementedError

    def _raise(self, group: Group) -> None:
        raise NotImplementedError


class JobContext(_Context[JobEvent, AnswerT]):
    """One job: `async with worker.job("name") as job`, or `answer = await worker.job("name")`.

    Entering asks for the job, leaving waits for its answer; iterating yields its events in order, from the first one
    on. If the body raises, or the waiting task is cancelled, the job is cancelled and the exception goes on.

    Raises:
        JobError: The job did not complete: `JobTimeoutError` at its deadline, `WorkerUnavailableError` if nobody served
            the name, else with the performer's status and error.
    """

    __slots__ = ()

    _tells_members = False

    @property
    def response(self) -> AnswerT:
        """The answer, `{}` while there is none."""
        group = self._entered("response") if self._group is None else self._group
        result = group.members[group.worker_names[0]].result
        answer: AnswerT = {} if result is None else result.response
        return answer

    async def __anext__(self) -> JobEvent:
        event = await self._entered("iteration").next_event()
        if event is None:
            raise StopAsyncIteration
        assert event.type != "member_done", "a job of one tells of its end by the end of the iteration"
        return JobEvent(event.type, event.data, event.attempt)

    def _answer(self, group: Group) -> AnswerT:
        result = group.members[group.worker_names[0]].result
        assert result is not None
        answer: AnswerT = result.response
        return answer

    def _raise(self, group: Group) -> None:
        assert group.error is not None
        raise job_error(group.worker_names[0], group.error) from group.error.__cause__


class JobGroupContext(_Context[JobGroupEvent, JobGroupResponse[AnswerT]]):
    """Several jobs: `async with worker.job_group("a", "b") as group`, or `answers = await worker.job_group("a", "b")`.

    As `JobContext`; leaving waits for all members.

    Raises:
        JobGroupError: A member did not complete and `cancel_on_error` is set, or the deadline passed: with the results
            of all members and the answers that had come in.
    """

    __slots__ = ()

    _tells_members = True

    @property
    def responses(self) -> dict[str, AnswerT]:
        """Answers that have come in, by worker name."""
        return self._entered("responses").responses

    async def __anext__(self) -> JobGroupEvent:
        event = await self._entered("iteration").next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    def _answer(self, group: Group) -> JobGroupResponse[AnswerT]:
        return JobGroupResponse(group.job_id, group.responses, group.results)

    def _raise(self, group: Group) -> None:
        assert group.error is not None
        raise group.error


def handed_on(context: ContextT) -> ContextT:
    """Note that a context which was made here is made for who called this function's caller."""
    frame = _getframe(2)
    context._made_in, context._made_at = frame.f_code, frame.f_lasti
    return context


def drop(context: _Context[Any, Any]) -> None:
    """Do not ask for what a context is about, on purpose."""
    context.__class__ = context._asked


def _forgotten(context: _Context[Any, Any]) -> None:
    """Warn of a job that was made and never asked for, with the line that made it."""
    code, at = context._made_in, context._made_at
    line = next((line for start, end, line in code.co_lines() if start <= at < end and line), code.co_firstlineno)
    what = f"a job on worker {', '.join(map(repr, context._worker_names))} was made here and not asked for: "
    way = "await it, or enter it with 'async with' ('with' or '.result()' in a script)"
    warn_explicit(what + way, RuntimeWarning, code.co_filename, line)


JobContext._asked = JobContext
JobGroupContext._asked = JobGroupContext


class NewJobContext(JobContext):
    """One that has not been asked for: what verbs make. It becomes a plain one then, so that collecting it is free."""

    __slots__ = ()
    __del__ = _forgotten


class NewJobGroupContext(JobGroupContext):
    """As `NewJobContext`."""

    __slots__ = ()
    __del__ = _forgotten


def was_asked(context: _Context[Any, Any]) -> bool:
    """Whether what a context is about has been asked for."""
    return context._group is not None
