"""What is said of something that fails again and again: not each time, but never nothing either."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from bus.errors import AccessDeniedError, TransportError
from bus.events import log
from bus.outbox import BACKOFF

if TYPE_CHECKING:
    from bus.network import NetworkBus

REMIND_AFTER = 10.0
"""Seconds until what fails still is said once more; then twice as many each time, up to `REMIND_EVERY`."""
REMIND_EVERY = 300.0

CONNECTING = "connecting to the network"
READING = "reading from the network"

ADVICE = {CONNECTING: ". Is the broker running, and is its URL right (the argument of open_bus, or ACTORBUS_BUS)?"}
"""What to look at when something fails."""


class Outage:
    """Something that has begun to fail: said at once, when it fails for another kind of reason, and now and then.

    Args:
        what: What fails.
        now: The time, as of all other calls: seconds of any clock that only goes on.
    """

    def __init__(self, what: str, now: float) -> None:
        self.failures = 0
        self._what = what
        self._advice = ADVICE.get(what, "")
        self._since = now
        self._remind = now + REMIND_AFTER
        self._kind: type[Exception] | None = None

    def failed(self, error: Exception, now: float) -> None:
        """It has failed, this time for this reason."""
        self.failures += 1
        lasted = now - self._since
        if type(error) is not self._kind:
            self._kind = type(error)
            log().warning(f"{self._what} failed; trying again{self._advice}", error=str(error))
            self._advice = ""
        elif now >= self._remind:
            self._remind = now + min(lasted, REMIND_EVERY)
            log().warning(
                f"{self._what} has failed for {lasted:.0f} seconds; still trying",
                failures=self.failures,
                error=str(error),
            )

    def over(self, now: float) -> None:
        """It works."""
        log().warning(f"{self._what} works, after {now - self._since:.0f} seconds", failures=self.failures)


async def until_it_works(bus: NetworkBus, operation: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Do something until the network lets us, or the bus is closed; then None.

    Raises:
        AccessDeniedError: A bus that starts is refused.
    """
    outage = None
    while True:
        try:
            result = await operation()
        except TransportError as error:
            if bus._closing:
                return None
            if what == CONNECTING and isinstance(error, AccessDeniedError):
                raise
            if outage is None:
                outage = Outage(what, bus.tasks.now())
                bus.tasks.start(bus._emit, "on_disconnected")
            outage.failed(error, bus.tasks.now())
            await anyio.sleep(BACKOFF.delay(outage.failures, bus._rng))
        else:
            if outage is not None:
                outage.over(bus.tasks.now())
                bus.tasks.start(bus._emit, "on_connected")
            return result
