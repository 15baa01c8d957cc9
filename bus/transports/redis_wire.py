"""One life of a connection to a Redis server: bytes out, replies in, in the order of the commands. For asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from bus.errors import TransportError

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
