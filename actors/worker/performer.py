"""The verbs of a worker about the jobs it does, by job id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.jobs.errors import JobStateError
from bus import BusJobRequestMessage, JobStatus

if TYPE_CHECKING:
    from actors.performer.execution import Executor
    from actors.performer.job import Job


class Performer:
    """Answers jobs. What is sent for a job arrives in the order sent, none lost, all before the answer."""

    _executor: Executor | None

    @property
    def name(self) -> str:
        """The name jobs are asked of."""
        raise NotImplementedError

    @property
    def active_jobs(self) -> dict[str, BusJobRequestMessage]:
        """Requests this worker has accepted and not answered, by job id."""
        return {} if self._executor is None else {job_id: job.request for job_id, job in self._executor.jobs.items()}

    async def send_job_response(
        self, job_id: str, response: Any = None, *, status: JobStatus = JobStatus.COMPLETED, urgent: bool = False
    ) -> None:
        """Answer a job.

        Args:
            job_id: Which job.
            response: Anything that can travel.
            status: How it ended; anything but COMPLETED makes the requester's `job()` raise.
            urgent: Overtake what is queued at the requester for other jobs.

        Raises:
            JobStateError: There is no such active job: it was answered, cancelled, or never given to this worker.
            EncodeError: The response cannot travel; the requester was told ERROR.
        """
        await self._active_job(job_id, "answer").respond(response, status=JobStatus(status), urgent=urgent)

    async def send_job_update(self, job_id: str, update: Any = None, *, urgent: bool = False) -> None:
        """Tell the requester about progress; see `Job.update`.

        Raises:
            JobStateError: There is no such active job.
            EncodeError: The update cannot travel; the job goes on.
        """
        await self._active_job(job_id, "update").update(update, urgent=urgent)

    async def send_job_stream_start(self, job_id: str, data: Any = None) -> None:
        """Open a job's stream; raises as `send_job_update`."""
        await self._active_job(job_id, "stream").stream_start(data)

    async def send_job_stream_data(self, job_id: str, data: Any = None) -> None:
        """Send one chunk of a job's stream; waits while the requester has 256 untaken; raises as `send_job_update`."""
        await self._active_job(job_id, "stream").stream(data)

    async def send_job_stream_end(self, job_id: str, data: Any = None) -> None:
        """End a job's stream and the job; `data` is its response. Raises as `send_job_response`."""
        await self._active_job(job_id, "end the stream of").stream_end(data)

    def _active_job(self, job_id: str, action: str) -> Job[Any]:
        job = self._executor.jobs.get(job_id) if self._executor is not None else None
        if job is None:
            raise JobStateError(
                f"worker {self.name!r} cannot {action} job {job_id!r}: it is not active here; "
                "it was answered or cancelled before, or never came"
            )
        return job
