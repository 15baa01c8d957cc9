"""The sync client: jobs asked for by code without an event loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Self, TypeVar, Unpack, overload

from actors.client.loop_thread import LoopThread, SyncEvents
from actors.jobs.errors import JobResult
from actors.jobs.events import AnswerT, JobEvent, JobGroupEvent, JobGroupResponse
from actors.jobs.params import (
    RUN_TTL,
    CallKeywords,
    ClientOptions,
    GroupKeywords,
    JobGroupParams,
    JobKeywords,
    PayloadKeywords,
    RunKeywords,
)
from actors.performer.job import Job
from actors.requester.contexts import JobContext, JobGroupContext, _Context, drop, handed_on, was_asked
from actors.worker.asking import Asking, FunctionReference
from bus import BusJobRequestMessage, DeadLetter, DeadLetters, WorkerBus

if TYPE_CHECKING:
    from types import TracebackType

    from actors.runs.run import RunEvent, RunStatus
    from actors.runs.runs import Run
    from actors.runs.store import RunFilters
    from bus import WorkerReadyData


T = TypeVar("T")
P = TypeVar("P")
EventT = TypeVar("EventT", JobEvent, JobGroupEvent)
WholeT = TypeVar("WholeT")
ContextT = TypeVar("ContextT", bound=_Context[Any, Any])


class _SyncContext(Iterator[EventT], Generic[ContextT, EventT, WholeT]):
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


class SyncJobContext(_SyncContext[JobContext[AnswerT], JobEvent, AnswerT]):
    """One job: `with client.job("name") as job`, or `client.job("name").result()`; as `JobContext`."""

    @property
    def response(self) -> AnswerT:
        """The answer, `{}` while there is none."""
        return self._context.response


class SyncJobGroupContext(_SyncContext[JobGroupContext[AnswerT], JobGroupEvent, JobGroupResponse[AnswerT]]):
    """Several jobs: `with client.job_group("a", "b") as group`, or `.result()` of it; as `JobGroupContext`."""

    @property
    def responses(self) -> dict[str, AnswerT]:
        """Answers that have come in, by worker name."""
        return dict(self._context.responses)


class SyncDeadLetters:
    """The dead letters of a network; as `DeadLetters`."""

    def __init__(self, thread: LoopThread, letters: DeadLetters) -> None:
        self._thread = thread
        self._letters = letters

    def oldest(self, *, worker_name: str | None = None, most: float = 100, after: str = "") -> list[DeadLetter]:
        """The oldest letters, oldest first; as `DeadLetters.oldest`."""
        return self._thread.call(self._letters.oldest, worker_name=worker_name, most=most, after=after)

    def get(self, letter_id: str) -> DeadLetter | None:
        """One letter; None if there is none of that id."""
        return self._thread.call(self._letters.get, letter_id)

    def discard(self, letter_id: str) -> bool:
        """Throw one away. False if there was none."""
        return self._thread.call(self._letters.discard, letter_id)

    def purge(self, *, worker_name: str | None = None) -> int:
        """Throw all away, or all for one worker, and return how many there were."""
        return self._thread.call(self._letters.purge, worker_name=worker_name)


class SyncRun:
    """A run that was submitted, by this process or another; as `Run`.

    Attributes:
        run_id: By which anybody finds it again.
    """

    def __init__(self, thread: LoopThread, run: Run) -> None:
        self.run_id = run.run_id
        self._thread = thread
        self._run = run

    def __repr__(self) -> str:
        return f"<SyncRun {self.run_id}>"

    def status(self) -> RunStatus:
        """What is known of it now; as `Run.status`."""
        return self._thread.call(self._run.status)

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it has ended, and return its result; as `Run.result`."""
        return self._thread.call(self._run.result, timeout)

    def events(self, after: int = -1) -> Iterator[RunEvent]:
        """What happens in it, those after an offset, the terminal event last; as `Run.events`."""

        async def opened() -> SyncEvents[RunEvent]:
            return SyncEvents(self._thread, self._run.events(after))

        return self._thread.call(opened)

    def cancel(self, reason: str | None = None) -> RunStatus:
        """Ask to cancel it; as `Run.cancel`."""
        return self._thread.call(self._run.cancel, reason)


class AsyncClient(Asking):
    """The client with an event loop that a sync client runs: `Client`, which says so with `runs_as_sync`."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connect."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Disconnect."""

    @abstractmethod
    def workers(self) -> list[WorkerReadyData]:
        """Every worker that is known now."""

    @abstractmethod
    async def submit(
        self,
        *worker_names: str,
        params: JobGroupParams | None = None,
        idempotency_key: str | None = None,
        ttl: float | None = RUN_TTL,
        **keywords: Unpack[RunKeywords],
    ) -> Run:
        """Enter a job that outlives who asks for it."""

    @abstractmethod
    async def run(self, run_id: str) -> Run:
        """A run that was submitted."""

    @abstractmethod
    async def runs(self, **filters: Unpack[RunFilters]) -> Sequence[RunStatus]:
        """The latest runs."""

    @property
    @abstractmethod
    def dead_letters(self) -> DeadLetters:
        """The jobs that were given up on."""

    @abstractmethod
    async def requeue(self, letter_id: str, *, timeout: float | None = None) -> Any:
        """Do a job that was given up on again."""


ClientT = TypeVar("ClientT", bound=AsyncClient)

_makers: list[Callable[..., AsyncClient]] = []


def runs_as_sync(cls: type[ClientT]) -> type[ClientT]:
    """Mark the class of clients that sync clients run."""
    _makers.append(cls)
    return cls


class SyncClient:
    """Asks workers for jobs from a script: `with Client.sync(url) as client: client.request("a")`.

    Every method does what that of `Client` does, which it runs in a thread with an event loop, and blocks until that is
    done. Any number of threads may use one client. Who is interrupted while waiting, as by Ctrl-C, cancels what it
    waited for; who leaves the context cancels all that is open, tells the fleet, and leaves neither thread nor
    connection behind. A program that exits without leaving it does so then.
    """

    def __init__(
        self,
        to: str | WorkerBus,
        *,
        name: str | None = None,
        run_store: str | None = None,
        own_runs: bool = True,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Make a client; arguments as for `Client`, but nothing that lives in another event loop.

        Raises:
            TypeError: `to` is a runner or a bus that was started, or `run_store` an open store.
        """
        given: tuple[object, object] = (to, run_store)  # whatever the types say
        for each in given:
            if not isinstance(each, str | WorkerBus | None) or (isinstance(each, WorkerBus) and each.started):
                raise TypeError(
                    f"{each!r:.100} lives in an event loop: use 'async with Client(...)' in that, or give a URL"
                )
        self._client = _makers[-1](to, name=name, run_store=run_store, own_runs=own_runs, **options)
        self._thread = LoopThread()

    def __enter__(self) -> Self:
        """Connect."""
        self._thread.open(self._client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Cancel what is still open, and disconnect."""
        return self._thread.close(kind, error, trace)

    @overload
    def request(
        self, worker_name: str, payload: Any = None, *, result: type[T], **keywords: Unpack[JobKeywords]
    ) -> T: ...
    @overload
    def request(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Any: ...
    def request(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Any:
        """Ask for a job and return its answer; as `Client.request`."""
        return self._thread.call(lambda: self._client.request(worker_name, payload, result=result, **keywords))

    @overload
    def job(self, worker_name: str, *, result: type[T], **keywords: Unpack[PayloadKeywords]) -> SyncJobContext[T]: ...
    @overload
    def job(
        self, worker_name: str, *, result: Any = None, **keywords: Unpack[PayloadKeywords]
    ) -> SyncJobContext[Any]: ...
    def job(self, worker_name: str, *, result: Any = None, **keywords: Unpack[PayloadKeywords]) -> SyncJobContext[Any]:
        """One job, to be entered or waited for with `.result()`; as `Client.job`."""
        self._thread.require_open()
        return SyncJobContext(self._thread, handed_on(self._client.job(worker_name, result=result, **keywords)))

    @overload
    def job_group(
        self, *worker_names: str, result: type[T], **keywords: Unpack[GroupKeywords]
    ) -> SyncJobGroupContext[T]: ...
    @overload
    def job_group(
        self, *worker_names: str, result: Any = None, **keywords: Unpack[GroupKeywords]
    ) -> SyncJobGroupContext[Any]: ...
    def job_group(
        self, *worker_names: str, result: Any = None, **keywords: Unpack[GroupKeywords]
    ) -> SyncJobGroupContext[Any]:
        """Several jobs, to be entered or waited for with `.result()`; as `Client.job_group`."""
        self._thread.require_open()
        context = self._client.job_group(*worker_names, result=result, **keywords)
        return SyncJobGroupContext(self._thread, handed_on(context))

    @overload
    def call(
        self, handler: FunctionReference[[P], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self, handler: FunctionReference[[], Awaitable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self,
        handler: FunctionReference[..., Awaitable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    def call(self, handler: FunctionReference[[P], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(self, handler: FunctionReference[[], T], payload: None = None, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self, handler: FunctionReference[..., T], payload: Mapping[str, Any], **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self, handler: Callable[[Any, Job[P]], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self,
        handler: Callable[[Any, BusJobRequestMessage], Awaitable[T]],
        payload: Any = None,
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    def call(self, handler: Callable[[Any, P], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self, handler: Callable[[Any], Awaitable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(
        self,
        handler: Callable[Concatenate[Any, Any, Any, ...], Awaitable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    def call(self, handler: Callable[[Any, Job[P]], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self, handler: Callable[[Any, BusJobRequestMessage], T], payload: Any = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    def call(self, handler: Callable[[Any, P], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(self, handler: Callable[[Any], T], payload: None = None, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    def call(
        self,
        handler: Callable[Concatenate[Any, Any, Any, ...], T],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    def call(self, handler: Any, payload: Any = None, **keywords: Unpack[CallKeywords]) -> Any:
        """Ask for the job of a handler that is given itself, and return its answer; as `Client.call`."""
        return self._thread.call(lambda: self._client.call(handler, payload, **keywords))

    @overload
    def stream(
        self, worker_name: str, payload: Any = None, *, result: type[T], **keywords: Unpack[JobKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Iterator[Any]: ...
    @overload
    def stream(
        self, worker_name: FunctionReference[[P], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: FunctionReference[[], AsyncIterable[T]],
        payload: None = None,
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: FunctionReference[..., AsyncIterable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any, Job[P]], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: Callable[[Any, BusJobRequestMessage], AsyncIterable[T]],
        payload: Any = None,
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any, P], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any], AsyncIterable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> Iterator[T]: ...
    @overload
    def stream(
        self,
        worker_name: Callable[Concatenate[Any, Any, Any, ...], AsyncIterable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> Iterator[T]: ...
    def stream(self, worker_name: Any, payload: Any = None, *, result: Any = None, **keywords: Any) -> Iterator[Any]:
        """The chunks of a job, in order; as `Client.stream`. Leaving the loop cancels the job."""

        async def opened() -> SyncEvents[Any]:
            return SyncEvents(self._thread, self._client.stream(worker_name, payload, result=result, **keywords))

        return self._thread.call(opened)

    @overload
    def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: type[T],
        **keywords: Unpack[JobKeywords],
    ) -> list[T]: ...
    @overload
    def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: Any = None,
        **keywords: Unpack[JobKeywords],
    ) -> list[Any]: ...
    def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: Any = None,
        **keywords: Unpack[JobKeywords],
    ) -> list[Any]:
        """Ask one worker for many jobs; as `Client.gather`, but takes all payloads first, in the caller's thread."""
        self._thread.require_open()
        taken = list(payloads)
        return self._thread.call(
            lambda: self._client.gather(worker_name, taken, max_concurrency=max_concurrency, result=result, **keywords)
        )

    def workers(self) -> list[WorkerReadyData]:
        """Every worker that is known now, on any runner, but the clients."""

        async def workers() -> list[WorkerReadyData]:
            return self._client.workers()

        return self._thread.call(workers)

    def submit(
        self,
        *worker_names: str,
        params: JobGroupParams | None = None,
        idempotency_key: str | None = None,
        ttl: float | None = RUN_TTL,
        **keywords: Unpack[RunKeywords],
    ) -> SyncRun:
        """Enter a job, or a group of jobs, that outlives this client and whoever does it; as `Client.submit`."""
        run = self._thread.call(
            self._client.submit, *worker_names, params=params, idempotency_key=idempotency_key, ttl=ttl, **keywords
        )
        return SyncRun(self._thread, run)

    def run(self, run_id: str) -> SyncRun:
        """A run that was submitted, here or elsewhere; as `Client.run`."""
        return SyncRun(self._thread, self._thread.call(self._client.run, run_id))

    def runs(self, **filters: Unpack[RunFilters]) -> Sequence[RunStatus]:
        """The latest runs, latest first; as `Client.runs`."""
        return self._thread.call(self._client.runs, **filters)

    @property
    def dead_letters(self) -> SyncDeadLetters:
        """The jobs that were given up on: to be listed, inspected, discarded, or done again with `requeue`."""
        self._thread.require_open()
        return SyncDeadLetters(self._thread, self._client.dead_letters)

    def requeue(self, letter_id: str, *, timeout: float | None = None) -> Any:
        """Do a job that was given up on again, and return its answer; as `Client.requeue`."""
        return self._thread.call(self._client.requeue, letter_id, timeout=timeout)
