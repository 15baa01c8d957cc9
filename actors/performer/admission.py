"""The lanes in which one worker's jobs run and wait."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from actors.performer.job import Job
    from bus import BusJobRequestMessage


class Lane:
    """The jobs of one handler in one worker: those that run, and those that wait for a slot.

    `inner` are those of them that wait and were asked for inside a job that ran in this worker when they came.
    """

    __slots__ = ("inner", "limit", "pending", "running")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.running: dict[Job[Any], None] = {}
        self.pending: OrderedDict[str, Job[Any]] = OrderedDict()
        self.inner: dict[str, Job[Any]] = {}

    @property
    def full(self) -> bool:
        """Whether as many run as may."""
        return len(self.running) >= self.limit

    def keep(self, job: Job[Any], *, inner: bool) -> None:
        """Let a job wait."""
        self.pending[job.id] = job
        if inner:
            self.inner[job.id] = job

    def drop(self, job: Job[Any]) -> None:
        """Forget a job that waited."""
        del self.pending[job.id]
        self.inner.pop(job.id, None)


class WorkerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a worker: everything it holds.

    Attributes:
        running: Jobs that hold a slot (at most `max_concurrency`, plus jobs asked for inside them).
        pending: Jobs that wait for a slot, or for the worker to become active (at most `mailbox_size`).
        quarantined: Handlers that go on although their job was answered CANCELLED after the grace period.
        messages: Messages of others that wait to be handled (at most `mailbox_size`).
        hooks: Hooks that wait in line, for messages and for the jobs it does and asks for (256 for events of each).
        senders: Requesters and senders that wait for room (bounded by their deadlines, or 30 seconds).
        groups: Groups it asked for that have not ended.
    """

    running: int = 0
    pending: int = 0
    quarantined: int = 0
    messages: int = 0
    hooks: int = 0
    senders: int = 0
    groups: int = 0


class ExecutorStatistics(msgspec.Struct, frozen=True):
    """A snapshot of one worker's jobs.

    Attributes:
        running: Jobs that hold a slot (at most the worker's `max_concurrency`, plus jobs asked for inside them).
        pending: Jobs that wait for a slot (at most its `mailbox_size`).
        quarantined: Handlers that go on although their job was answered CANCELLED after the grace period.
        senders: Requesters that wait for room.
    """

    running: int
    pending: int
    quarantined: int
    senders: int


def meet(first: Job[Any], request: BusJobRequestMessage) -> str | None:
    """Why the second request is refused; None if it is not, for it is the same one again, or comes after the first.

    It does that if the job was stopped because its lease was lost, and is ours anew before its handler has stopped.
    """
    same = (first.request.source, first.request.origin) == (request.source, request.origin)
    if same and (not first.cancelled or request.attempt > first.attempt):
        first.second = request if first.cancelled else None
        return None
    return f"job id {request.job_id!r} is in use by {first.requester!r}: {first!r}"


def withdraw(first: Job[Any]) -> BusJobRequestMessage | None:
    """Take away the second request, which is to be stopped, too; None if there is none."""
    second, first.second = first.second, None
    return second
