"""A stream as who asks for it holds it: the chunks of one job, and nothing else of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from actors.jobs.errors import JobError, ResultMismatchError
from actors.jobs.events import JobEvent
from actors.requester.contexts import JobContext
from actors.requester.result import Fit, mismatch
from bus import ErrorInfo, JobStatus, PayloadError

RESTARTED = "StreamRestarted"
"""`ErrorInfo.type` of a stream whose performer died after it had sent chunks."""


async def chunks(worker_name: str, context: JobContext[Any], fit: Fit | None) -> AsyncGenerator[Any, None]:
    """Ask for a job and give out the chunks of its stream, as they are wanted; closing the generator cancels the job.

    Raises:
        JobError: The job did not complete, or began again after it had sent chunks: those are void then.
        ResultMismatchError: A chunk is not what is wanted.
    """
    given = 0
    attempt = 1
    async with context as job:
        async for event in job:
            if event.attempt != attempt and given:
                raise JobError(
                    worker_name=worker_name,
                    status=JobStatus.CANCELLED,
                    error=ErrorInfo(
                        RESTARTED,
                        f"the stream began again as attempt {event.attempt} after it had given {given} chunks, which "
                        "are void now: start anew, or iterate over job(), whose events tell their attempt",
                        retryable=True,
                    ),
                    job_id=job.job_id,
                )
            attempt = event.attempt
            if event.type != JobEvent.STREAM_DATA:
                continue
            chunk = event.data
            if fit is not None:
                try:
                    chunk = fit(chunk)
                except PayloadError as unfit:
                    raise ResultMismatchError(
                        worker_name=worker_name,
                        status=JobStatus.FAILED,
                        response=chunk,
                        error=mismatch(worker_name, unfit),
                        job_id=job.job_id,
                    ) from unfit
            given += 1
            yield chunk
