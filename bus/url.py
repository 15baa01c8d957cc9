"""Bus URLs: the one thing to change between one process and a fleet."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from bus.bus import WorkerBus
from bus.local import AsyncQueueBus

ENVIRONMENT = "ACTORBUS_BUS"


def open_bus(url: str | None = None) -> WorkerBus:
    """Make the bus a URL stands for.

    Args:
        url: `memory://` for a bus of this process alone; `memory://name` for one that meets every other bus of that
            name in this process, with the queues, leases and redelivery of a network. None takes the environment
            variable `ACTORBUS_BUS`, and without that `memory://`. `redis://host:6379/0` and `rediss://` are a Redis or
            Valkey server; see `RedisBus` for its options.

    Raises:
        ValueError: Nothing is known under that scheme.
    """
    url = url or os.environ.get(ENVIRONMENT) or "memory://"
    parts = urlsplit(url)
    if parts.scheme == "memory":
        if not parts.netloc:
            return AsyncQueueBus()
        from bus.network import NetworkBus  # noqa: PLC0415 - only who asks for a network loads it
        from bus.transports.memory import MemoryTransport, broker  # noqa: PLC0415

        return NetworkBus(MemoryTransport(broker(parts.netloc)))
    if parts.scheme in {"redis", "rediss"}:
        from bus.redis_bus import RedisBus  # noqa: PLC0415 - only who asks for it loads the client library

        return RedisBus(url)
    raise ValueError(f"no bus for the scheme {parts.scheme!r}: use memory://, memory://name, redis:// or rediss://")
