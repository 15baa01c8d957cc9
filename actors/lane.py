"""The lanes in which one worker's jobs run and wait."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from actors.job import Job


class Lane:
    """The jobs of one handler in one worker: those that run, and those that wait for a slot."""

    __slots__ = ("limit", "pending", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running: dict[Job[Any], None] = {}
        self.pending: OrderedDict[str, Job[Any]] = OrderedDict()


class ExecutorStatistics(msgspec.Struct, frozen=True):
    """A snapshot of one worker's jobs.

    Attributes:
        running: Jobs that hold a slot (at most the worker's `max_concurrency`, plus jobs asked for inside them).
        pending: Jobs that wait for a slot (at most its `mailbox_size`).
        quarantined: Handlers that go on although their job was answered CANCELLED after the grace period.
    """

    running: int
    pending: int
    quarantined: int
