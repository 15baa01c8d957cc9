"""One connection to a Redis server: commands go out together, replies come back in order, or the link is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import anyio
import hiredis
from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from bus.errors import AccessDeniedError, PartlySentError, TransportError
from bus.server_url import check_server_url, is_here, redacted
from bus.transports.redis_replies import RedisReplies

RedisClient: TypeAlias = Redis
Command: TypeAlias = Sequence[str | bytes | int]
MakeConnection: TypeAlias = Callable[[], AbstractConnection]

PATIENCE = 5.0
"""Seconds for the replies to one exchange, connecting included: a link on which nothing flows is known by then."""

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


class RedisLink:
    """A connection made when it is needed. Exchanges keep their order; at the first doubt it is dropped and made anew.

    Args:
        make: Makes a connection that is not connected yet.
        scripts: Lua scripts to load whenever it connects.
        label: How errors call the server.
    """

    def __init__(self, make: MakeConnection, scripts: Sequence[str], label: str) -> None:
        self._connection = make()
        self._scripts = scripts
        self._label = label
        self._connecting = asyncio.Lock()
        self._write: Callable[[bytes], None] | None = None
        self._replies = RedisReplies(label)
        self._shut = False

    @property
    def connected(self) -> bool:
        """Whether it is, as far as we know."""
        return self._write is not None and not self._replies.lost

    @property
    def is_shut(self) -> bool:
        """Whether it was dropped for good."""
        return self._shut

    async def exchange(self, commands: Sequence[Command], *, patience: float = PATIENCE) -> list[Any]:
        """Send `commands` in one write and wait for all replies; an error reply stands in its place as a ResponseError.

        Raises:
            TransportError: No connection, or not all replies within `patience` seconds. Any of the commands may have
                been executed.
        """
        if not commands:
            return []
        if self._write is None or self._replies.lost:
            await self._connect(patience)
        assert self._write is not None
        replies = self._replies.expect(len(commands))
        # A timer of the loop: a scope of anyio would cost as much as the rest of an exchange.
        timer = asyncio.get_running_loop().call_later(patience, self._overdue, self._replies, patience)
        try:
            self._write(_packed(commands))
            return await replies
        except BaseException:
            # Replies may still be on their way: nobody could tell them from those to the next commands.
            await self.drop()
            raise
        finally:
            timer.cancel()

    async def tell(self, commands: Sequence[Command]) -> None:
        """Send `commands` once, whatever becomes of them.

        Raises:
            TransportError: No connection could be made; nothing was sent.
        """
        if not self.connected:
            await self.exchange([("TIME",)])
        with suppress(TransportError):  # any of them may have been executed: none must be sent again
            await self.exchange(commands)

    async def checked(self, commands: Sequence[Command], *, patience: float = PATIENCE) -> list[Any]:
        """Like `exchange`, and an error reply is an error.

        Raises:
            TransportError: As `exchange`; or the server refused a command, those before and after it not excluded.
        """
        replies = await self.exchange(commands, patience=patience)
        for reply in replies:
            if isinstance(reply, ResponseError):
                await self.refused(reply)
        return replies

    async def store(self, commands: Sequence[tuple[Command, list[str]]], patience: float) -> None:
        """Like `checked`, for commands that store frames; the ids are theirs.

        Raises:
            TransportError: As `checked`.
            PartlySentError: Only the keys of some commands were at fault.
        """
        reason = ""
        missing: list[str] = []
        replies = await self.exchange([command for command, _ in commands], patience=patience)
        for reply, (_, ids) in zip(replies, commands, strict=True):
            if isinstance(reply, ResponseError):
                if not str(reply).startswith(("NOPERM", "WRONGTYPE")):
                    await self.refused(reply)
                reason = f"{self._label} refused: {reply}"
                missing += ids
        if missing:
            raise PartlySentError(reason, tuple(missing))

    async def refused(self, reply: ResponseError) -> None:
        """Give up the link for an error reply: a server that turned into a replica, or forgot our scripts, is left.

        Raises:
            TransportError: Always.
        """
        await self.drop()
        if str(reply).startswith("NOPERM"):
            raise AccessDeniedError(
                f"{self._label} refuses a right that is needed, see docs/redis-acl.conf: {reply}"
            ) from reply
        if str(reply).startswith("NOAUTH"):
            raise self._not_let_in(reply) from reply
        raise TransportError(f"{self._label} refused: {reply}") from reply

    def _not_let_in(self, error: RedisError) -> AccessDeniedError:
        advice = "Check user and password in the URL: redis://user:password@host:port/db"
        return AccessDeniedError(f"{self._label} does not let us in: {error} {advice}")

    async def shut(self) -> None:
        """Drop the connection for good."""
        self._shut = True
        await self.drop()

    async def drop(self) -> None:
        """Drop the connection; an exchange that waits fails, the next one connects again."""
        self._write = None
        self._replies.fail("was given up: another exchange failed")
        with anyio.CancelScope(shield=True):
            await self._connection.disconnect(nowait=True)

    async def _connect(self, patience: float) -> None:
        try:
            with anyio.fail_after(patience):
                async with self._connecting:
                    if not self.connected:
                        await self._connect_anew(patience)
        except TimeoutError as error:
            await self.drop()
            raise TransportError(f"{self._label} {_silent(patience)}") from error
        except (AuthenticationError, AuthorizationError) as error:
            await self.drop()
            raise self._not_let_in(error) from error
        except ResponseError as error:
            await self.refused(error)
        except (RedisError, OSError) as error:
            await self.drop()
            raise TransportError(f"{self._label}: {error}") from error
        except BaseException:
            await self.drop()
            raise

    async def _connect_anew(self, patience: float) -> None:
        if self._shut:
            raise TransportError(f"the link to {self._label} is shut")
        await self.drop()
        connection = self._connection
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py does not say
        assert connection._writer is not None
        # The library logs in and knows TLS; from here on it would wake a task for every line of every reply.
        transport = connection._writer.transport
        self._replies = RedisReplies(self._label)
        transport.set_protocol(self._replies)
        self._write = transport.write
        for reply in await self.exchange([("SCRIPT", "LOAD", script) for script in self._scripts], patience=patience):
            if isinstance(reply, ResponseError):
                raise reply

    def _overdue(self, replies: RedisReplies, patience: float) -> None:
        replies.fail(_silent(patience))

    def __repr__(self) -> str:
        return f"<RedisLink to {self._label}: {'connected' if self.connected else 'not connected'}>"


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
