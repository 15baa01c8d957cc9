"""What a Redis server replies, given to whoever asked, in the order of the questions. For asyncio."""

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


class RedisReplies(asyncio.Protocol):
    """Reads from a connection that somebody else has made: replies to several exchanges may be on their way at once.

    Args:
        label: How errors call the server.
    """

    def __init__(self, label: str) -> None:
        self.lost = False
        self._label = label
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=_NOTHING)
        self._due: deque[_Exchange] = deque()

    def expect(self, count: int) -> asyncio.Future[list[Any]]:
        """The replies to so many commands, which are written next. Fails with a TransportError if they do not come."""
        done = asyncio.get_running_loop().create_future()
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

    def fail(self, reason: str) -> None:
        """Give up: nobody could tell which reply is to which command."""
        self.lost = True
        while self._due:
            done = self._due.popleft().done
            if not done.done():
                done.set_exception(TransportError(f"{self._label} {reason}"))
