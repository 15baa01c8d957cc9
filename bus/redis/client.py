"""The client of redis-py as this project uses it: it reads URLs, connects and logs in, then its socket is ours.

Only this file knows the insides of the library. For asyncio.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from bus.errors import TransportError
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


def connections(url: str | None, client: RedisClient | None) -> tuple[MakeConnection, str]:
    """How to make connections to the server of a URL or of a client, and where that is: without its password.

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


def exposed(url: str | None, client: RedisClient | None) -> str:
    """The host that is reached without encryption beyond this machine; empty if there is none."""
    make, _ = connections(url, client)
    connection: Any = make()
    host = getattr(connection, "host", None)  # a socket of this machine has none
    return "" if host is None or isinstance(connection, SSLConnection) or is_here(host) else host


_NOTHING = object()


class _Exchange:
    """Commands whose replies are on their way."""

    __slots__ = ("count", "done", "replies")

    def __init__(self, count: int, done: asyncio.Future[list[Any]]) -> None:
        self.count = count
        self.done = done
        self.replies: list[Any] = []


class RedisProtocol(asyncio.Protocol):
    """Speaks with the server over a socket that the library has connected. Several exchanges may be under way at once.

    What is written in one turn of the loop goes out together: a write that wakes the server costs more than its bytes.

    Args:
        transport: The socket.
        where: The address of the server, without secrets.
    """

    def __init__(self, transport: asyncio.WriteTransport, where: str) -> None:
        self.lost = False
        self._transport = transport
        self._where = where
        self._unsent: list[bytes] = []
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=_NOTHING)
        self._due: deque[_Exchange] = deque()

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Write commands. Returns their replies, or fails with a TransportError if they do not come."""
        loop = asyncio.get_running_loop()
        packed = [hiredis.pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]  # any length
        if not self._unsent:
            loop.call_soon(self._write)
        self._unsent += packed
        done = loop.create_future()
        self._due.append(_Exchange(len(packed), done))
        return done

    def data_received(self, data: bytes) -> None:
        """Give out the replies that are complete."""
        due, gets = self._due, self._reader.gets
        try:
            self._reader.feed(data)
            while due:
                exchange = due[0]
                replies = exchange.replies
                while len(replies) < exchange.count:
                    reply = gets()
                    if reply is _NOTHING:
                        return
                    replies.append(reply)
                due.popleft()
                if not exchange.done.done():
                    exchange.done.set_result(replies)
            if self._reader.has_data():
                self.fail("replies without being asked")
        except Exception as error:  # noqa: BLE001 - no more than that it cannot be read is to know
            self.fail(f"does not speak the protocol of Redis: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all exchanges that are under way."""
        self.fail(f"has closed the connection{f': {error}' if error else ''}")

    def _write(self) -> None:
        if not self.lost:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def fail(self, reason: str) -> None:
        """Give up: nobody could say which reply is to which command."""
        self.lost = True
        while self._due:
            done = self._due.popleft().done
            if not done.done():
                done.set_exception(TransportError(f"{self._where} {reason}"))


async def connect(connection: AbstractConnection, where: str) -> RedisProtocol:
    """Connect and log in by way of the library, and take the socket from it.

    It knows TLS and passwords; but it would wake a task for every line of every reply.
    """
    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py does not say
    assert connection._writer is not None
    transport = connection._writer.transport
    protocol = RedisProtocol(transport, where)
    transport.set_protocol(protocol)
    return protocol
