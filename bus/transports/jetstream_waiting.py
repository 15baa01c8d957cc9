"""What waits in a queue on a NATS server: looked at, taken out. For asyncio."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from bus.transport import WaitingFrame
from bus.transports.jetstream_layout import NO_MESSAGE, Layout, refusal
from bus.transports.nats_link import NatsLink

_GONE = (10043, 10057, NO_MESSAGE)
"""JetStream's codes for a message that is not there to be deleted."""


class JetStreamWaitingFrames:
    """The frames of one queue, claimed ones among them. One round trip for each.

    Args:
        layout: Names the stream.
        connected: The connection, or a `TransportError`.
        queue: Name of the queue.
    """

    def __init__(self, layout: Layout, connected: Callable[[], NatsLink], queue: str) -> None:
        self._layout = layout
        self._connected = connected
        self._subject = layout.job_subject(queue)

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        """At most `most` frames, the oldest first; only such as follow the place `after`.

        Raises:
            TransportError: The server did not answer, or refused.
        """
        if after and not after.isdecimal():
            raise ValueError(f"{after!r} is not where a frame waits")
        frames: list[WaitingFrame] = []
        while len(frames) < most:
            ask = {"seq": int(after or 0) + 1, "next_by_subj": self._subject}
            answer = await self._connected().api(f"STREAM.MSG.GET.{self._layout.jobs}", ask)
            if "error" in answer:
                if answer["error"].get("err_code") == NO_MESSAGE:
                    break
                raise refusal(f"to show stream {self._layout.jobs!r}", answer)
            message = answer["message"]
            after = str(message["seq"])
            frames.append(WaitingFrame(after, base64.b64decode(message.get("data", ""))))
        return frames

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out, also claimed ones.

        Raises:
            TransportError: The server did not answer, or refused; they may be gone or not.
        """
        for place in places:
            ask = {"seq": int(place), "no_erase": True}
            answer = await self._connected().api(f"STREAM.MSG.DELETE.{self._layout.jobs}", ask)
            if "error" in answer and answer["error"].get("err_code") not in _GONE:
                raise refusal(f"to take a message out of stream {self._layout.jobs!r}", answer)
