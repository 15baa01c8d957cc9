"""Calling a handler in the way its shape asks for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from typing import Any, Protocol

from anyio import sleep
from msgspec.structs import replace

from actors.performer.handler import Handler, Shape, Takes
from actors.performer.job import Job, Performed
from bus import BusJobRequestMessage, PayloadError, travel


class Invoked(Performed, Protocol):
    """A job whose handler is called: an execution."""

    handler: Handler

    def in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        """Call a plain function in a thread, and hold the slot until that is back."""


def call(execution: Invoked) -> Awaitable[Any]:
    """What to await to run a job's handler, with its retries: it returns what that returns, and raises what it raises.

    Raises:
        PayloadError: The payload does not fit the handler's annotation.
    """
    handler = execution.handler
    if handler.retries is None:
        return _once(execution, handler, _take(execution, handler))
    return _with_retries(execution, handler)


def is_refusal(error: BaseException) -> bool:
    """Whether an error says that the payload of a job does not fit: its handler may raise one too, of its own."""
    if not issubclass(type(error), PayloadError):  # an exception may say another `__class__`
        return False
    step = error.__traceback__
    while step is not None and step.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        step = step.tb_next
    return step is None


_OURS = frozenset({"actors", "bus"})


def _take(execution: Invoked, handler: Handler) -> dict[str, Any]:
    """Make of what came the payload that a handler is given, and the arguments that it fills, by name."""
    if handler.arguments is not None:
        execution.payload, values = handler.arguments.of(execution.payload)
        return values
    if handler.converter is not None:
        execution.payload = handler.converter(execution.payload)
    return {}


async def _once(execution: Invoked, handler: Handler, values: dict[str, Any]) -> Any:
    takes = handler.takes
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    if handler.arguments is not None:
        positional, keywords = handler.arguments.give(values, Job(execution), _message_of(execution))
    elif takes is Takes.MESSAGE:
        positional = [_message_of(execution)]
    elif takes is not Takes.NOTHING:
        positional = [Job(execution) if takes is Takes.JOB else execution.payload]
    called = partial(handler.call, execution.instance, *positional, **keywords)
    threaded = handler.shape in {Shape.THREAD, Shape.THREAD_GENERATOR}
    return await _outcome(execution, await execution.in_thread(called) if threaded else called())


def _message_of(execution: Invoked) -> BusJobRequestMessage:
    """A message of its own: what a handler does to it does not change whose the job is."""
    return replace(execution.request, payload=execution.payload)


async def _outcome(execution: Invoked, returned: Any) -> Any:
    """The answer, of what a handler returned: it may be something to wait for, or chunks of a stream."""
    if isawaitable(returned):
        returned = await returned
    if isinstance(returned, AsyncGenerator):
        return await _streamed(execution, returned)
    if isinstance(returned, Generator):
        return await _streamed(execution, _from_thread(execution, returned))
    return returned


async def _streamed(execution: Invoked, chunks: AsyncGenerator[Any]) -> None:
    job: Job[Any] = Job(execution)
    await job.stream_start()
    try:
        async for chunk in chunks:
            await job.stream(chunk)
    finally:
        await chunks.aclose()
    if execution.handler.leaves_open:
        await job.stream_end()


async def _from_thread(execution: Invoked, chunks: Generator[Any]) -> AsyncGenerator[Any]:
    """The chunks of a plain generator: each is made in a thread."""
    try:
        while (chunk := await execution.in_thread(partial(next, chunks, _END))) is not _END:
            yield chunk
    finally:
        with suppress(ValueError):  # it runs: a thread was left behind in it, and closes it when that ends
            chunks.close()


_END = object()


async def _with_retries(execution: Invoked, handler: Handler) -> Any:
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt  # noqa: PLC0415

    policy = handler.retries
    assert policy is not None
    came = execution.payload
    execution.payload = travel(came)
    first = [_take(execution, handler)]  # before an attempt: a payload that does not fit never will

    def wait(state: RetryCallState) -> float:
        return policy.backoff.delay(state.attempt_number, execution.host.rng)

    async def attempt() -> Any:
        if first:
            return await _once(execution, handler, first.pop())
        execution.payload = travel(came)  # as it came, whatever the attempt before did to it
        return await _once(execution, handler, _take(execution, handler))

    retrying = AsyncRetrying(
        stop=stop_after_attempt(policy.attempts),
        retry=retry_if_exception(lambda error: policy.covers(error) and not execution.answered),
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
    return await retrying(attempt)
