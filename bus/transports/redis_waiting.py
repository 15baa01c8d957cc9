"""What waits in a queue on a Redis server: looked at, taken out."""

from __future__ import annotations

from collections.abc import Sequence
from re import fullmatch

from bus.transport import WaitingFrame
from bus.transports.redis_claims import RedisClaims
from bus.transports.redis_link import RedisLink
from bus.transports.redis_scripts import GROUP, LEAVE, call

_PLACE = r"[01] \d{1,19}-\d{1,19}"
"""Which of the two streams of the queue, and the entry."""


class RedisWaitingFrames:
    """The frames of one queue, claimed ones among them."""

    def __init__(self, link: RedisLink, claims: RedisClaims, queue: str) -> None:
        self._link = link
        self._streams = claims.streams([queue])

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        """At most `most` frames, in the order in which they are read; only such as follow the place `after`.

        Raises:
            TransportError: The server did not answer, or refused.
        """
        if after and not fullmatch(_PLACE, after):
            raise ValueError(f"{after!r} is not where a frame waits")
        first, _, last = after.partition(" ")
        frames: list[WaitingFrame] = []
        for number in range(int(first or 0), len(self._streams)):
            start = f"({last}" if after and number == int(first) else "-"
            (found,) = await self._link.checked([("XRANGE", self._streams[number], start, "+", "COUNT", most)])
            for entry, fields in found:
                told = dict(zip(fields[::2], fields[1::2], strict=True))
                frames.append(WaitingFrame(f"{number} {entry.decode()}", told.get(b"b", b"")))
        return frames[:most]

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out, also claimed ones; the queue goes with the last if nobody serves it.

        Raises:
            TransportError: The server did not answer, or refused; they may be gone or not.
        """
        gone: dict[str, list[str]] = {}
        for place in places:
            number, _, entry = place.partition(" ")
            gone.setdefault(self._streams[int(number)], []).append(entry)
        deletions = [("XDEL", stream, *entries) for stream, entries in gone.items()]
        await self._link.checked([*deletions, call(LEAVE, self._streams, GROUP, "")])
