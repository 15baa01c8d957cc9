"""Observers: subscribers that hear every message which passes the bus of this process. Who has none pays nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bus.local.mailbox import DEFAULT_MAILBOX_SIZE, Mailbox, Room
from bus.local.subscriber import BusSubscriber, Route
from bus.local.tasks import Tasks
from bus.messages import BusMessage

_WAYS = ("post", "deliver", "hand_out", "tell_runners")
"""The methods of a bus by which all messages pass."""


class Observed(Protocol):
    """A bus, to those who observe it."""

    def undelivered(self, name: str, count: int, why: str = ...) -> None:
        """Count messages that do not reach who they were for."""


class _Observer:
    """One observer: its mailbox is bounded, and what finds no room in it is dropped, as nobody waits for observers."""

    def __init__(self, subscriber: BusSubscriber, tasks: Tasks) -> None:
        self._subscriber = subscriber
        self._mailbox = Mailbox(subscriber.name, self._handle, tasks)
        self._room = Room(subscriber.name, DEFAULT_MAILBOX_SIZE, tasks)

    def hear(self, message: BusMessage) -> bool:
        """Take a message, in order with all others. False if there is no room."""
        if not self._room.take():
            return False
        self._mailbox.put(message)
        return True

    async def _handle(self, message: BusMessage) -> None:
        self._room.give()
        await self._subscriber.on_bus_message(message)


class Observers:
    """Those who observe a bus. Each hears a copy of every message, once it was delivered, in the order of sending."""

    def __init__(self, bus: Observed, copy: Callable[[BusMessage], BusMessage]) -> None:
        self._bus = bus
        self._copy = copy
        self._observers: dict[str, _Observer] = {}
        self._passing: BusMessage | None = None
        self._passed: list[BusMessage] | None = None
        """What was sent while a message is handed over, which is told after that; None while none is."""

    def add(self, subscriber: BusSubscriber, tasks: Tasks) -> Route:
        """Let somebody observe. Returns the route for its name: what is sent to that it hears like all the rest."""
        if not self._observers:
            for way in _WAYS:
                setattr(self._bus, way, self._watched(getattr(self._bus, way)))
        self._observers[subscriber.name] = _Observer(subscriber, tasks)
        return Route(_heard, _heard)

    def remove(self, name: str) -> None:
        """Let somebody observe no longer; does nothing if he does not."""
        if self._observers.pop(name, None) is not None and not self._observers:
            for way in _WAYS:
                delattr(self._bus, way)  # that of its class is left

    def _watched(self, hand_over: Callable[..., Room | None]) -> Callable[..., Room | None]:
        def watched(message: BusMessage, **options: Any) -> Room | None:
            if message is self._passing:  # one way leads into another
                return hand_over(message, **options)
            around, outer = self._passing, self._passed
            self._passing, self._passed = message, []
            try:
                room = hand_over(message, **options)
                if room is None:  # else it is tried again
                    self._passed.insert(0, message)
            finally:
                passed = self._passed
                self._passing, self._passed = around, outer
                if outer is not None:
                    outer.extend(passed)
            if outer is None:
                self._tell(passed)
            return room

        return watched

    def _tell(self, messages: list[BusMessage]) -> None:
        for message in messages:
            for name, observer in tuple(self._observers.items()):
                if name != message.source and not observer.hear(self._copy(message)):
                    self._bus.undelivered(name, 1, "an observer is too slow")


def _heard(_message: BusMessage, *, force: bool = False) -> None:
    """What is sent to an observer by name passes the bus, and is heard there."""
