"""The hooks of a worker: what it may override, each also an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from actors.jobs.events import JobGroupResponse
    from bus import (
        BusJobCancelMessage,
        BusJobRequestMessage,
        BusJobResponseMessage,
        BusJobStreamDataMessage,
        BusJobStreamEndMessage,
        BusJobStreamStartMessage,
        BusJobUpdateMessage,
        BusJobUpdateRequestMessage,
        BusMessage,
        WorkerErrorData,
        WorkerLostData,
        WorkerReadyData,
    )


class Hooks:
    """Called by the machinery, one at a time and in order; overriding one never needs a call of `super()`.

    A hook that raises is logged and reported to the runner's `on_error`; delivery goes on, and no job's outcome depends
    on it. While a hook is blocked, system messages, jobs and answers to jobs go on; other hooks of the worker wait. If
    it waits for a job that sends many events, the hooks of that job go on beside it, or neither would ever end.
    What one sets in a context variable does not reach the next. While 1,024 hooks wait, asking for another job waits
    too, but inside a hook. Each hook is also an event: `@worker.event_handler("on_job_update")`, called after the hook
    as `handler(worker, argument)`, in a task of its own.
    """

    event_names: ClassVar[tuple[str, ...]] = (
        "on_activated",
        "on_deactivated",
        "on_worker_ready",
        "on_worker_failed",
        "on_worker_lost",
        "on_bus_message",
        "on_job_request",
        "on_job_response",
        "on_job_update",
        "on_job_update_requested",
        "on_job_completed",
        "on_job_error",
        "on_job_stream_start",
        "on_job_stream_data",
        "on_job_stream_end",
        "on_job_cancelled",
    )

    def accepts_bus_message(self, message: BusMessage) -> bool:  # noqa: ARG002 - overriding methods use it
        """Whether the worker takes a message to it; asked before anything is done with that. A plain `def`.

        A request that it does not take is answered FAILED. What comes of a job that it has asked for and is not taken
        is left out; if that is the answer, the job ends as FAILED. Anything else is dropped and counted. If this
        raises, the message is not taken.
        """
        return True

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """The worker became active; `args` are those of `activate_worker`, None at its start."""

    async def on_deactivated(self) -> None:
        """The worker became inactive: it gets no new jobs, those that run go on."""

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        """A watched worker came up (children are watched)."""

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        """A child's `start()` or `run()` raised, or it reported an error."""

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        """A watched worker is gone."""

    async def on_bus_message(self, message: BusMessage) -> None:
        """A message for this worker, of any type, or one for everybody; after the built-in handling."""

    async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any] | None:
        """A job that no `@job` handler serves.

        Return the response, or None to answer later with `send_job_response`: the job stays open until then.
        """

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        """A member of a group this worker asked for has ended; also when the system ended it."""

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        """A member sent progress."""

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """The requester of an active job wants an update: `send_job_update`."""

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        """All members of a group have ended, and none ended it."""

    async def on_job_error(self, message: BusJobResponseMessage) -> None:
        """A group ended by a member that failed, by its deadline, or because nobody served a name."""

    async def on_job_stream_start(self, message: BusJobStreamStartMessage) -> None:
        """A member began to stream."""

    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        """A member sent a chunk."""

    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        """A member ended its stream, and with it its job."""

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        """A job of this worker was cancelled by its requester; its handler has been told."""
