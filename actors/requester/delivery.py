"""One member of a group: which of its messages comes next, and how its job ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bus import BusJobCancelMessage, BusJobStreamCreditMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.jobs.errors import JobResult
    from actors.runner.runner import WorkerRunner
    from bus.local.deadlines import Deadline


WINDOW = 256
"""Events of one job that may be on their way or untaken: bounds memory, and costs a credit message for 128 events."""


def holds(host: WorkerRunner, name: str, job_id: str) -> bool:
    """Whether the worker of that name in this process has a job, or the room for it: it keeps both while inactive."""
    worker = host.get_worker(name)
    if worker is None or not host.bus.networked:
        return worker is not None
    return worker._executor is not None and job_id in worker._executor.jobs


class GroupStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `JobGroup`.

    Attributes:
        open: Members that have not ended.
        buffered: Events that wait for its iterator (at most 256 for each attempt of a member).
        early: Messages that wait for one that a network delivers later (at most 256 for each member).
    """

    open: int
    buffered: int
    early: int


class Member:
    """One worker of a group: which of its messages was the last, and how its job ended.

    `origin` is the address of the runner its messages come from, None before the first one. `repeats` counts the
    attempts that had the number of one before.
    """

    __slots__ = (
        "attempt",
        "early",
        "expected",
        "former",
        "granted",
        "hooked",
        "iterated",
        "name",
        "origin",
        "repeats",
        "result",
        "timer",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.result: JobResult | None = None
        self.attempt = 1
        self.expected = 0
        self.granted = WINDOW
        self.iterated = 0
        self.hooked = 0
        self.origin: str | None = None
        self.former: tuple[str, ...] = ()
        self.repeats = 0
        self.early: dict[int, Any] | None = None
        self.timer: Deadline | None = None

    def follows(self, message: Any) -> bool:
        """Whether a message comes from who has the job now. The first one of a new attempt says who that is.

        A broker that was killed may forget its last deliveries, and give a job to another under the number it had: so
        the attempt of another runner is a new one too, and the runner that had that number before has lost the job.
        """
        if message.attempt > self.attempt:
            self.former = ()
            self._restart(message.attempt)
        elif message.attempt < self.attempt or message.origin in self.former:
            return False
        elif self.origin is not None and message.origin != self.origin:
            self.former = (*self.former, self.origin)
            self.repeats += 1
            self._restart(self.attempt)
        self.origin = message.origin
        return True

    def in_order(self, message: Any) -> Iterator[Any] | None:
        """The messages that are due now that this one has come, in order; None if it is too late or doubled.

        A message that comes early is kept; performers cannot send more than `WINDOW` ahead, so that is bounded.
        """
        if self.result is not None or not self.follows(message):
            return None
        if message.sequence < self.expected or (self.early is not None and message.sequence in self.early):
            return None
        if self.early is None:
            self.early = {}
        self.early[message.sequence] = message
        return self._due()

    def credit(self, taken: int, owner: str, job_id: str) -> BusJobStreamCreditMessage | None:
        """The message that lets the performer send more, now that `taken` events were; None while that can wait."""
        if self.result is not None or taken + WINDOW - self.granted < WINDOW // 2:
            return None
        self.granted = taken + WINDOW
        return BusJobStreamCreditMessage(
            source=owner,
            target=self.name,
            destination=self.origin or "",
            job_id=job_id,
            limit=self.granted,
            attempt=self.attempt,
        )

    def cancellations(self, owner: str, job_id: str, reason: str) -> list[BusJobCancelMessage]:
        """To all who serve the name, for it may wait there yet; and to who has it, for we may think that one dead."""
        return [
            BusJobCancelMessage(source=owner, target=self.name, destination=destination, job_id=job_id, reason=reason)
            for destination in (("", self.origin) if self.origin else ("",))
        ]

    @property
    def stalls(self) -> bool:
        """Whether the performer will soon have to wait for hooks."""
        return self.expected - self.hooked >= WINDOW // 2

    def _due(self) -> Iterator[Any]:
        while self.early and self.expected in self.early:
            message = self.early.pop(self.expected)
            self.expected += 1
            yield message

    def _restart(self, attempt: int) -> None:
        self.attempt = attempt
        self.expected = self.hooked = self.iterated = 0
        self.granted = WINDOW
        self.early = None
