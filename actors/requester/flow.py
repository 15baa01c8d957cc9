"""What members of a group send before they end: in order, once, with credit, to hooks and to an iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actors.jobs.errors import JobResult, JobStateError
from actors.jobs.events import SHOWN_AS, JobGroupEvent
from bus import BusJobCancelMessage, BusJobStreamCreditMessage
from bus.local.tasks import Waiter, wake

if TYPE_CHECKING:
    from actors.host import AskingHost
    from actors.jobs.nesting import OpenGroup
    from bus.local.deadlines import Deadline
    from bus.local.mailbox import Mailbox, Room

WINDOW = 256
"""Events of one job that may be on their way or untaken: bounds memory, and costs a credit message for 128 events."""


class Asker(Protocol):
    """Who asks for jobs, as its groups need it: a worker's core."""

    name: str
    groups: dict[str, Any]
    wanted: frozenset[str]
    """The hooks that somebody wants: overridden, or with a handler of their event."""

    @property
    def asking(self) -> AskingHost | None:
        """The runner that hosts it, until it has stopped."""

    def host_for(self, action: str) -> AskingHost:
        """The running runner that hosts it; an error that names the action if there is none."""

    def queue_hook(self, hook: str, argument: Any) -> bool:
        """Put a hook in line, if anybody wants it. Whether it was."""

    def queue_event(self, hook: str, message: Any, group: OpenGroup, member: Member) -> bool:
        """Put the hooks of a job's event in line; the last of them calls `hook_done`. Whether there is any."""

    def open_mailbox(self) -> Mailbox:
        """Where hooks wait."""

    def crowded(self) -> Room | None:
        """The room to wait for before anything is begun whose end a hook is told of; None if there is room."""

    def waits_inside_hook(self) -> bool:
        """Whether a hook of its own would have to wait for whatever the current task waits for."""


class Member(msgspec.Struct, eq=False):
    """One worker of a group: which of its messages comes next, and how its job ended.

    It is asked; held by the runner at `origin` once that was heard; unserved, while `timer` runs, when nobody serves
    its name; ended when it has a result.

    Attributes:
        name: Whom.
        result: How its job ended; None before.
        answered: Whether it has given an answer: a value, which may be None if it completed.
        attempt: The attempt that counts.
        expected: The sequence number of the message that comes next.
        granted: The sequence number up to which the performer may send.
        iterated: Events that the iterator has taken.
        hooked: Events that hooks have dealt with.
        origin: The address of the runner its messages come from; None before the first one.
        former: The addresses of runners that had this attempt, and have lost it.
        repeats: Attempts that had the number of one before.
        early: Messages that overtook one that is to come, by their sequence.
        timer: When it is given up for want of somebody who serves its name.
    """

    name: str
    result: JobResult | None = None
    answered: bool = False
    attempt: int = 1
    expected: int = 0
    granted: int = WINDOW
    iterated: int = 0
    hooked: int = 0
    origin: str | None = None
    former: tuple[str, ...] = ()
    repeats: int = 0
    early: dict[int, Any] | None = None
    timer: Deadline | None = None

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

        A message that comes early waits; performers cannot send more than `WINDOW` ahead, so that is bounded.
        """
        if self.result is not None or not self.follows(message):
            return None
        if message.sequence < self.expected or (self.early is not None and message.sequence in self.early):
            return None
        if self.early is None:
            self.early = {}
        self.early[message.sequence] = message
        return self._due()

    def credit(self, taken: int, asker: str, job_id: str) -> BusJobStreamCreditMessage | None:
        """The message that lets the performer send more, now that `taken` events were; None while that can wait."""
        if self.result is not None or taken + WINDOW - self.granted < WINDOW // 2:
            return None
        self.granted = taken + WINDOW
        return BusJobStreamCreditMessage(
            source=asker,
            target=self.name,
            destination=self.origin or "",
            job_id=job_id,
            limit=self.granted,
            attempt=self.attempt,
        )

    def cancellations(self, asker: str, job_id: str, reason: str) -> list[BusJobCancelMessage]:
        """To all who serve the name, for it may wait there yet; and to who has it, for we may think that one dead."""
        return [
            BusJobCancelMessage(source=asker, target=self.name, destination=destination, job_id=job_id, reason=reason)
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


class Skipped(msgspec.Struct):
    """Stands for an event that its asker does not want, in its place."""

    source: str
    sequence: int
    attempt: int
    origin: str


class Flow:
    """Hands the events of one group to the hooks of who asked, and to an iterator if there is one.

    An event counts as taken once its hooks have dealt with it and the iterator has had it; only then its performer may
    send another beyond the window. Hooks that must go on although a hook waits for this very group do so beside it.
    """

    def __init__(self, asker: Asker, host: AskingHost, group: OpenGroup, members: dict[str, Member]) -> None:
        self.inside_hook = False
        self._asker = asker
        self._host = host
        self._group = group
        self._members = members
        self._buffer: deque[tuple[Member, JobGroupEvent]] | None = None
        self._tells_members = False
        self._reader: Waiter | None = None

    @property
    def buffered(self) -> int:
        """Events that wait for the iterator."""
        return len(self._buffer or ())

    def listen(self, *, to_members: bool = False) -> None:
        """Keep events for an iterator from now on; if it is to hear of members that end, also those that have ended."""
        self._buffer = deque()
        self._tells_members = to_members
        for member in self._members.values():
            self.member_done(member)

    def member_done(self, member: Member) -> None:
        """Tell the iterator that a member has ended, after all that this one sent."""
        result = member.result
        if self._tells_members and self._buffer is not None and result is not None:
            event = JobGroupEvent(
                JobGroupEvent.MEMBER_DONE, member.name, result.response, result.attempt or member.attempt, result
            )
            self._buffer.append((member, event))
            self.wake_reader()

    def stop_listening(self) -> None:
        """Nobody iterates any more: let the performers go on."""
        if self._buffer is not None:
            self._buffer = None
            for member in self._members.values():
                self._grant(member)

    def event(self, member: Member, message: Any, *, last: bool) -> None:
        """Hand over an event; the `last` one ends the job too, and needs no credit."""
        event_type, hook = SHOWN_AS.get(type(message), (JobGroupEvent.UPDATE, "on_job_update"))
        if self._buffer is not None:
            data = message.update if event_type is JobGroupEvent.UPDATE else message.data
            attempt = message.attempt + member.repeats
            self._buffer.append((member, JobGroupEvent(event_type, member.name, data, attempt)))
            self.wake_reader()
        hooked = self._asker.queue_event(hook, message, self._group, member)
        if last:
            return
        if hooked:
            if self.inside_hook and member.stalls:
                self._asker.open_mailbox().branch(self._group.job_id)
        else:
            member.hooked += 1
            if self._buffer is None:
                self._grant(member)

    def skip(self, member: Member) -> None:
        """An event of a member is left out."""
        member.hooked += 1
        member.iterated += 1
        self._grant(member)

    def hook_done(self, member: Member) -> None:
        """The hooks have dealt with one event of a member."""
        member.hooked += 1
        self._grant(member)

    async def next_event(self, is_done: Any) -> JobGroupEvent | None:
        """The next event, in order; None when the group has ended and all were taken."""
        buffer = self._buffer
        if buffer is None:
            return None
        while not buffer:
            if is_done():
                return None
            self.wait_inside_hook()
            if self._reader is not None:
                raise JobStateError(
                    f"two tasks iterate over {self._group!r} at once: let one of them hand on what it gets"
                )
            self._reader = self._host.tasks.waiter()
            try:
                await self._reader
            finally:
                self._reader = None
        member, event = buffer.popleft()
        if event.type == JobGroupEvent.MEMBER_DONE:  # it used none of the room that its performer has for events
            return event
        member.iterated += 1
        if member.iterated + WINDOW - member.granted >= WINDOW // 2:
            self._grant(member)
        return event

    def wake_reader(self) -> None:
        """Let the iterator look again."""
        if self._reader is not None:
            wake(self._reader)

    def wait_inside_hook(self) -> None:
        """If the asker waits for the group inside a hook, hooks of this job that must go on do so beside that one."""
        if self._asker.waits_inside_hook():
            self.inside_hook = True
            if any(member.stalls for member in self._members.values()):
                self._asker.open_mailbox().branch(self._group.job_id)

    def end(self) -> None:
        """The group has ended."""
        if self.inside_hook:
            self._asker.open_mailbox().join(self._group.job_id)
        self.wake_reader()

    def _grant(self, member: Member) -> None:
        taken = member.hooked if self._buffer is None else min(member.hooked, member.iterated)
        credit = member.credit(taken, self._asker.name, self._group.job_id)
        if credit is not None:
            self._host.bus.post(credit)
