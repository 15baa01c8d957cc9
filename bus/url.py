"""Bus URLs: the one thing to change between one process and a fleet."""

from __future__ import annotations

import os
from random import Random
from typing import Any, Unpack

from bus.local.bus import AsyncQueueBus, WorkerBus
from bus.names import check_name, nearest
from bus.network.bus import NetworkBus, NetworkSettings
from bus.transport.server import redacted


class BusOptions(NetworkSettings, total=False):
    """What a bus that is opened by its URL can be told; see `RedisBus` and `NatsBus`."""

    namespace: str
    ack_wait: float
    consumer_id: str | None
    heartbeat_seconds: float
    reclaim_min_idle: float


ENVIRONMENT = "ACTORBUS_BUS"
SCHEMES = ("memory", "redis", "rediss", "nats", "tls")

_SYNONYMS = {"heartbeat_seconds": "heartbeat", "reclaim_min_idle": "ack_wait"}
_OF_TRANSPORTS = ("namespace", "ack_wait", "consumer_id")


def open_bus(url: str | None = None, *, rng: Random | None = None, **options: Unpack[BusOptions]) -> WorkerBus:
    """Make the bus a URL stands for.

    Args:
        url: `memory://` for a bus of this process alone; `memory://name` for one that meets every other bus of that
            name in this process, with the queues, leases and redelivery of a network; `redis://host:6379/0` or
            `rediss://...` for a Redis or Valkey server; `nats://host:port` or `tls://host:port` for a NATS server.
            None takes the environment variable `ACTORBUS_BUS`, and without that `memory://`.
        rng: Where ids and jitter come from; give a seeded one for reproducible runs.
        options: Those of `RedisBus` and `NatsBus`. `memory://` has no use for them and `memory://name` none for
            `namespace`, `ack_wait` and `consumer_id`, but they are taken, so that the URL alone need be changed.
            `heartbeat_seconds` is another name of `heartbeat`, `reclaim_min_idle` (in seconds) of `ack_wait`.

    Raises:
        ValueError: Nothing is known under that scheme, or an option is out of its range.
        TypeError: No bus has an option of that name.
    """
    if not url and os.environ.get(ENVIRONMENT):
        try:
            return open_bus(os.environ[ENVIRONMENT], rng=rng, **options)
        except ValueError as error:
            error.add_note(f"The URL of the bus comes from the environment variable {ENVIRONMENT}.")
            raise
    url = url or "memory://"
    scheme, _, place = url.partition("://")
    scheme = scheme.lower()
    given: dict[str, Any] = {_SYNONYMS.get(name, name): value for name, value in options.items()}
    if given:
        _check(given)
    if rng is not None:
        given["rng"] = rng
    if scheme == "memory":
        if not place:
            return AsyncQueueBus()
        from bus.memory.transport import MemoryTransport, broker  # noqa: PLC0415 - only who uses it loads it

        general = {name: value for name, value in given.items() if name not in _OF_TRANSPORTS}
        return NetworkBus(MemoryTransport(broker(check_name("memory://", place))), **general)
    if scheme in {"redis", "rediss"}:
        from bus.redis.bus import RedisBus  # noqa: PLC0415 - only who asks for it loads the client library

        return RedisBus(url, **given)
    if scheme in {"nats", "tls"}:
        from bus.nats.bus import NatsBus  # noqa: PLC0415

        return NatsBus(url, **given)
    guess = nearest(scheme.partition(":")[0], SCHEMES, 1)
    raise ValueError(
        f"no bus for the scheme {redacted(scheme)!r}: {f'did you mean {guess[0]}://? There are' if guess else 'use'} "
        "memory://, memory://name, redis://host:port/db, rediss://, nats://host:port or tls://host:port"
    )


def _check(options: dict[str, Any]) -> None:
    known = BusOptions.__annotations__.keys() - _SYNONYMS.keys()
    for name in options:
        if name not in known:
            raise TypeError(f"no bus has the option {name!r}: there are {', '.join(sorted((*known, *_SYNONYMS)))}")
