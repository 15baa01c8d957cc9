"""The link to a Redis server: commands go out together, replies come back in order, or the link is made anew.

For asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from bus.errors import AccessDeniedError, TransportError
from bus.log import text_of
from bus.redis.client import Command, MakeConnection, RedisProtocol, connect

PATIENCE = 5.0
"""Seconds for the replies to one exchange, connecting included: a link on which nothing flows is known by then."""


class RedisLink:
    """A connection made when it is needed. Exchanges keep their order; at the first doubt it is dropped and made anew.

    Args:
        make: Makes a connection that is not connected yet.
        where: The address of the server, without secrets.
        scripts: Lua scripts to load whenever it connects.
    """

    def __init__(self, make: MakeConnection, where: str, scripts: Sequence[str] = ()) -> None:
        self._connection = make()
        self.where = where
        self._scripts = scripts
        self._connecting = asyncio.Lock()
        self._protocol: RedisProtocol | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether it is, as far as we know."""
        return self._protocol is not None and not self._protocol.lost

    @property
    def closed(self) -> bool:
        """Whether it was dropped for good."""
        return self._closed

    async def exchange(self, commands: Sequence[Command], *, patience: float = PATIENCE) -> list[Any]:
        """Send `commands` in one write and wait for all replies; an error reply stands in its place as a ResponseError.

        Raises:
            TransportError: No connection, or not all replies within `patience` seconds. Any of the commands may have
                been executed.
        """
        if not commands:
            return []
        if self._protocol is None or self._protocol.lost:
            await self._connect(patience)
        protocol = self._protocol
        assert protocol is not None
        # A timer of the loop: a scope of anyio would cost as much as the rest of an exchange.
        timer = asyncio.get_running_loop().call_later(patience, protocol.fail, _silent(patience))
        try:
            return await protocol.ask(commands)
        except BaseException:
            # Replies may still be on their way: nobody could tell them from those to the next commands.
            await self.drop()
            raise
        finally:
            timer.cancel()

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

    async def send_once(self, commands: Sequence[Command]) -> None:
        """Send `commands` once, whatever becomes of them.

        Raises:
            TransportError: No connection could be made; nothing was sent.
        """
        if not self.connected:
            await self.exchange([("TIME",)])
        with suppress(TransportError):  # any of them may have been executed: none must be sent again
            await self.exchange(commands)

    async def refused(self, reply: ResponseError) -> None:
        """Give up the link for an error reply: a server that turned into a replica, or forgot our scripts, is left.

        Raises:
            TransportError: Always.
        """
        await self.drop()
        if str(reply).startswith("NOPERM"):
            raise AccessDeniedError(
                f"{self.where} refuses a right that is needed, see docs/redis-acl.conf: {reply}"
            ) from reply
        if str(reply).startswith("NOAUTH"):
            raise self._not_let_in(reply) from reply
        raise TransportError(f"{self.where} refused: {reply}") from reply

    def _not_let_in(self, error: RedisError) -> AccessDeniedError:
        advice = "Check user and password in the URL: redis://user:password@host:port/db"
        return AccessDeniedError(f"{self.where} does not let us in: {error} {advice}")

    async def close(self) -> None:
        """Drop the connection for good."""
        self._closed = True
        await self.drop()

    async def drop(self) -> None:
        """Drop the connection; an exchange that waits fails, the next one connects again."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.fail("was given up: another exchange failed")
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
            raise TransportError(f"{self.where} {_silent(patience)}") from error
        except (AuthenticationError, AuthorizationError) as error:
            await self.drop()
            raise self._not_let_in(error) from error
        except ResponseError as error:
            await self.refused(error)
        except TransportError:
            await self.drop()
            raise
        except Exception as error:  # the library passes on what it stumbles over in a greeting that it cannot read
            await self.drop()
            raise TransportError(f"{self.where}: {str(error) or text_of(error)}") from error
        except BaseException:
            await self.drop()
            raise

    async def _connect_anew(self, patience: float) -> None:
        if self._closed:
            raise TransportError(f"the link to {self.where} is closed")
        await self.drop()
        self._protocol = await connect(self._connection, self.where)
        for reply in await self.exchange([("SCRIPT", "LOAD", script) for script in self._scripts], patience=patience):
            if isinstance(reply, ResponseError):
                raise reply

    def __repr__(self) -> str:
        return f"<RedisLink to {self.where}: {'connected' if self.connected else 'not connected'}>"


def _silent(patience: float) -> str:
    return f"has not answered for {patience:g} seconds"
