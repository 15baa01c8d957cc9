"""What was given up on, on a NATS server: stored, listed, thrown away. For asyncio."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from email.parser import BytesParser
from typing import Any

import anyio

from bus.errors import BusError, TransportError
from bus.local.dead_letters import DeadFrame
from bus.nats.connection import Answers, NatsLink, connect, status_of
from bus.nats.layout import NO_MESSAGE, Layout, refusal, token
from bus.transport.server import Finding
from bus.transport.transport import WaitingFrame


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


OLDEST = (2, 9)
"""The first version of the server that the transport runs on."""


async def examine_nats(url: str, namespace: str, patience: float) -> AsyncIterator[Finding]:
    """Look at the server of a URL; see `bus.checkup.examine`."""
    link: NatsLink | None = None
    try:
        try:
            with anyio.fail_after(patience):
                link = await connect(url, "actorbus-doctor", lambda: None)
        except (BusError, TimeoutError) as error:
            why = str(error) or "it does not answer"
            yield Finding("broker", "failed", f"{why}: is it running, and is the URL right?")
            return
        yield Finding("broker", "ok", f"{link.where} answers")
        version = link.client.connected_server_version
        known = f"NATS {version.major}.{version.minor}.{version.patch}"
        old = (version.major, version.minor) < OLDEST
        yield (
            Finding("version", "failed", f"{known}: 2.9 or newer is needed") if old else Finding("version", "ok", known)
        )
        try:
            with anyio.fail_after(patience):
                yield await _persistence(link, namespace)
                yield await _rights(link, namespace)
        except (TransportError, TimeoutError) as error:
            yield Finding("persistence", "failed", str(error) or "JetStream does not answer: start the server with -js")
            return
        yield Finding("clock", "ok", "NATS does not tell its time, and nothing depends on it")
    finally:
        if link is not None:
            with anyio.CancelScope(shield=True):
                await link.close()


async def _persistence(link: NatsLink, namespace: str) -> Finding:
    account = await link.api("INFO")
    if "error" in account:
        why = account["error"].get("description", "no reason given")
        return Finding("persistence", "failed", f"JetStream is refused ({why}): give this account JetStream")
    layout = Layout(namespace, 30.0)
    in_memory = []
    for name in (layout.jobs, layout.inboxes, layout.dead):
        stream: dict[str, Any] = await link.api(f"STREAM.INFO.{name}")
        if stream.get("config", {}).get("storage") == "memory":
            in_memory.append(name)
    if in_memory:
        text = f"{', '.join(in_memory)} in memory: a crash of it loses queued jobs; make them with storage file"
        return Finding("persistence", "warning", text)
    return Finding("persistence", "ok", "JetStream writes to files what it accepts; they are synced every two minutes")


async def _rights(link: NatsLink, namespace: str) -> Finding:
    subject = f"{token(namespace)}.doctor"

    def heard(_message: object) -> None:
        """Nobody writes there but us."""

    await link.listen(subject, heard)
    await link.tell(subject)
    await link.api("INFO")  # what was refused is told before this is answered
    if link.forbidden:
        text = (
            f"{link.forbidden}: allow this user to publish and subscribe {token(namespace)}.>, $JS.API.> and _INBOX.>"
        )
        return Finding("rights", "failed", text)
    return Finding("rights", "ok", f"publishing and subscribing below {token(namespace)}. is allowed")
