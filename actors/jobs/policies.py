"""How often to try again, and when to stop: policies as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from actors.jobs.errors import leaves
from bus import Backoff


def _require(policy: object, field: str, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"{type(policy).__name__}.{field} must be {rule}; got {getattr(policy, field)!r}")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often a handler is called again after it raised, within the job's deadline and in the same slot.

    Attributes:
        attempts: Calls in all, 1 or more.
        backoff: The waits between them.
        retry_on: Exception classes worth another call; others end the job at once. Of an exception group all that
            failed in it must be.
    """

    attempts: int = 3
    backoff: Backoff = Backoff()
    retry_on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        """Refuse a policy that would never call the handler."""
        _require(self, "attempts", self.attempts >= 1, "1 or more")

    def covers(self, error: BaseException) -> bool:
        """Whether an exception is worth another call."""
        if isinstance(error, self.retry_on):
            return True
        inner = leaves(error) if isinstance(error, ExceptionGroup) else ()
        return bool(inner) and all(isinstance(leaf, self.retry_on) for leaf in inner)


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor does when a child fails: its `start()`, `run()` or a background task of it raises.

    Attributes:
        restart: Which children are made again: `permanent` ones also when their `run()` returns, `transient` ones when
            they fail, `temporary` ones never. A child that is stopped or removed on purpose is not made again.
        strategy: Whom to start again: `one_for_one` the failed child, `one_for_all` all children of the same
            `supervise` call, `rest_for_one` it and those named after it.
        max_restarts: Failures that are answered by a restart within `period`; one more and the parent fails. A factory
            that raises counts as a failure.
        period: Seconds over which failures are counted.
        backoff: Waits before restarts; grows with the failures counted.
    """

    restart: Literal["permanent", "transient", "temporary"] = "transient"
    strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = "one_for_one"
    max_restarts: int = 3
    period: float = 60.0
    backoff: Backoff = Backoff()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        kinds = ("permanent", "transient", "temporary")
        _require(self, "restart", self.restart in kinds, f"one of {', '.join(kinds)}")
        strategies = ("one_for_one", "one_for_all", "rest_for_one")
        _require(self, "strategy", self.strategy in strategies, f"one of {', '.join(strategies)}")
        _require(self, "max_restarts", self.max_restarts >= 0, "0 or more")
        _require(self, "period", 0 < self.period < math.inf, "seconds, more than 0")

    def affected(self, failed: int, count: int) -> Sequence[int]:
        """Positions of the children to start again when child number `failed` of `count` failed."""
        if self.strategy == "one_for_one":
            return (failed,)
        return range(count) if self.strategy == "one_for_all" else range(failed, count)


class Intensity:
    """Counts failures within a sliding period: the decision to restart or to give up."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._failures: list[float] = []

    def failed(self, now: float) -> int | None:
        """Note a failure. How many there are within the period, or None when that is more than the policy allows."""
        self._failures = [when for when in self._failures if now - when < self._policy.period]
        self._failures.append(now)
        count = len(self._failures)
        return count if count <= self._policy.max_restarts else None

    def exhausted(self, now: float, *, more: int = 0) -> bool:
        """Whether one more failure, beside `more` that are not counted yet, is more than the policy allows."""
        counted = sum(now - when < self._policy.period for when in self._failures)
        return counted + more >= self._policy.max_restarts
