"""What was given up on, on a Redis server: listed, put back, thrown away."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bus.transports.redis_link import RedisLink
from bus.transports.redis_scripts import GROUP, REQUEUE, call


class RedisDeadLetter(msgspec.Struct, frozen=True):
    """A queued frame that was given up on.

    Attributes:
        entry: Where it is kept.
        queue: Name of its queue.
        id: The frame's id.
        body: The bytes.
        attempt: How often it was claimed.
        history: How each claim ended, oldest first: attempt, consumer, how, and when in milliseconds since 1970 by the
            clock of the server.
    """

    entry: bytes
    queue: str
    id: str
    body: bytes
    attempt: int
    history: tuple[tuple[int, str, str, int], ...]


class RedisDeadLetters:
    """The dead letters of a namespace; about 10,000 are kept, then the oldest is forgotten."""

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def oldest(self, count: int = 100, after: RedisDeadLetter | None = None) -> Sequence[RedisDeadLetter]:
        """The oldest letters, at most `count`, or those that follow one.

        Raises:
            TransportError: The server did not answer.
        """
        start = b"(" + after.entry if after is not None else b"-"
        (found,) = await self._link.checked([("XRANGE", self._key, start, "+", "COUNT", count)])
        return [_letter(entry, fields) for entry, fields in found]

    async def requeue(self, letter: RedisDeadLetter) -> bool:
        """Put a letter back into its queue, as if it were sent now. False if it is not there any more.

        Raises:
            TransportError: The server did not answer; it is either there or in its queue.
        """
        stream = f"{self._prefix}queue:{letter.queue}"
        (moved,) = await self._link.checked(
            [call(REQUEUE, [self._key, stream], GROUP, self._prefix, letter.queue, letter.entry)]
        )
        return bool(moved)

    async def discard(self, letter: RedisDeadLetter) -> bool:
        """Throw a letter away. False if it was not there any more.

        Raises:
            TransportError: The server did not answer; it may be gone or not.
        """
        (gone,) = await self._link.checked([("XDEL", self._key, letter.entry)])
        return bool(gone)

    @property
    def _key(self) -> str:
        return self._prefix + "dead"


def _letter(entry: bytes, fields: Sequence[bytes]) -> RedisDeadLetter:
    told = dict(zip(fields[::2], fields[1::2], strict=True))
    lines = [line.split(" ") for line in told[b"h"].decode().splitlines()]
    history = tuple((int(attempt), owner, how, int(when)) for attempt, owner, how, when in lines)
    return RedisDeadLetter(entry, told[b"q"].decode(), told[b"i"].decode(), told[b"b"], int(told[b"a"]), history)
