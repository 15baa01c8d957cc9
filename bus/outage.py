"""What is said of something that fails again and again: not each time, but never nothing either."""

from __future__ import annotations

from bus.events import log

REMIND_AFTER = 10.0
"""Seconds until what fails still is said once more; then twice as many each time, up to `REMIND_EVERY`."""
REMIND_EVERY = 300.0


class Outage:
    """Something that has begun to fail: said at once, when it fails for another kind of reason, and now and then.

    Args:
        what: What fails.
        advice: What to look at; said once.
        now: The time, as of all other calls: seconds of any clock that only goes on.
    """

    def __init__(self, what: str, advice: str, now: float) -> None:
        self.failures = 0
        self._what = what
        self._advice = advice
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
