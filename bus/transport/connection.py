"""The connection to a network: whether it works, since when, and how often it had to be made again."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio
import msgspec

from bus.errors import AccessDeniedError, TransportError
from bus.local.tasks import Tasks
from bus.log import log
from bus.transport.outbox import BACKOFF

REMIND_AFTER = 10.0
"""Seconds until what still fails is logged again; then twice as many each time, up to `REMIND_EVERY`."""
REMIND_EVERY = 300.0


class Outage:
    """Logs something that has begun to fail: at once, when the kind of error changes, and now and then.

    Args:
        what: What fails.
        advice: What to look at; it is logged once.
        now: The time, here and in all other calls: seconds on any clock that never goes back.
    """

    def __init__(self, what: str, advice: str, now: float) -> None:
        self.failures = 0
        self._what = what
        self._advice = advice
        self._since = now
        self._remind = now + REMIND_AFTER
        self._kind: type[Exception] | None = None

    def failed(self, error: Exception, now: float) -> None:
        """It has failed again, this time with this error."""
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
        """It works again."""
        log().warning(f"{self._what} works, after {now - self._since:.0f} seconds", failures=self.failures)


CONNECTING = "connecting to the network"
READING = "reading from the network"
ECHO = "receiving our own heartbeats"

ADVICE = {CONNECTING: ". Is the broker running, and is its URL right (the argument of open_bus, or ACTORBUS_BUS)?"}
"""What a user should look at when something fails."""


class ConnectionStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Connection`.

    Attributes:
        connected: Whether frames can be read, and our own heartbeats come back to us within a lease: what was sent has
            been stored and delivered. False until the first connection.
        seconds: How long that has been so.
        reconnects: How often it was connected again.
        last_error: Why it was disconnected last; empty if it never was.
    """

    connected: bool
    seconds: float
    reconnects: int
    last_error: str


class Connection:
    """Tries operations until the network lets us, and emits an event for each change, one after the other.

    It counts as connected while none of the things that were tried has failed since it last worked.

    Args:
        tasks: Where the events are emitted.
        rng: Where jitter comes from.
        emit: Called with `on_connected` and `on_disconnected`, in turn.
        closing: Says whether to stop trying.
    """

    def __init__(
        self, tasks: Tasks, rng: Random, emit: Callable[[str], Awaitable[None]], closing: Callable[[], bool]
    ) -> None:
        self._tasks = tasks
        self._rng = rng
        self._emit = emit
        self._closing = closing
        self._connected: bool | None = None
        self._since = tasks.now()
        self._connections = 0
        self._last_error = ""
        self._faults: dict[str, Outage] = {}
        self._changes: deque[str] = deque()

    @property
    def stands(self) -> bool:
        """Whether we are connected, as far as we know."""
        return bool(self._connected)

    def statistics(self) -> ConnectionStatistics:
        """How it is now."""
        return ConnectionStatistics(
            connected=self.stands,
            seconds=self._tasks.now() - self._since,
            reconnects=max(0, self._connections - 1),
            last_error=self._last_error,
        )

    async def again(self, operation: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Try an operation until the network lets us. Returns its result, or None once the bus is closing.

        Raises:
            AccessDeniedError: The first connection was refused: nothing but a change of settings would help.
        """
        failures = 0
        while True:
            try:
                result = await operation()
            except TransportError as error:
                if self._closing():
                    return None
                if what == CONNECTING and isinstance(error, AccessDeniedError):
                    raise
                failures += 1
                self.failed(what, error)
                await anyio.sleep(BACKOFF.delay(failures, self._rng))
            else:
                self.works(what)
                return result

    def failed(self, what: str, error: TransportError) -> None:
        """Note that something does not work: until it does, we are disconnected."""
        now = self._tasks.now()
        self._last_error = str(error)
        if what not in self._faults:
            self._faults[what] = Outage(what, ADVICE.get(what, ""), now)
        self._faults[what].failed(error, now)
        self._become(connected=False)

    def works(self, what: str) -> None:
        """Note that something works, again or still."""
        if what in self._faults:
            self._faults.pop(what).over(self._tasks.now())
        if not self._connected and not self._faults:
            self._connections += 1
            self._become(connected=True)

    def _become(self, *, connected: bool) -> None:
        if self._connected is connected:
            return
        self._connected = connected
        self._since = self._tasks.now()
        self._changes.append("on_connected" if connected else "on_disconnected")
        if len(self._changes) == 1:
            self._tasks.start(self._emit_changes, None)

    async def _emit_changes(self, _argument: None) -> None:
        while self._changes:
            await self._emit(self._changes[0])
            self._changes.popleft()
