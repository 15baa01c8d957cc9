"""One connection to a Redis server: commands go out together, replies come back in order, or the link is given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bus.transport.server import check_server_url, is_here, redacted

RedisClient: TypeAlias = Redis
Command: TypeAlias = Sequence[str | bytes | int]
MakeConnection: TypeAlias = Callable[[], AbstractConnection]

_OURS: dict[str, Any] = {
    # A client that sends again by itself stores twice, and one with time-outs of its own swallows cancellations
    # (`asyncio.wait_for` on Python 3.11): deadlines and retries are ours.
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "health_check_interval": 0,
    "decode_responses": False,
    "protocol": 2,
    "driver_info": None,  # CLIENT SETINFO is two commands that a restricted user may lack
}
_OF_CLIENTS = ("retry_", "maint", "orig_", "oss_", "himport", "event_dispatcher", "max_connections", "timeout")
"""How options start that concern a client or its pool, or ask for retries; a connection of ours has none."""


def _silent(patience: float) -> str:
    return f"has not answered for {patience:g} seconds"


def _packed(commands: Sequence[Command]) -> bytes:
    return b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]  # any length


def connections(url: str | None, client: RedisClient | None) -> tuple[MakeConnection, str]:
    """How to make connections to the server of a URL or of a client, and what to call it: without its password.

    Raises:
        ValueError: Both or none was given, or the URL has an option that a connection does not know.
    """
    if (url is None) == (client is None):
        raise ValueError("give either the url of a Redis server or a client of redis.asyncio")
    if client is not None:
        options = dict(client.connection_pool.connection_kwargs)
        kind = client.connection_pool.connection_class
    else:
        options = _options(url or "")
        kind = options.pop("connection_class", Connection)
    settings = {key: value for key, value in options.items() if not key.startswith(_OF_CLIENTS)} | _OURS

    def make() -> AbstractConnection:
        connection: AbstractConnection = kind(**settings)
        return connection

    try:
        make()
    except TypeError as error:
        raise ValueError(f"an option of the Redis URL or client is not known: {error}") from None
    place = settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
    return make, f"redis at {place}"


def _options(url: str) -> dict[str, Any]:
    check_server_url(url, ("redis", "rediss", "unix"))
    try:
        options = dict(parse_url(url))
    except ValueError as error:
        problem = str(error)
    else:
        if options.get("path") or "db" in options or not urlsplit(url).path.strip("/"):
            return options
        problem = "what follows the host is the number of its database, redis://host:port/0"
    raise ValueError(f"{redacted(url)!r} is not the URL of a Redis server: {problem}")


def exposed(make: MakeConnection) -> str:
    """The host that is reached without encryption beyond this machine; empty if there is none."""
    connection: Any = make()
    host = getattr(connection, "host", None)  # a socket of this machine has none
    return "" if host is None or isinstance(connection, SSLConnection) or is_here(host) else host
