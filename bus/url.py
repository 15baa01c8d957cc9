"""Bus URLs: the one thing to change between one process and a fleet."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from bus.bus import WorkerBus
from bus.local import AsyncQueueBus

ENVIRONMENT = "ACTORBUS_BUS"


def open_bus(url: str | None = None, **options: Any) -> WorkerBus:
    """Make the bus a URL stands for.

    Args:
        url: `memory://` for a bus of this process alone; `memory://name` for one that meets every other bus of that
            name in this process, with the queues, leases and redelivery of a network; `redis://host:6379/0` or
            `rediss://...` for a Redis or Valkey server; `nats://host:port` or `tls://host:port` for a NATS server.
            None takes the environment variable `ACTORBUS_BUS`, and without that `memory://`.
        options: Of the bus the URL stands for: `NetworkBus`, `RedisBus`, `NatsBus`. That of one process has none.

    Raises:
        ValueError: Nothing is known under that scheme.
    """
    url = url or os.environ.get(ENVIRONMENT) or "memory://"
    parts = urlsplit(url)
    if parts.scheme == "memory":
        if not parts.netloc:
            return AsyncQueueBus(**options)
        from bus.network import NetworkBus  # noqa: PLC0415 - only who asks for a network loads it
        from bus.transports.memory import MemoryTransport, broker  # noqa: PLC0415

        return NetworkBus(MemoryTransport(broker(parts.netloc)), **options)
    if parts.scheme in {"redis", "rediss"}:
        from bus.redis_bus import RedisBus  # noqa: PLC0415 - only who asks for it loads the client library

        return RedisBus(url, **options)
    if parts.scheme in {"nats", "tls"}:
        from bus.nats_bus import NatsBus  # noqa: PLC0415

        return NatsBus(url, **options)
    raise ValueError(
        f"no bus for the scheme {parts.scheme!r}: use memory://, memory://name, redis://host:port/db, rediss://, "
        "nats://host:port or tls://host:port"
    )
