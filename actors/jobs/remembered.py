"""What became of jobs whose id their requester has chosen: asked for again, such a job is not done again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from bus import ErrorInfo, JobStatus

MAX_REMEMBERED = 10_000
"""Outcomes that are remembered at once."""

REMEMBERED_SECONDS = 600.0
"""How long each is remembered."""

Key = tuple[str, str, str]
"""What a job is known by: its requester, its worker, its id."""


class Outcome(msgspec.Struct, frozen=True):
    """How a job ended that its worker has done.

    Attributes:
        name: The job name it was asked for under.
        status: COMPLETED or ERROR: what the system ends, a timeout or a loss, is no outcome of the worker's, and such a
            job may be asked for again.
        response: A copy of its answer.
        error: Why it did not complete.
        attempt: Which attempt it was.
    """

    name: str | None
    status: JobStatus
    response: Any
    error: ErrorInfo | None
    attempt: int


class Outcomes:
    """The outcomes that are remembered: 10,000 at most, each for ten minutes."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: OrderedDict[Key, tuple[float, Outcome]] = OrderedDict()

    def __len__(self) -> int:
        self._forget()
        return len(self._entries)

    def put(self, key: Key, outcome: Outcome) -> None:
        """Remember an outcome, unless there is one: a job has one."""
        self._forget()
        if key not in self._entries:
            self._entries[key] = (self._now() + REMEMBERED_SECONDS, outcome)
            self._forget()

    def get(self, key: Key) -> Outcome | None:
        """The outcome of a job; None if none is remembered."""
        self._forget()
        found = self._entries.get(key)
        return found[1] if found is not None else None

    def _forget(self) -> None:
        entries, now = self._entries, self._now()
        while entries and (len(entries) > MAX_REMEMBERED or next(iter(entries.values()))[0] <= now):
            entries.popitem(last=False)
