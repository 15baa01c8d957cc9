"""Jobs as context managers: entered, iterated, or simply awaited."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from actors.jobs.errors import JobGroupError, JobResult, JobStateError
from actors.jobs.events import JobEvent, JobGroupEvent, JobGroupResponse
from actors.jobs.outcome import job_error

if TYPE_CHECKING:
    from types import TracebackType

    from actors.jobs.params import JobGroupParams
    from actors.requester.group import JobGroup
    from actors.worker.requester import Late, Requester


EventT = TypeVar("EventT", JobEvent, JobGroupEvent)
AnswerT = TypeVar("AnswerT")


class _Context(Generic[EventT, AnswerT]):
    """What `JobContext` and `JobGroupContext` share."""

    def __init__(self, requester: Requester, worker_names: tuple[str, ...], params: JobGroupParams) -> None:
        self._requester = requester
        self._worker_names = worker_names
        self._params = params
        self._group: JobGroup | None = None

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
        group, late = self._ask()
        group.listen()
        if late is not None:
            await self._requester._request_late(group, late)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        group = self._entered("exit")
        group.stop_listening()
        if kind is not None:
            group.cancel(f"its requester left the context: {kind.__name__}")
            return
        try:
            await group.wait()
        except BaseException as error:
            self._interrupted(group, error)
            raise

    def __await__(self) -> Generator[Any, None, AnswerT]:
        group, late = self._ask()
        if late is not None:
            yield from self._requester._request_late(group, late).__await__()
        try:
            while not group.is_done:
                yield from group.waiter().__await__()  # as `group.wait()`, with two objects less for each job
        except BaseException as error:
            self._interrupted(group, error)
            raise
        if group.error is not None:
            self._raise(group)
        return self._answer(group)

    def _interrupted(self, group: JobGroup, error: BaseException) -> None:
        if isinstance(error, JobGroupError):
            self._raise(group)
        group.cancel(f"its requester stopped waiting: {type(error).__name__}")

    def _ask(self) -> tuple[JobGroup, Late | None]:
        if self._group is not None:
            raise JobStateError("this context was used before: call job() or job_group() again for another job")
        group, late = self._requester._request(self._worker_names, self._params)
        self._group = group
        del self._params  # a job under way holds its copy of the payload, not the caller's
        return group, late

    def _entered(self, what: str) -> JobGroup:
        if self._group is None:
            raise JobStateError(
                f"{what} of a job that has not been asked for: enter the context with 'async with', or await it; "
                "with 'with' or '.result()' in a script"
            )
        return self._group

    async def __anext__(self) -> EventT:
        raise NotImplementedError

    def _answer(self, group: JobGroup) -> AnswerT:
        raise NotImplementedError

    def _raise(self, group: JobGroup) -> None:
        raise NotImplementedError


class JobContext(_Context[JobEvent, Any]):
    """One job: `async with worker.job("name") as job`, or `answer = await worker.job("name")`.

    Entering asks for the job, leaving waits for its answer; iterating yields its events in order, from the first one
    on. If the body raises, or the waiting task is cancelled, the job is cancelled and the exception goes on.

    Raises:
        JobError: The job did not complete: `JobTimeoutError` at its deadline, `WorkerUnavailableError` if nobody served
            the name, else with the performer's status and error.
    """

    @property
    def response(self) -> Any:
        """The answer, `{}` while there is none."""
        group = self._entered("response")
        return group.responses.get(group.worker_names[0], {})

    async def __anext__(self) -> JobEvent:
        event = await self._entered("iteration").next_event()
        if event is None:
            raise StopAsyncIteration
        return JobEvent(event.type, event.data, event.attempt)

    def _answer(self, group: JobGroup) -> Any:
        return group.responses[group.worker_names[0]]

    def _raise(self, group: JobGroup) -> None:
        assert group.error is not None
        raise job_error(group, group.error) from None


class JobGroupContext(_Context[JobGroupEvent, JobGroupResponse]):
    """Several jobs: `async with worker.job_group("a", "b") as group`, or `answers = await worker.job_group("a", "b")`.

    As `JobContext`; leaving waits for all members.

    Raises:
        JobGroupError: A member did not complete and `cancel_on_error` is set, or the deadline passed: with the results
            of all members and the answers that had come in.
    """

    @property
    def responses(self) -> dict[str, Any]:
        """Answers that have come in, by worker name."""
        return self._entered("responses").responses

    async def __anext__(self) -> JobGroupEvent:
        event = await self._entered("iteration").next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    def _answer(self, group: JobGroup) -> JobGroupResponse:
        return JobGroupResponse(group.job_id, group.responses, group.results)

    def _raise(self, group: JobGroup) -> None:
        assert group.error is not None
        raise group.error
