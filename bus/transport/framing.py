"""Frames: messages made ready for the network, and chunks of one stream that share a frame while they wait."""

from __future__ import annotations

import itertools

from bus.errors import EncodeError
from bus.messages import MOST_CHUNKS, TERMINAL_MESSAGES, BusJobStreamChunksMessage, BusJobStreamDataMessage, BusMessage
from bus.transport.system_answers import in_place_of
from bus.transport.transport import Lane, Outgoing
from bus.wire.codec import encode
from bus.wire.packing import encode_packed, pack
from bus.wire.signing import Signer


def number_of(frame_id: str) -> int:
    """The number in the id of a frame; 0 if it has none."""
    number = frame_id.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


class Framer:
    """Makes frames of messages. It may be used from any thread.

    The id of a frame is the incarnation and a number: each is larger than those of all frames made before.

    Args:
        incarnation: The life of the runner.
        signer: Signs each frame; None leaves them unsigned.
        max_message_bytes: Most bytes of a frame.
    """

    def __init__(self, incarnation: str, signer: Signer | None, max_message_bytes: int) -> None:
        self._incarnation = incarnation
        self._signer = signer
        self.max_message_bytes = max_message_bytes
        self._numbers = itertools.count(1)

    def frame(self, message: BusMessage, lane: Lane, to: str, origin: str) -> Outgoing:
        """Make a frame from `origin`. An answer that cannot travel is replaced by one that says so.

        Raises:
            EncodeError: The message cannot travel, and is no answer.
        """
        frame_id = self.new_id()
        try:
            body = self._encode(message, frame_id, lane, to, origin)
        except EncodeError as error:
            if not isinstance(message, TERMINAL_MESSAGES):
                raise
            body = self._encode(in_place_of(message, error), frame_id, lane, to, origin)
        return Outgoing(lane, to, frame_id, body)

    def again(self, message: BusMessage, frame: Outgoing, origin: str) -> Outgoing:
        """Make the frame that takes the place of another one, which was not sent: it has the same id."""
        body = self._encode(message, frame.id, frame.lane, frame.to, origin)
        return Outgoing(frame.lane, frame.to, frame.id, body)

    def new_id(self) -> str:
        """An id that is later than those of all frames made before."""
        return f"{self._incarnation}-{next(self._numbers)}"

    def _encode(self, message: BusMessage, frame_id: str, lane: Lane, to: str, origin: str) -> bytes:
        return encode(
            message,
            id=frame_id,
            origin=origin,
            destination=to if lane in {"inbox", "direct"} else "",
            lane=lane,
            signer=self._signer,
            max_message_bytes=self.max_message_bytes,
        )


MOST_BYTES = 65_536
"""Bytes after which no further chunk joins a frame."""

_OVERHEAD = 64
"""Bytes by which a frame of several chunks exceeds, at most, the frame of the first and the bodies of the others."""
_PREFIX = 5
"""Bytes of the length of a chunk, at most."""


class Chunks:
    """A frame that waits to be sent, and that the next chunks of its stream may join until it is.

    So they share a header and a signature. Each chunk is encoded when it joins: one that cannot travel is its sender's
    error and spoils no other.

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
        """Take in the next chunk of the same job. False, and nothing is done, if it is another or does not fit.

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
        """The frame as it is sent, and sent again. Nothing may join it any more."""
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
