"""Who receives messages: subscribers, and the routes that lead to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from bus.local.mailbox import DEFAULT_MAILBOX_SIZE, Mailbox, Room
from bus.local.tasks import Tasks
from bus.messages import BusJobResponseMessage, BusMessage


class Deliver(Protocol):
    """Delivers a message to one reader, at once. Returns the room to wait for if there is none now."""

    def __call__(self, message: Any, /, *, force: bool = False) -> Room | None:
        """Deliver `message`; with `force`, even above the bound (for what was accepted once already)."""


class AwaitsAnswer(Protocol):
    """Something that waits for answers to jobs of one id."""

    def answered(self, message: BusJobResponseMessage) -> bool:
        """Take an answer that is in order; False, and nothing done, if it needs a closer look."""


class Route(msgspec.Struct, eq=False):
    """The way to one reader: a door for every message, and shorter ways for the two that are most of all.

    Attributes:
        deliver: Takes any message.
        request: Takes requests for jobs; `deliver` where there is no shorter way.
        answers: What waits for answers, by job id; None where there is no shorter way.
        says: Says what its reader sends in a message made by hand; False for one that travels as it is.
    """

    deliver: Deliver
    request: Deliver
    answers: Mapping[str, AwaitsAnswer] | None = None
    says: Callable[[BusMessage], Awaitable[bool]] | None = None


class BusSubscriber:
    """Something that receives messages under a name: override `on_bus_message`.

    System messages are handed over ahead of data messages and even while a data message is being handled; within each
    kind they come one at a time, in the order sent.

    Attributes:
        observes: Whether it hears every message that passes this process, whoever that is for, instead of those for its
            name and for everybody. It gets copies, one at a time, in the order sent, urgent or not; one that leaves
            this process and comes back twice, and its own never. Nobody waits for it: past 10,000 that it has not
            handled, they are dropped and counted as undeliverable. False if a class does not say so.
    """

    observes: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name that messages are addressed to."""
        raise NotImplementedError(f"{type(self).__name__} needs a property 'name' to be subscribed to a bus")

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle one message. What it raises is logged; delivery goes on."""


class PlainReader:
    """A subscriber that is nothing more: a bounded mailbox in front of `on_bus_message`."""

    def __init__(self, subscriber: BusSubscriber, tasks: Tasks) -> None:
        self._subscriber = subscriber
        self._mailbox = Mailbox(subscriber.name, self._handle, tasks)
        self.room = Room(subscriber.name, DEFAULT_MAILBOX_SIZE, tasks)

    def __call__(self, message: BusMessage, *, force: bool = False) -> Room | None:
        """Queue a message; see `Deliver`."""
        if message.urgent:
            self._mailbox.put_urgent(message, getattr(message, "job_id", None))
            return None
        if not self.room.take():
            if not force:
                return self.room
            self.room.taken += 1
        self._mailbox.put(message, getattr(message, "job_id", None))
        return None

    async def _handle(self, message: BusMessage) -> None:
        if not message.urgent:
            self.room.give()
        await self._subscriber.on_bus_message(message)


def plain_route(subscriber: BusSubscriber, tasks: Tasks) -> Route:
    """The way to a subscriber that is nothing more."""
    reader = PlainReader(subscriber, tasks)
    return Route(reader, reader)
