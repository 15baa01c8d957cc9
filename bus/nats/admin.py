"""What people look after on a NATS server: its settings, a user's rights, dead letters, waiting frames. For asyncio."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from email.parser import BytesParser
from typing import Any

import anyio

from bus.errors import BusError, TransportError
from bus.local.dead_letters import DeadFrame
from bus.nats.connection import NatsLink, connect
from bus.nats.layout import NO_MESSAGE, NatsLayout, error_code, refusal, token
from bus.transport.server import Finding
from bus.transport.transport import WaitingFrame

OLDEST = (2, 9)
"""The first version of the server that the transport runs on."""


def inspect_server(link: NatsLink, max_message_bytes: int) -> None:
    """Refuse a server that takes smaller messages.

    Raises:
        BusError: It does.
    """
    taken = link.client.max_payload
    if taken < max_message_bytes:
        raise BusError(
            f"{link.where} takes messages of at most {taken} bytes, this bus sends up to {max_message_bytes}: "
            "raise its max_payload, or lower max_message_bytes"
        )


async def _message_after(link: NatsLink, stream: str, subject: str, position: int, what: str) -> dict[str, Any] | None:
    """The first message of a subject behind a position in its stream; None if there is none.

    Raises:
        TransportError: The server did not answer, or refused: then the error names `what`.
    """
    answer = await link.api(f"STREAM.MSG.GET.{stream}", {"seq": position + 1, "next_by_subj": subject})
    code = error_code(answer)
    if code == NO_MESSAGE:
        return None
    if code is not None:
        raise refusal(what, answer)
    message: dict[str, Any] = answer["message"]
    return message


def _body(message: dict[str, Any]) -> bytes:
    return base64.b64decode(message.get("data", ""))


class NatsDeadFrames:
    """The dead letters of a namespace. The server knows how often a job was delivered, not to whom.

    Args:
        layout: Names the stream.
        connected: The connection, or a `TransportError`.
    """

    def __init__(self, layout: NatsLayout, connected: Callable[[], NatsLink]) -> None:
        self._layout = layout
        self._connected = connected

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` dead letters, the oldest first; only such as follow the place `after`. One round trip each.

        Raises:
            TransportError: The server did not answer, or refused.
        """
        if after and not after.isdecimal():
            raise ValueError(f"{after!r} is not where a dead letter is kept")
        layout, position = self._layout, int(after or 0)
        frames: list[DeadFrame] = []
        while len(frames) < most:
            link = self._connected()
            message = await _message_after(link, layout.dead, layout.dead_subjects, position, "the dead letters")
            if message is None:
                break
            position = message["seq"]
            frames.append(_dead_frame(message))
        return frames

    async def discard(self, place: str) -> bool:
        """Throw a dead letter away. False if it was not there.

        Raises:
            TransportError: The server did not answer; it may be gone or not.
        """
        if not place.isdecimal():
            return False
        answer = await self._connected().api(f"STREAM.MSG.DELETE.{self._layout.dead}", {"seq": int(place)})
        return bool(answer.get("success"))


def _dead_frame(message: dict[str, Any]) -> DeadFrame:
    _, _, lines = base64.b64decode(message.get("hdrs", "")).partition(b"\r\n")
    headers = BytesParser().parsebytes(lines, headersonly=True)
    attempt = int(headers.get("Actorbus-Attempt", "0"))
    when = datetime.fromisoformat(message["time"])
    queue = headers.get("Actorbus-Queue", "")
    history = (f"attempt {attempt}: given up at {when}",)
    return DeadFrame(str(message["seq"]), queue, _body(message), attempt, when.timestamp(), history)


_GONE = (10043, 10057, NO_MESSAGE)
"""JetStream's codes for a message that is not there to be deleted."""


class NatsWaitingFrames:
    """The frames of one queue, claimed ones among them.

    Args:
        layout: Names the stream.
        connected: The connection, or a `TransportError`.
        queue: Name of the queue.
    """

    def __init__(self, layout: NatsLayout, connected: Callable[[], NatsLink], queue: str) -> None:
        self._layout = layout
        self._connected = connected
        self._subject = layout.job_subject(queue)

    async def oldest(self, most: int, after: str = "") -> Sequence[WaitingFrame]:
        """At most `most` frames, the oldest first; only such as follow the place `after`. One round trip for each.

        Raises:
            TransportError: The server did not answer, or refused.
        """
        if after and not after.isdecimal():
            raise ValueError(f"{after!r} is not where a frame waits")
        jobs, position = self._layout.jobs, int(after or 0)
        frames: list[WaitingFrame] = []
        while len(frames) < most:
            link = self._connected()
            message = await _message_after(link, jobs, self._subject, position, f"to show stream {jobs!r}")
            if message is None:
                break
            position = message["seq"]
            frames.append(WaitingFrame(str(position), _body(message)))
        return frames

    async def discard(self, places: Sequence[str]) -> None:
        """Take frames out, also claimed ones.

        Raises:
            TransportError: The server did not answer, or refused; they may be gone or not.
        """
        for place in places:
            ask = {"seq": int(place), "no_erase": True}
            answer = await self._connected().api(f"STREAM.MSG.DELETE.{self._layout.jobs}", ask)
            if error_code(answer) not in {None, *_GONE}:
                raise refusal(f"to take a message out of stream {self._layout.jobs!r}", answer)


# --- the doctor's checks ---


async def examine_nats(url: str, namespace: str, patience: float) -> AsyncIterator[Finding]:
    """Look at the server of a URL; see `bus.doctor.examine`."""
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
    layout = NatsLayout(namespace, 30.0)
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

    def ignore(_message: object) -> None:
        """Nobody writes there but us."""

    await link.listen(subject, ignore)
    await link.publish(subject)
    await link.api("INFO")  # the server says what it has refused before it answers this
    if link.forbidden:
        text = (
            f"{link.forbidden}: allow this user to publish and subscribe {token(namespace)}.>, $JS.API.> and _INBOX.>"
        )
        return Finding("rights", "failed", text)
    return Finding("rights", "ok", f"publishing and subscribing below {token(namespace)}. is allowed")
