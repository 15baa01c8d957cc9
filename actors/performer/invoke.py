"""Calling a handler in the way its shape asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from anyio import sleep
from msgspec.structs import replace

from actors.performer.handler import Handler, Shape, Takes
from actors.performer.job import Job, Performed
from bus import PayloadError, convert, travel


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
    if handler.retries is not None:
        return _with_retries(execution, handler)
    _take(execution, execution.payload)
    return _once(execution, handler)


def is_refusal(error: BaseException) -> bool:
    """Whether an error says that the payload of a job does not fit: its handler may raise one too, of its own."""
    if not issubclass(type(error), PayloadError):  # an exception may say another `__class__`
        return False
    step = error.__traceback__
    while step is not None and step.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        step = step.tb_next
    return step is None


_OURS = frozenset({"actors", "bus"})


def _take(execution: Invoked, came: Any) -> None:
    """Make of what came the payload that a handler is given."""
    handler = execution.handler
    execution.payload = came if handler.type is None else convert(came, handler.type, "payload")


async def _once(execution: Invoked, handler: Handler) -> Any:
    instance, takes = execution.instance, handler.takes
    if takes is Takes.MESSAGE:  # a message of its own: what a handler does to it does not change whose the job is
        argument: Any = replace(execution.request, payload=execution.payload)
    else:
        argument = Job(execution) if takes is Takes.JOB else execution.payload
    arguments = (instance,) if takes is Takes.NOTHING else (instance, argument)
    if handler.shape is Shape.COROUTINE:
        return await handler.call(*arguments)
    if handler.shape is Shape.THREAD:
        return await execution.in_thread(partial(handler.call, *arguments))
    job: Job[Any] = Job(execution)
    await job.stream_start()
    chunks = handler.call(*arguments)
    try:
        async for chunk in chunks:
            await job.stream(chunk)
    finally:
        await chunks.aclose()
    return None


async def _with_retries(execution: Invoked, handler: Handler) -> Any:
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt  # noqa: PLC0415

    policy = handler.retries
    assert policy is not None

    came = execution.payload
    _take(execution, travel(came))  # before an attempt, as one that does not fit never will

    def wait(state: RetryCallState) -> float:
        return policy.backoff.delay(state.attempt_number, execution.host.rng)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(policy.attempts),
        retry=retry_if_exception(lambda error: policy.covers(error) and not execution.answered),
        wait=wait,
        sleep=sleep,
        reraise=True,
    )

    async def attempt() -> Any:
        if retrying.statistics["attempt_number"] > 1:
            _take(execution, travel(came))
        return await _once(execution, handler)

    return await retrying(attempt)
