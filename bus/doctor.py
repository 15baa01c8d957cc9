"""A look at a broker: whether it is there, keeps what it accepts, and lets us do what a bus does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from bus.names import check_name
from bus.transport.server import Finding


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
            from bus.redis.admin import examine_redis  # noqa: PLC0415 - only who asks for it loads it

            findings = examine_redis(url, namespace, patience)
        case "nats" | "tls":
            from bus.nats.admin import examine_nats  # noqa: PLC0415

            findings = examine_nats(url, namespace, patience)
        case scheme:
            raise ValueError(f"there is no broker under {scheme}://: use redis://, rediss://, nats:// or tls://")
    async for finding in findings:
        yield finding
