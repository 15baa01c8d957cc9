"""One connection to a Redis server: commands go out together, replies come back in order, or the link is given up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import hiredis
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from bus.errors import AccessDeniedError, PartlySentError, TransportError
from bus.redis.client import Command, MakeConnection, _packed, _silent

_NOTHING = object()


class _Exchange:
    """Commands whose replies are on their way."""

    __slots__ = ("count", "done", "replies")

    def __init__(self, count: int, done: asyncio.Future[list[Any]]) -> None:
        self.count = count
        self.done = done
        self.replies: list[Any] = []


class RedisWire(asyncio.Protocol):
    """Takes over a connection that somebody else has made. Replies to several exchanges may be on their way at once.

    What is written in one turn of the loop goes out together: a write that wakes the server costs more than its bytes.

    Args:
        transport: The connection.
        label: How errors call the server.
    """

    def __init__(self, transport: asyncio.WriteTransport, label: str) -> None:
        self.lost = False
        self._transport = transport
        self._label = label
        self._unsent: list[bytes] = []
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=_NOTHING)
        self._due: deque[_Exchange] = deque()

    def ask(self, commands: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Write so many commands. Returns their replies, or fails with a TransportError if they do not come."""
        loop = asyncio.get_running_loop()
        if not self._unsent:
            loop.call_soon(self._write)
        self._unsent.append(commands)
        done = loop.create_future()
        self._due.append(_Exchange(count, done))
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
        except hiredis.HiredisError as error:
            self.fail(f"does not speak the protocol of Redis: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self.fail(f"has closed the connection{f': {error}' if error else ''}")

    def _write(self) -> None:
        if not self.lost:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def fail(self, reason: str) -> None:
        """Give up: nobody could tell which reply is to which command."""
        self.lost = True
        while self._due:
            done = self._due.popleft().done
            if not done.done():
                done.set_exception(TransportError(f"{self._label} {reason}"))


PATIENCE = 5.0
"""Seconds for the replies to one exchange, connecting included: a link on which nothing flows is known by then."""


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
        self._wire: RedisWire | None = None
        self._shut = False

    @property
    def connected(self) -> bool:
        """Whether it is, as far as we know."""
        return self._wire is not None and not self._wire.lost

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
        if self._wire is None or self._wire.lost:
            await self._connect(patience)
        wire = self._wire
        assert wire is not None
        # A timer of the loop: a scope of anyio would cost as much as the rest of an exchange.
        timer = asyncio.get_running_loop().call_later(patience, wire.fail, _silent(patience))
        try:
            return await wire.ask(_packed(commands), len(commands))
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
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.fail("was given up: another exchange failed")
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
        self._wire = RedisWire(transport, self._label)
        transport.set_protocol(self._wire)
        for reply in await self.exchange([("SCRIPT", "LOAD", script) for script in self._scripts], patience=patience):
            if isinstance(reply, ResponseError):
                raise reply

    def __repr__(self) -> str:
        return f"<RedisLink to {self._label}: {'connected' if self.connected else 'not connected'}>"
