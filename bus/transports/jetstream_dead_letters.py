"""What was given up on, on a NATS server: stored, listed, thrown away. For asyncio."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from email.parser import BytesParser
from typing import Any

from bus.errors import TransportError
from bus.transport import DeadFrame
from bus.transports.jetstream_layout import NO_MESSAGE, Layout, refusal
from bus.transports.nats_answers import Answers, status_of
from bus.transports.nats_link import NatsLink


async def bury(link: NatsLink, layout: Layout, queue: str, frame_id: str, body: bytes, *, attempt: int) -> None:
    """Store a dead letter.

    Raises:
        TransportError: It may be stored or not.
    """
    answers = Answers(link)
    headers = {"Nats-Msg-Id": f"dead-{frame_id}", "Actorbus-Queue": queue, "Actorbus-Attempt": str(attempt)}
    await answers.ask(layout.dead_subject(queue), body, headers)
    (message,) = await answers.wait()
    if status_of(message) == "503" or b'"error"' in message.data:
        raise TransportError(f"the dead letters are refused: {message.data.decode(errors='replace') or 'no stream'}")


class JetStreamDeadFrames:
    """The dead letters of a namespace. The server knows how often a job was delivered, not to whom.

    Args:
        layout: Names the stream.
        connected: The connection, or a `TransportError`.
    """

    def __init__(self, layout: Layout, connected: Callable[[], NatsLink]) -> None:
        self._layout = layout
        self._connected = connected

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` letters, the oldest first; only such as follow the place `after`. One round trip for each.

        Raises:
            TransportError: The server did not answer, or refused.
        """
        frames: list[DeadFrame] = []
        sequence = 1
        if after:
            if not after.isdecimal():
                raise ValueError(f"{after!r} is not where a dead letter is kept")
            sequence = int(after) + 1
        while len(frames) < most:
            ask = {"seq": sequence, "next_by_subj": self._layout.dead_subjects}
            answer = await self._connected().api(f"STREAM.MSG.GET.{self._layout.dead}", ask)
            if "error" in answer:
                if answer["error"].get("err_code") == NO_MESSAGE:
                    break
                raise refusal("the dead letters", answer)
            sequence = answer["message"]["seq"] + 1
            frames.append(_frame(answer["message"]))
        return frames

    async def discard(self, place: str) -> bool:
        """Throw a letter away. False if it was not there.

        Raises:
            TransportError: The server did not answer; it may be gone or not.
        """
        if not place.isdecimal():
            return False
        answer = await self._connected().api(f"STREAM.MSG.DELETE.{self._layout.dead}", {"seq": int(place)})
        return bool(answer.get("success"))


def _frame(message: dict[str, Any]) -> DeadFrame:
    _, _, lines = base64.b64decode(message.get("hdrs", "")).partition(b"\r\n")
    headers = BytesParser().parsebytes(lines, headersonly=True)
    attempt = int(headers.get("Actorbus-Attempt", "0"))
    when = datetime.fromisoformat(message["time"])
    queue = headers.get("Actorbus-Queue", "")
    place, body = str(message["seq"]), base64.b64decode(message.get("data", ""))
    return DeadFrame(place, queue, body, attempt, when.timestamp(), (f"attempt {attempt}: given up at {when}",))
