"""Running a handler in the way its shape asks for, and saying how it ended."""

from __future__ import annotations

from collections.abc import Awaitable
from sys import modules
from typing import Any

from anyio import sleep

from actors.jobs.lifecycle import JobState
from actors.jobs.nesting import current_job
from actors.observability.trace import enter, leave, watching
from actors.performer.execution import Execution
from actors.performer.handler import Handler, Shape, Takes
from actors.performer.job import Job
from actors.performer.threads import in_thread
from bus import convert


async def run(execution: Execution) -> None:
    """Run the handler of a job that has a slot. Whatever it raises ends that job and nothing else."""
    if execution.state is not JobState.RUNNING:  # it was stopped before this task came to it
        execution.returned(None)
        return
    current_job.set(execution)
    request = execution.request
    traced = request.trace is not None or request.run is not None or watching or "structlog" in modules
    exits = enter(execution) if traced else ()
    try:
        response = await call(execution)
    except BaseException as error:  # noqa: BLE001 - the boundary between a user's code and everybody else's jobs
        execution.raised(error)
    else:
        execution.returned(response)
    finally:
        current_job.set(None)
        if exits:
            leave(exits)


def call(execution: Execution) -> Awaitable[Any]:
    """What to await to run a job's handler, with its retries: it returns what that returns, and raises what it raises.

    Raises:
        PayloadError: The payload does not fit the handler's annotation.
    """
    handler = execution.handler
    takes = handler.takes
    if takes is Takes.MESSAGE:
        argument: Any = execution.request
    else:
        if handler.type is not None:
            execution.payload = convert(execution.payload, handler.type, "payload")
        argument = Job(execution) if takes is Takes.JOB else execution.payload
    if handler.retries is None:
        if handler.shape is Shape.COROUTINE and takes is not Takes.NOTHING:
            return handler.call(execution.slots.doer.instance, argument)  # type: ignore[no-any-return]
        return _once(execution, handler, argument)
    return _with_retries(execution, handler, argument)


async def _once(execution: Execution, handler: Handler, argument: Any) -> Any:
    instance = execution.slots.doer.instance
    arguments = (instance,) if handler.takes is Takes.NOTHING else (instance, argument)
    if handler.shape is Shape.COROUTINE:
        return await handler.call(*arguments)
    if handler.shape is Shape.THREAD:
        return await in_thread(execution.host.threads, handler.call, *arguments)
    job: Job[Any] = Job(execution)
    await job.stream_start()
    chunks = handler.call(*arguments)
    try:
        async for chunk in chunks:
            await job.stream(chunk)
    finally:
        await chunks.aclose()
    return None


async def _with_retries(execution: Execution, handler: Handler, argument: Any) -> Any:
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt  # noqa: PLC0415

    policy = handler.retries
    assert policy is not None

    def wait(state: RetryCallState) -> float:
        return policy.backoff.delay(state.attempt_number, execution.host.rng)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(policy.attempts),
        retry=retry_if_exception(lambda error: isinstance(error, policy.retry_on) and not execution.answered),
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
    return await retrying(_once, execution, handler, argument)
