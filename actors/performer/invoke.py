"""Calling a handler in the way its shape asks for."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from anyio import sleep

from actors.performer.handler import Shape, Takes
from actors.performer.threads import in_thread
from bus import convert

if TYPE_CHECKING:
    from actors.performer.handler import Handler
    from actors.performer.job import Job
    from actors.worker.worker import BaseWorker


def call(worker: BaseWorker, job: Job[Any]) -> Awaitable[Any]:
    """What to await to run a job's handler, with its retries: it returns what that returns, and raises what it raises.

    Raises:
        PayloadError: The payload does not fit the handler's annotation.
    """
    handler = job.handler
    takes = handler.takes
    if takes is Takes.MESSAGE:
        argument: Any = job.request
    else:
        if handler.type is not None:
            job.payload = convert(job.payload, handler.type, "payload")
        argument = job if takes is Takes.JOB else job.payload
    if handler.retries is None:
        if handler.shape is Shape.COROUTINE and takes is not Takes.NOTHING:
            return handler.call(worker, argument)  # type: ignore[no-any-return]
        return _once(worker, job, handler, argument)
    return _with_retries(worker, job, handler, argument)


async def _once(worker: BaseWorker, job: Job[Any], handler: Handler, argument: Any) -> Any:
    arguments = (worker,) if handler.takes is Takes.NOTHING else (worker, argument)
    if handler.shape is Shape.COROUTINE:
        return await handler.call(*arguments)
    if handler.shape is Shape.THREAD:
        return await in_thread(job.host.threads, handler.call, *arguments)
    await job.stream_start()
    chunks = handler.call(*arguments)
    try:
        async for chunk in chunks:
            await job.stream(chunk)
    finally:
        await chunks.aclose()
    return None


async def _with_retries(worker: BaseWorker, job: Job[Any], handler: Handler, argument: Any) -> Any:
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt  # noqa: PLC0415

    policy = handler.retries
    assert policy is not None

    def wait(state: RetryCallState) -> float:
        return policy.backoff.delay(state.attempt_number, job.host.rng)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(policy.attempts),
        retry=retry_if_exception(lambda error: isinstance(error, policy.retry_on) and not job.ended),
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
    return await retrying(_once, worker, job, handler, argument)
