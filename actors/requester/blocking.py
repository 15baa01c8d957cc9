"""Jobs as those who ask from a thread hold them: what blocks until there is an answer, or the next event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar

from actors.jobs.errors import JobResult
from actors.jobs.events import AnswerT, JobEvent, JobGroupEvent, JobGroupResponse
from actors.requester.contexts import JobContext, JobGroupContext, _Context, drop, was_asked

if TYPE_CHECKING:
    from types import TracebackType

ParamsP = ParamSpec("ParamsP")
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")
EventT = TypeVar("EventT", JobEvent, JobGroupEvent)
WholeT = TypeVar("WholeT")
ContextT = TypeVar("ContextT", bound=_Context[Any, Any])


class Blocking(Protocol):
    """The way from a thread into an event loop."""

    def call(
        self, function: Callable[ParamsP, Awaitable[ResultT]], *args: ParamsP.args, **keywords: ParamsP.kwargs
    ) -> ResultT:
        """Await a function in the event loop, and return or raise what it does."""

    def require_open(self) -> object:
        """Refuse a caller who cannot wait here."""


class SyncContext(Iterator[EventT], Generic[ContextT, EventT, WholeT]):
    """What `SyncJobContext` and `SyncJobGroupContext` share."""

    def __init__(self, thread: Blocking, context: ContextT) -> None:
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

    def result(self) -> WholeT:
        """Ask for the job or group and wait for its answer: what `await` does with its twin."""

        async def answer() -> WholeT:
            found: WholeT = await self._context
            return found

        drop(self._context)  # if it cannot be asked for any more, this says so
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
        asked_before = was_asked(self._context)
        drop(self._context)
        try:
            self._thread.call(self._context.__aenter__)
        except BaseException as error:
            if was_asked(self._context) and not asked_before:  # nobody leaves a block that a signal kept us out of
                self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.call(self._context.__aexit__, kind, error, trace)


class SyncJobContext(SyncContext[JobContext[AnswerT], JobEvent, AnswerT]):
    """One job: `with client.job("name") as job`, or `client.job("name").result()`; as `JobContext`."""

    @property
    def response(self) -> AnswerT:
        """The answer, `{}` while there is none."""
        return self._context.response


class SyncJobGroupContext(SyncContext[JobGroupContext[AnswerT], JobGroupEvent, JobGroupResponse[AnswerT]]):
    """Several jobs: `with client.job_group("a", "b") as group`, or `.result()` of it; as `JobGroupContext`."""

    @property
    def responses(self) -> dict[str, AnswerT]:
        """Answers that have come in, by worker name."""
        return dict(self._context.responses)


class SyncEvents(Iterator[ItemT], Generic[ItemT]):
    """An async iterator as a plain one: each step blocks until there is something. It need not be closed."""

    def __init__(self, thread: Blocking, events: AsyncIterator[ItemT]) -> None:
        self._thread = thread
        self._events = events

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        try:
            return self._thread.call(self._events.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
