"""Signals to a process that is ending already: they do not kill it on its last steps."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from actors.signals import watch

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def ends_by_itself() -> AsyncIterator[list[signal.Signals]]:
    """Receive signals for as long as the block lasts, whoever else receives them in it for a while, and none after it.

    Whoever handles signals inside takes his handler away when he has ended, while the rest of the process still closes
    what is open: one that came then would kill it, and its exit code would not say how its work ended.
    """
    came: list[signal.Signals] = []
    try:
        async with anyio.create_task_group() as tasks:
            for number in SIGNALS:
                tasks.start_soon(watch, number, came.append)
            try:
                yield came
            finally:
                tasks.cancel_scope.cancel()
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
