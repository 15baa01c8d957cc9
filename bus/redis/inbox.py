"""The inbox of a node on a Redis server: a stream whose entries hold one frame or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bus.errors import DataLostError
from bus.redis.client import Command
from bus.redis.layout import GROUP
from bus.transport.transport import Delivery, Lane, Outgoing

PACK = 256
"""Most frames packed into one entry."""
ENOUGH = 32
"""Entries that were read, after which they are deleted together; fewer are within a second."""
PACK_BYTES = 262_144
"""Bytes after which no further frame is packed into an entry."""

ANEW = b" anew"
"""How the server ends the word for when what it keeps began, if there was no inbox."""

FIELDS: dict[Lane, str] = {"inbox": "f", "everyone": "e", "direct": "d"}
"""The field that holds a frame tells its lane; an entry with any other field only wakes the reader."""
_LANES = {field.encode(): lane for lane, field in FIELDS.items()}


class RedisInbox:
    """What has been read of an inbox.

    Args:
        key: The stream.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.rung: list[str] = []
        """Queues that have a frame, as we wanted to be told; for the reader to take out."""
        self._read: list[bytes] = []
        self._leaving = 0
        self._last = (0, 0)
        self._birth: bytes | None = None
        self._lost = ""

    def born(self, birth: bytes) -> None:
        """The server says when what it keeps began, and whether it had to make the inbox anew."""
        before, self._birth = self._birth, birth.removesuffix(ANEW)
        if before not in {None, self._birth}:
            self._lost = "the Redis server has lost everything it had accepted"
        elif before is not None and birth.endswith(ANEW):
            self._lost = "this process was away for so long that its inbox was dropped, with what waited in it"

    def take(self, entries: Iterable[tuple[bytes, Sequence[bytes] | None]]) -> list[Delivery]:
        """The frames of entries that were read."""
        deliveries: list[Delivery] = []
        for entry, fields in entries:
            self._read.append(entry)
            self._last = _place(entry)
            if fields is not None:
                pairs = zip(fields[::2], fields[1::2], strict=True)
                for field, body in pairs:
                    if field == b"q":
                        self.rung.append(body.decode(errors="replace"))
                    elif field in _LANES:
                        deliveries.append(Delivery(_LANES[field], "", body))
        return deliveries

    def recover(self, birth: bytes, entries: Sequence[tuple[bytes, Sequence[bytes] | None]]) -> list[Delivery]:
        """The frames of entries that were read and not deleted, without those that came before the connection broke."""
        self.born(birth)
        if self._lost:
            self._last = (0, 0)
        last = self._last
        self._read = [entry for entry, _ in entries if _place(entry) <= last]
        self._leaving = 0
        return self.take([entry for entry in entries if _place(entry[0]) > last])

    def delete(self, *, all_of_it: bool) -> list[Command]:
        """The commands that delete what was read, if there is enough of it to be worth them.

        Raises:
            DataLostError: Everything is deleted already, also what was not read.
        """
        if self._lost:
            lost, self._lost = self._lost, ""
            raise DataLostError(lost)
        if len(self._read) < (1 if all_of_it else ENOUGH):
            return []
        self._leaving = len(self._read)
        return [("XACK", self.key, GROUP, *self._read), ("XDEL", self.key, *self._read)]

    def deleted(self, replies: Iterable[object]) -> None:
        """They were executed; some of the replies may say when what the server keeps began."""
        del self._read[: self._leaving]
        self._leaving = 0
        for reply in replies:
            if isinstance(reply, bytes):
                self.born(reply)


def direct(frames: Sequence[Outgoing], inbox_of: Callable[[str], str]) -> Iterable[Command]:
    """The commands that pass on frames of the lane `direct`, to inboxes that exist."""
    batches: dict[str, list[Outgoing]] = {}
    for frame in frames:
        batches.setdefault(frame.to, []).append(frame)
    for to, batch in batches.items():
        for pack in packs(batch):
            fields = [part for frame in pack for part in (FIELDS["direct"], frame.body)]
            yield ("XADD", inbox_of(to), "NOMKSTREAM", "*", *fields)


def packs(frames: Sequence[Outgoing]) -> Iterable[list[Outgoing]]:
    """Frames in their order, as many together as one entry or one call takes."""
    pack: list[Outgoing] = []
    size = 0
    for frame in frames:
        if pack and (len(pack) == PACK or size + len(frame.body) > PACK_BYTES):
            yield pack
            pack, size = [], 0
        pack.append(frame)
        size += len(frame.body)
    if pack:
        yield pack


def _place(entry: bytes) -> tuple[int, int]:
    """Where an entry stands in its stream."""
    time, _, number = entry.partition(b"-")
    return int(time), int(number)
