"""Waiting longer and longer: the one backoff of the project."""

from __future__ import annotations

import math
from random import Random

import msgspec


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential waiting with jitter.

    Attributes:
        first: Seconds before the first new attempt.
        factor: How much longer each further one waits.
        limit: Seconds no wait exceeds.
        jitter: Share of a wait that is drawn at random, 0 to 1, so that many do not come back at once.
    """

    first: float = 0.1
    factor: float = 2.0
    limit: float = 30.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot be waited for."""
        for field in ("first", "limit"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"Backoff.{field} must be seconds, 0 or more; got {getattr(self, field)!r}")
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"Backoff.factor must be 1 or more; got {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Backoff.jitter must be between 0 and 1; got {self.jitter!r}")

    def delay(self, attempt: int, rng: Random) -> float:
        """Seconds to wait before new attempt number `attempt`, counted from 1."""
        exponent = min(attempt - 1, 64)
        wait = min(self.first * self.factor**exponent, self.limit)
        return wait * (1 - self.jitter * rng.random())
