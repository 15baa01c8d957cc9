"""Calling a handler in the way its shape asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

THREADS = 40
"""Sync handlers of one runner that run at once: anyio's own default."""


async def in_thread(limiter: CapacityLimiter, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plain function in a thread. No thread can be stopped: when cancelled, this leaves it to end by itself."""

    def caught() -> tuple[Any, BaseException | None]:
        try:
            return function(*arguments), None
        except BaseException as error:  # noqa: BLE001 - as a value: a GeneratorExit in a future closes who awaits it
            return None, error

    result, error = await run_sync(caught, abandon_on_cancel=True, limiter=limiter)
    if error is not None:
        raise error
    return result
