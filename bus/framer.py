"""The framer: makes the frames of one life of a runner, numbered and signed."""

from __future__ import annotations

import itertools

from bus.answers import in_place_of
from bus.codec import encode
from bus.errors import EncodeError
from bus.messages import TERMINAL_MESSAGES, BusMessage
from bus.signing import Signer
from bus.transport import Lane, Outgoing


def number_of(frame_id: str) -> int:
    """The number in the id of a frame; 0 if it has none."""
    number = frame_id.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


class Framer:
    """Makes frames; the id of each is the incarnation and a number that grows. It may be used from any thread.

    Args:
        incarnation: The life of the runner.
        signer: Signs each frame; None for none.
        max_message_bytes: Most bytes of a frame.
    """

    def __init__(self, incarnation: str, signer: Signer | None, max_message_bytes: int) -> None:
        self._incarnation = incarnation
        self._signer = signer
        self.max_message_bytes = max_message_bytes
        self._numbers = itertools.count(1)

    def frame(self, message: BusMessage, lane: Lane, to: str, origin: str) -> Outgoing:
        """A message as a frame from `origin`; an answer that cannot travel is replaced by one that says so.

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
        """A message as the frame that takes the place of another one, which was not sent."""
        body = self._encode(message, frame.id, frame.lane, frame.to, origin)
        return Outgoing(frame.lane, frame.to, frame.id, body)

    def new_id(self) -> str:
        """An id later than those of all frames made before."""
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
