"""Chunks of one stream that wait for the network behind each other: they share a frame, so a header and a signature."""

from __future__ import annotations

from bus.framer import Framer
from bus.messages import MOST_CHUNKS, BusJobStreamChunksMessage, BusJobStreamDataMessage
from bus.packing import encode_packed, pack
from bus.transport import Outgoing

MOST_BYTES = 65_536
"""Bytes after which no further chunk joins a frame."""

_OVERHEAD = 64
"""Bytes by which a frame of several chunks is larger, at most, than that of the first alone and the others."""
_PREFIX = 5
"""Bytes of the length of a chunk, at most."""


class Chunks:
    """A frame that waits, and that the chunks which follow may join until it is sent for the first time.

    Each chunk is encoded when it joins: what cannot travel is its sender's error, and spoils no other.

    Args:
        first: The first chunk.
        frame: Its frame, which goes out if no other joins.
        framer: Makes the frame of several.
        origin: Address of the runner that sends it.
    """

    __slots__ = ("_bodies", "_first", "_frame", "_framer", "_origin", "_size")

    def __init__(self, first: BusJobStreamDataMessage, frame: Outgoing, framer: Framer, origin: str) -> None:
        self._first = first
        self._frame = frame
        self._framer = framer
        self._origin = origin
        self._bodies = [encode_packed(pack(first.data))]
        self._size = len(frame.body) + len(self._bodies[0]) + _OVERHEAD

    @property
    def id(self) -> str:
        """Id of the frame."""
        return self._frame.id

    def join(self, chunk: BusJobStreamDataMessage, to: str) -> bool:
        """Take in the chunk that comes next in the same job. False, and nothing done, if it is another's or too large.

        Raises:
            EncodeError: Its value cannot travel.
        """
        first = self._first
        if (
            chunk.sequence != first.sequence + len(self._bodies)
            or chunk.job_id != first.job_id
            or chunk.attempt != first.attempt
            or chunk.asked != first.asked
            or chunk.source != first.source
            or chunk.target != first.target
            or to != self._frame.to
            or len(self._bodies) == MOST_CHUNKS
        ):
            return False
        body = encode_packed(pack(chunk.data, "data"))
        size = self._size + len(body) + _PREFIX
        if size > min(MOST_BYTES, self._framer.max_message_bytes):
            return False
        self._bodies.append(body)
        self._size = size
        return True

    def frame(self) -> Outgoing:
        """The frame as it is sent, and sent again: nothing joins it any more."""
        if len(self._bodies) == 1:
            return self._frame
        first = self._first
        message = BusJobStreamChunksMessage(
            source=first.source,
            target=first.target,
            destination=first.destination,
            job_id=first.job_id,
            sequence=first.sequence,
            attempt=first.attempt,
            asked=first.asked,
            chunks=self._bodies,
        )
        return self._framer.again(message, self._frame, self._origin)
