"""Signals of the operating system, as requests to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence

import anyio


def can_watch() -> bool:
    """Whether signals reach this thread: only the main one gets any."""
    return threading.current_thread() is threading.main_thread()


async def watch(numbers: Sequence[signal.Signals], received: Callable[[signal.Signals], None]) -> None:
    """Call `received` for each signal until cancelled.

    The handlers run in the event loop, between tasks: one that raises out of `signal.signal` would land inside any.
    """
    with anyio.open_signal_receiver(*numbers) as signals:
        async for number in signals:
            received(number)
