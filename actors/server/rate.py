"""How often an address may ask. Pure: the time comes from outside."""

from __future__ import annotations

import math
from collections import OrderedDict

MOST_ADDRESSES = 10_000
"""Addresses remembered. Who is forgotten begins anew with a full measure, so this is no way to be refused."""


class RateLimit:
    """A measure for each address, filled at a rate and emptied by requests.

    Args:
        rate: Requests a second.
        burst: How many may come at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def ask(self, address: str, now: float) -> float:
        """Count a request. 0 if it may go on, else the seconds after which it may."""
        left, since = self._left.pop(address, (float(self._burst), now))
        left = min(left + (now - since) * self._rate, self._burst)
        allowed = left >= 1
        self._left[address] = (left - 1 if allowed else left, now)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return 0.0 if allowed else math.ceil((1 - left) / self._rate)
