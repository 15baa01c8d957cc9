"""Jobs of a sync client as context managers: entered, iterated, or simply waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from actors.contexts import JobContext, JobGroupContext, _Context
from actors.errors import JobResult
from actors.events import JobEvent, JobGroupEvent, JobGroupResponse
from actors.sync.loop_thread import LoopThread

if TYPE_CHECKING:
    from types import TracebackType

EventT = TypeVar("EventT", JobEvent, JobGroupEvent)
AnswerT = TypeVar("AnswerT")
ContextT = TypeVar("ContextT", bound=_Context[Any, Any])


class _SyncContext(Iterator[EventT], Generic[ContextT, EventT, AnswerT]):
    """What `SyncJobContext` and `SyncJobGroupContext` share."""

    def __init__(self, thread: LoopThread, context: ContextT) -> None:
        self._thread = thread
        self._context = context

    @property
    def job_id(self) -> str:
        """Identity of the job or group."""
        return self._context.job_id

    @property
    def results(self) -> dict[str, JobResult]:
        """How each member ended, by worker name; members that have not are left out."""
        return self._context.results

    def cancel(self, reason: str | None = None) -> None:
        """End the job or group now; leaving the context then raises its error."""
        self._thread.call(self._context.cancel, reason)

    def result(self) -> AnswerT:
        """Ask for the job or group and wait for its answer: what `await` does with its twin."""

        async def answer() -> AnswerT:
            found: AnswerT = await self._context
            return found

        return self._thread.call(answer)

    def __iter__(self) -> Self:
        self._context.__aiter__()
        return self

    def __next__(self) -> EventT:
        try:
            event: EventT = self._thread.call(self._context.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return event

    def __enter__(self) -> Self:
        before = self._context._group
        try:
            self._thread.call(self._context.__aenter__)
        except BaseException as error:
            if self._context._group is not before:  # asked for, and nobody leaves a block that a signal kept us out of
                self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.call(self._context.__aexit__, kind, error, trace)


class SyncJobContext(_SyncContext[JobContext, JobEvent, Any]):
    """One job: `with client.job("name") as job`, or `client.job("name").result()`; as `JobContext`."""

    @property
    def response(self) -> Any:
        """The answer, `{}` while there is none."""
        return self._context.response


class SyncJobGroupContext(_SyncContext[JobGroupContext, JobGroupEvent, JobGroupResponse]):
    """Several jobs: `with client.job_group("a", "b") as group`, or `.result()` of it; as `JobGroupContext`."""

    @property
    def responses(self) -> dict[str, Any]:
        """Answers that have come in, by worker name."""
        return dict(self._context.responses)
