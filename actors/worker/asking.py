"""The verbs of asking that a worker and a client share: for one job, for several, for a stream; by name, by handler."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, TypeVar, Unpack, overload

import anyio
import msgspec

from actors.jobs.errors import ActorError, RunnerStateError
from actors.jobs.params import (
    CallKeywords,
    GroupKeywords,
    JobGroupParams,
    JobKeywords,
    JobParams,
    PayloadKeywords,
    checked,
    resolve,
)
from actors.performer.handler import FunctionReference
from actors.performer.job import Job
from actors.requester.chunks import chunks
from actors.requester.contexts import (
    JobContext,
    JobGroupContext,
    NewJobContext,
    NewJobGroupContext,
    drop,
    handed_on,
)
from actors.requester.request import refuse_twice
from actors.requester.result import fit_for
from actors.worker.core import WorkerCore
from actors.worker.handlers import referred
from bus import BusError, BusJobRequestMessage, check_name

Delivery = Literal["at_least_once", "at_most_once"]

T = TypeVar("T")
P = TypeVar("P")

_NUMBERS = frozenset({int, float})


class _NoCore:
    """Stands on the class where a worker has its core, for one that has none."""

    def __get__(self, worker: object, cls: type) -> Any:
        if worker is None:
            return self
        raise RunnerStateError(f"{cls.__name__}.__init__ does not call super().__init__(name)")


class Asking:
    """Asks for jobs. Every one of them ends with one outcome: the requester is never left waiting for a dead worker."""

    if TYPE_CHECKING:

        @property
        def __actorbus__(self) -> WorkerCore:
            """The core that asks."""

    else:
        __actorbus__ = _NoCore()

    @overload
    def job(self, worker_name: str, *, result: type[T], **keywords: Unpack[PayloadKeywords]) -> JobContext[T]: ...
    @overload
    def job(self, worker_name: str, *, result: Any = None, **keywords: Unpack[PayloadKeywords]) -> JobContext[Any]: ...
    def job(
        self,
        worker_name: str,
        *,
        result: Any = None,
        params: JobParams | None = None,
        name: str | None = None,
        payload: Any = None,
        timeout: float | None = None,
        job_id: str | None = None,
        delivery: Delivery | None = None,
        label: str | None = None,
        cancellable: bool | None = None,
    ) -> JobContext[Any]:
        """One job on one worker, to be entered or awaited; see `JobContext`.

        Args:
            worker_name: Whom to ask. If nobody serves the name within the runner's `ready_timeout`, the job fails.
            result: What the answer must be: a class, or another annotation. The answer is converted to it and checked;
                one that does not fit makes the job fail with `ResultMismatchError`. None takes any answer.
            params: All of the below as one object; give either this or keywords.
            name: Which `@job` handler; None reaches `on_job_request`.
            payload: What the handler gets; a copy travels.
            timeout: Seconds for everything; None for no limit.
            job_id: An id of your own; see `JobParams`.
            delivery: `at_least_once` or `at_most_once` over a network; see `JobParams`.
            label: A text for people.
            cancellable: Whether `request_cancel_job_group` may cancel it.

        Raises:
            TypeError: Both spellings were used.
            ValueError: A value is out of its range.
        """
        if params is None:  # what `resolve` would make of it, at half the price: this verb is called most
            resolved = JobGroupParams(
                name=name,
                payload=payload,
                timeout=timeout,
                label=label,
                cancellable=True if cancellable is None else cancellable,
                job_id=job_id,
                delivery=delivery,
            )
            usual = timeout is None or (type(timeout) in _NUMBERS and 0 <= timeout < math.inf)
            if not usual or delivery is not None or job_id is not None or label is not None:
                resolved = checked(resolved)
            return NewJobContext(self.__actorbus__, (worker_name,), resolved, result and fit_for(result))
        resolved = resolve(
            params,
            JobGroupParams,
            name=name,
            payload=payload,
            timeout=timeout,
            job_id=job_id,
            delivery=delivery,
            label=label,
            cancellable=cancellable,
        )
        if not resolved.cancel_on_error:  # one job that failed has failed
            resolved = msgspec.structs.replace(resolved, cancel_on_error=True)
        return NewJobContext(self.__actorbus__, (worker_name,), resolved, fit_for(result))

    @overload
    def job_group(
        self, *worker_names: str, result: type[T], **keywords: Unpack[GroupKeywords]
    ) -> JobGroupContext[T]: ...
    @overload
    def job_group(
        self, *worker_names: str, result: Any = None, **keywords: Unpack[GroupKeywords]
    ) -> JobGroupContext[Any]: ...
    def job_group(
        self,
        *worker_names: str,
        result: Any = None,
        params: JobParams | None = None,
        name: str | None = None,
        payload: Any = None,
        payloads: dict[str, Any] | None = None,
        timeout: float | None = None,
        cancel_on_error: bool | None = None,
        job_id: str | None = None,
        delivery: Delivery | None = None,
        label: str | None = None,
        cancellable: bool | None = None,
    ) -> JobGroupContext[Any]:
        """One job on each of several workers, to be entered or awaited; see `JobGroupContext`.

        Args:
            worker_names: Whom to ask, each once; none is a group that completes at once.
            payloads: Payloads of single members, by worker name; the others get `payload`.
            cancel_on_error: Whether one member that does not complete ends the group; default True.
            result: What each answer must be, as for `job`: a member whose answer does not fit has failed.
            params: As for `job`, and the arguments that are not named here too.
            name: See `job`.
            payload: See `job`.
            timeout: See `job`.
            job_id: See `job`.
            delivery: See `job`.
            label: See `job`.
            cancellable: See `job`.

        Raises:
            TypeError: Both spellings were used, or a worker name is not a string.
            ValueError: A worker is named twice, or a value is out of its range.
        """
        resolved = resolve(
            params,
            JobGroupParams,
            name=name,
            payload=payload,
            payloads=payloads,
            timeout=timeout,
            cancel_on_error=cancel_on_error,
            job_id=job_id,
            delivery=delivery,
            label=label,
            cancellable=cancellable,
        )
        refuse_twice(worker_names)
        return NewJobGroupContext(self.__actorbus__, worker_names, resolved, fit_for(result))

    @overload
    async def request(
        self, worker_name: str, payload: Any = None, *, result: type[T], **keywords: Unpack[JobKeywords]
    ) -> T: ...
    @overload
    async def request(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Any: ...
    async def request(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> Any:
        """Ask for a job and return its answer; keywords and errors as for `job`."""
        return await self.job(worker_name, payload=payload, result=result, **keywords)

    @overload
    async def call(
        self, handler: FunctionReference[[P], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(
        self, handler: FunctionReference[[], Awaitable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(
        self,
        handler: FunctionReference[..., Awaitable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    async def call(self, handler: FunctionReference[[P], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    async def call(
        self, handler: FunctionReference[[], T], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(
        self, handler: FunctionReference[..., T], payload: Mapping[str, Any], **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(
        self, handler: Callable[[Any, Job[P]], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(
        self,
        handler: Callable[[Any, BusJobRequestMessage], Awaitable[T]],
        payload: Any = None,
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    async def call(
        self, handler: Callable[[Any, P], Awaitable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(
        self, handler: Callable[[Any], Awaitable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(
        self,
        handler: Callable[Concatenate[Any, Any, Any, ...], Awaitable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    @overload
    async def call(self, handler: Callable[[Any, Job[P]], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    async def call(
        self, handler: Callable[[Any, BusJobRequestMessage], T], payload: Any = None, **keywords: Unpack[CallKeywords]
    ) -> T: ...
    @overload
    async def call(self, handler: Callable[[Any, P], T], payload: P, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    async def call(self, handler: Callable[[Any], T], payload: None = None, **keywords: Unpack[CallKeywords]) -> T: ...
    @overload
    async def call(
        self,
        handler: Callable[Concatenate[Any, Any, Any, ...], T],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> T: ...
    async def call(self, handler: Any, payload: Any = None, **keywords: Unpack[CallKeywords]) -> Any:
        """Ask for the job of a handler that is given itself: `await self.call(Counter.count, "one two", on="ann")`.

        The checker knows what the handler takes and returns. The answer is checked against what it says it returns.

        Args:
            handler: A method marked with `@job`, as its class has it, or a function marked with `@function`.
            payload: What it gets: what its one parameter takes, or a dict of its parameters by name.
            keywords: `on` is the worker to ask, which may be left out for a function; the others are as for `job`.

        Raises:
            HandlerError: It is not marked, it streams, or `on` is missing. Nothing was asked for.
            ResultMismatchError: The answer is not what the handler says it returns.
            JobError: As for `job`.
        """
        name, job_name, returned = referred(handler, keywords.pop("on", None), streams=False)
        others: dict[str, Any] = {**keywords}
        return await self.job(name, name=job_name, payload=payload, result=returned, **others)

    @overload
    def stream(
        self, worker_name: str, payload: Any = None, *, result: type[T], **keywords: Unpack[JobKeywords]
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self, worker_name: str, payload: Any = None, *, result: Any = None, **keywords: Unpack[JobKeywords]
    ) -> AsyncGenerator[Any, None]: ...
    @overload
    def stream(
        self, worker_name: FunctionReference[[P], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self,
        worker_name: FunctionReference[[], AsyncIterable[T]],
        payload: None = None,
        **keywords: Unpack[CallKeywords],
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self,
        worker_name: FunctionReference[..., AsyncIterable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any, Job[P]], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self,
        worker_name: Callable[[Any, BusJobRequestMessage], AsyncIterable[T]],
        payload: Any = None,
        **keywords: Unpack[CallKeywords],
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any, P], AsyncIterable[T]], payload: P, **keywords: Unpack[CallKeywords]
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self, worker_name: Callable[[Any], AsyncIterable[T]], payload: None = None, **keywords: Unpack[CallKeywords]
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self,
        worker_name: Callable[Concatenate[Any, Any, Any, ...], AsyncIterable[T]],
        payload: Mapping[str, Any],
        **keywords: Unpack[CallKeywords],
    ) -> AsyncGenerator[T, None]: ...
    def stream(
        self, worker_name: Any, payload: Any = None, *, result: Any = None, **keywords: Any
    ) -> AsyncGenerator[Any, None]:
        """The chunks of a job, in order, none lost: `async for chunk in self.stream("thinker", name="think")`.

        The job is asked for at the first chunk. Leaving the loop cancels it, also by `break` or an exception: as soon
        as nothing holds the iterator any more, or at once in `async with contextlib.aclosing(self.stream(...))`.

        Args:
            worker_name: Whom to ask, or instead the streaming handler itself, as for `call`.
            payload: What the handler gets.
            result: What each chunk must be, as for `job`; of a handler given itself, it is what that says it yields.
            keywords: As for `job`; with a handler, as for `call`.

        Raises:
            HandlerError: The handler is not marked, it does not stream, or `on` is missing. Nothing was asked for.
            ResultMismatchError: A chunk is not what it must be. The job was cancelled.
            JobError: The job did not complete; all chunks that came were given out before. `error.type` is
                `StreamRestarted` if the performer died after it had sent chunks and another began again: they are void.
        """
        name, job_name, chunk = worker_name, keywords.pop("name", None), result
        if not isinstance(worker_name, str):
            if job_name is not None or result is not None:
                raise TypeError("a handler has a name and types of its own: leave out name= and result=")
            name, job_name, chunk = referred(worker_name, keywords.pop("on", None), streams=True)
        context = handed_on(self.job(name, name=job_name, payload=payload, **keywords))
        return chunks(name, context, fit_for(chunk, "chunk"))

    @overload
    async def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: type[T],
        **keywords: Unpack[JobKeywords],
    ) -> list[T]: ...
    @overload
    async def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: Any = None,
        **keywords: Unpack[JobKeywords],
    ) -> list[Any]: ...
    async def gather(
        self,
        worker_name: str,
        payloads: Iterable[Any],
        *,
        max_concurrency: int = 200,
        result: Any = None,
        **keywords: Unpack[JobKeywords],
    ) -> list[Any]:
        """Ask one worker for many jobs.

        Args:
            worker_name: Whom to ask.
            payloads: One job each; taken as slots become free, so it may be a generator of any length.
            max_concurrency: Jobs under way at once, 1 or more.
            result: What each answer must be, as for `job`.
            keywords: As for `job`, for each job.

        Returns:
            The answers in the order of the payloads; where a job did not complete, or its payload could not be sent,
            the error in its place.

        Raises:
            ValueError: `max_concurrency` or a keyword is out of its range.
            Exception: What iterating over `payloads` raises; jobs under way are cancelled.
        """
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be 1 or more, got {max_concurrency}")
        check_name("worker name", worker_name)
        drop(self.job(worker_name, result=result, **keywords))  # what is wrong with all of them is an error now
        answers: list[Any] = []
        numbered = enumerate(payloads)
        failure: list[Exception] = []

        async def slot() -> None:
            try:
                for index, payload in numbered:
                    answers.append(None)
                    try:
                        answers[index] = await self.job(worker_name, payload=payload, result=result, **keywords)
                    except (ActorError, BusError) as error:
                        answers[index] = error
            except Exception as error:  # noqa: BLE001 - raised below, as it is and not in a group
                failure.append(error)
                slots.cancel_scope.cancel()

        async with anyio.create_task_group() as slots:
            for _ in range(max_concurrency):
                slots.start_soon(slot)
        if failure:
            raise failure[0]
        return answers
