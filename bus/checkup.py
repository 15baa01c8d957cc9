"""A look at a broker: whether it is there, keeps what it accepts, and lets us do what a bus does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from bus.names import check_name

FAR = 5.0
"""Seconds that two clocks may differ before it is worth a warning: nothing depends on them but what people read."""


class Finding(msgspec.Struct, frozen=True):
    """What one check found.

    Attributes:
        check: What was looked at.
        state: `ok`, `warning` if jobs can be lost or stolen, `failed` if none can be done.
        text: What was found, and the way out if it is not ok.
    """

    check: str
    state: Literal["ok", "warning", "failed"]
    text: str


async def examine(url: str, *, namespace: str = "actorbus", patience: float = 5.0) -> AsyncIterator[Finding]:
    """Look at the broker of a URL; what is written for that is deleted again.

    Args:
        url: As `open_bus` takes it.
        namespace: That of the bus.
        patience: Seconds for the broker to answer.

    Raises:
        ValueError: There is no broker under such a URL.
    """
    check_name("namespace", namespace)
    match urlsplit(url).scheme:
        case "redis" | "rediss":
            from bus.transports.redis_checkup import examine_redis  # noqa: PLC0415 - only who asks for it loads it

            findings = examine_redis(url, namespace, patience)
        case "nats" | "tls":
            from bus.transports.nats_checkup import examine_nats  # noqa: PLC0415

            findings = examine_nats(url, namespace, patience)
        case scheme:
            raise ValueError(f"there is no broker under {scheme}://: use redis://, rediss://, nats:// or tls://")
    async for finding in findings:
        yield finding


def of_clock(difference: float, uncertain: float) -> Finding:
    """What is said of a clock that is `difference` seconds ahead of ours, give or take `uncertain`."""
    state: Literal["ok", "warning"] = "warning" if abs(difference) - uncertain > FAR else "ok"
    advice = "; set both by NTP: times that are shown will be wrong, nothing else" if state == "warning" else ""
    return Finding("clock", state, f"{difference:+.3f} s from ours, within {uncertain:.3f} s{advice}")
