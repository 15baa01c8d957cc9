"""What was given up on, on a Redis server: listed, thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from re import fullmatch

from bus.transport import DeadFrame
from bus.transports.redis_claims import COUNT
from bus.transports.redis_link import RedisLink

_CLAIM = r"(\d+) (\S+) (\w+) (\d{1,19})"
_PLACE = r"\d{1,19}-\d{1,19}"


class RedisDeadFrames:
    """The dead letters of a namespace; about 10,000 are kept, then the oldest is forgotten."""

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._link = link
        self._key = prefix + "dead"

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` letters, the oldest first; only such as follow the place `after`.

        Raises:
            TransportError: The server did not answer.
        """
        if after and not fullmatch(_PLACE, after):
            raise ValueError(f"{after!r} is not where a dead letter is kept")
        read = ("XRANGE", self._key, f"({after}" if after else "-", "+", "COUNT", most)
        (found,) = await self._link.checked([read])
        return [_frame(entry, fields) for entry, fields in found]

    async def discard(self, place: str) -> bool:
        """Throw a letter away. False if it was not there.

        Raises:
            TransportError: The server did not answer; it may be gone or not.
        """
        if not fullmatch(_PLACE, place):
            return False
        (gone,) = await self._link.checked([("XDEL", self._key, place)])
        return bool(gone)


def _frame(entry: bytes, fields: Sequence[bytes]) -> DeadFrame:
    told = dict(zip(fields[::2], fields[1::2], strict=True))
    place = entry.decode()
    history = []
    for line in told.get(b"h", b"").decode(errors="replace").splitlines():
        claim = fullmatch(_CLAIM, line)
        if claim is None:  # not written by the scripts
            history.append(line)
            continue
        attempt, owner, how, when = claim.groups()
        history.append(f"attempt {attempt} on {owner}: {_WORDS.get(how, how)} at {int(when) / 1000:.3f}")
    died_at = int(place.partition("-")[0]) / 1000
    attempts = told.get(b"a", b"")
    return DeadFrame(
        place,
        told.get(b"q", b"").decode(errors="replace"),
        told.get(b"b", b""),
        int(attempts) if fullmatch(COUNT, attempts) else 0,
        died_at,
        history,
    )


_WORDS = {"nak": "given back", "term": "given up", "expired": "lease ended"}
