"""The inbox of a node on a Redis server: a stream whose entries hold one frame or many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bus.errors import DataLostError
from bus.redis.client import Command
from bus.redis.layout import GROUP, Entry, Heartbeat
from bus.transport.transport import Delivery, Lane, Outgoing

PACK = 256
"""Most frames packed into one entry."""
PACK_BYTES = 262_144
"""Bytes after which no further frame is packed into an entry."""

_FIELDS: dict[Lane, str] = {"inbox": "f", "everyone": "e", "direct": "d"}
"""The field that holds a frame tells its lane; an entry with any other field only wakes the reader."""
_LANES = {field.encode(): lane for lane, field in _FIELDS.items()}
_NOTIFICATION = b"q"


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


def parts_of(pack: Sequence[Outgoing]) -> list[str | bytes]:
    """The fields of an entry that holds these frames, names and values by turns."""
    return [part for frame in pack for part in (_FIELDS[frame.lane], frame.body)]


ENOUGH = 32
"""Entries that were read, after which they are deleted together; fewer are within a second."""


class RedisInbox:
    """What has been read of an inbox. It makes the commands that delete it; the transport sends them.

    Args:
        key: The stream.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.notified: list[str] = []
        """Queues of whose next frame this node was notified; for the reader to take out."""
        self._read: list[bytes] = []
        self._leaving = 0
        self._last = (0, 0)
        self._born: bytes | None = None
        self._lost = ""

    def alive(self, heartbeat: Heartbeat) -> None:
        """The server has taken in a heartbeat: it may show that something was lost."""
        before, self._born = self._born, heartbeat.born
        if before not in {None, self._born}:
            self._lost = "the Redis server has lost everything it had accepted"
        elif before is not None and not heartbeat.had_inbox:
            self._lost = "this process was away for so long that its inbox was dropped, with what waited in it"

    def take(self, entries: Iterable[Entry]) -> list[Delivery]:
        """The frames of entries that were read."""
        deliveries: list[Delivery] = []
        for entry in entries:
            self._read.append(entry.id)
            self._last = _place(entry)
            for field, body in entry.fields:
                if field == _NOTIFICATION:
                    self.notified.append(body.decode(errors="replace"))
                elif field in _LANES:
                    deliveries.append(Delivery(_LANES[field], "", body))
        return deliveries

    def recover(self, heartbeat: Heartbeat, entries: Sequence[Entry]) -> list[Delivery]:
        """The frames of entries that were read and not deleted, without those that came before the connection broke."""
        self.alive(heartbeat)
        if self._lost:
            self._last = (0, 0)
        last = self._last
        self._read = [entry.id for entry in entries if _place(entry) <= last]
        self._leaving = 0
        return self.take([entry for entry in entries if _place(entry) > last])

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

    def deleted(self) -> None:
        """Those commands were executed."""
        del self._read[: self._leaving]
        self._leaving = 0


def _place(entry: Entry) -> tuple[int, int]:
    """Where an entry stands in its stream."""
    milliseconds, _, number = entry.id.partition(b"-")
    return int(milliseconds), int(number)
