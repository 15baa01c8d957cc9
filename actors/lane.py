"""The lanes in which one worker's jobs run and wait."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.job import Job
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


def inside(job: Job[Any], lanes: Iterable[Lane]) -> bool:
    """Whether it was asked for inside a job that holds a slot of these lanes of its worker.

    It must not wait for that slot, or both would for ever.
    """
    if not job.request.lineage:
        return False
    here = f"@{job.worker_name}"
    ancestors = {entry.removesuffix(here) for entry in job.request.lineage if entry.endswith(here)}
    return bool(ancestors) and any(running.id in ancestors for lane in lanes for running in lane.running)


def nested(request: BusJobRequestMessage) -> bool:
    """Whether it was asked for inside a job, and not only inside a hook."""
    return any(not entry.startswith("@") for entry in request.lineage)


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
