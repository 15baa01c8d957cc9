"""Signals of the operating system, as requests to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import anyio

from bus.log import log

if TYPE_CHECKING:
    from bus.local.tasks import Tasks


class Finish(Protocol):
    """Begins to end a runner, gracefully or at once."""

    def __call__(self, reason: str, *, at_once: bool = False) -> None:
        """Begin to end."""


_watches: dict[signal.Signals, list[tuple[Callable[[signal.Signals], None], anyio.Event]]] = {}
"""Who watches each signal in this process; the first one of each receives it for all."""


def can_watch() -> bool:
    """Whether signals reach this thread: only the main one gets any."""
    return threading.current_thread() is threading.main_thread()


async def watch(number: signal.Signals, received: Callable[[signal.Signals], None]) -> None:
    """Call `received` for each signal until cancelled.

    It runs in the event loop, between tasks: a handler that raises out of `signal.signal` would land inside any. All
    watches of a signal share one receiver: a second receiver takes the signal from the first one.
    """
    watch = (received, anyio.Event())
    watches = _watches.setdefault(number, [])
    watches.append(watch)
    try:
        if watches[0] is not watch:
            await watch[1].wait()
        with anyio.open_signal_receiver(number) as signals:
            async for _ in signals:
                for told, _first in tuple(watches):
                    told(number)
    finally:
        was_first = watches[0] is watch
        watches.remove(watch)
        if was_first and watches:
            watches[0][1].set()


class EndSignals:
    """The signals that end a runner: the first one gracefully, the second one at once."""

    def __init__(self, ending: Callable[[], bool], finish: Finish, *, sigint: bool, sigterm: bool) -> None:
        self._ending = ending
        self._finish = finish
        wanted = ((signal.SIGINT, sigint), (signal.SIGTERM, sigterm))
        self._numbers = [number for number, is_wanted in wanted if is_wanted]

    def watch(self, tasks: Tasks) -> None:
        """Watch those that are not watched yet, if signals reach this thread."""
        while self._numbers and can_watch():
            tasks.spawn(watch, self._numbers.pop(), self._received)

    def _received(self, number: signal.Signals) -> None:
        if self._ending():
            log().warning("second signal: stopping at once", signal=number.name)
            self._finish(f"received {number.name} twice", at_once=True)
        else:
            log().info("signal: ending gracefully, once more to stop at once", signal=number.name)
            self._finish(f"received {number.name}")
