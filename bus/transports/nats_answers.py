"""What a NATS server answers to requests. For asyncio."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from nats.aio.msg import Msg

from bus.errors import TransportError

if TYPE_CHECKING:
    from bus.transports.nats_link import NatsLink

ANSWER_TIMEOUT = 5.0
"""Seconds the server may take for an answer, the writing to its disk included."""


class Sink(Protocol):
    """Takes what the server answers to one request."""

    def answered(self, message: Msg) -> None:
        """The answer has come."""

    def lost(self) -> None:
        """It will not come: the connection is gone."""


class Answers:
    """The answers to several requests that one caller waits for together."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._tokens: list[str] = []
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = False
        self.messages: list[Msg] = []

    async def ask(self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None) -> str:
        """Send one more request; its token is the end of the subject of its answer."""
        token = await self._link.ask(subject, payload, self, headers)
        self._tokens.append(token)
        return token

    def answered(self, message: Msg) -> None:
        """See `Sink`."""
        self.messages.append(message)
        if len(self.messages) == len(self._tokens):
            self._finish()

    def lost(self) -> None:
        """See `Sink`."""
        self._lost = True
        self._finish()

    async def wait(self, seconds: float = ANSWER_TIMEOUT) -> list[Msg]:
        """Wait for all of them; the order is that of their arrival.

        Raises:
            TransportError: Some did not come in time. Whether what was asked was done is not known.
        """
        missing = len(self._tokens) - len(await self.arrived(seconds))
        if missing:
            raise self._missing(missing, seconds)
        return self.messages

    async def arrived(self, seconds: float = ANSWER_TIMEOUT) -> list[Msg]:
        """Wait for all of them, and return those that came in time.

        Raises:
            TransportError: None did, or the connection was lost.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._finish)
        try:
            if len(self.messages) < len(self._tokens) and not self._lost:
                self._future = asyncio.get_running_loop().create_future()
                await self._future
        finally:
            timer.cancel()
            self._link.forget(self._tokens)
        missing = len(self._tokens) - len(self.messages)
        if missing and (self._lost or not self.messages):
            raise self._missing(missing, seconds)
        return self.messages

    def _missing(self, count: int, seconds: float) -> TransportError:
        why = "the connection was lost" if self._lost else f"{seconds:g} seconds were not enough"
        return TransportError(f"{count} of {len(self._tokens)} answers did not come: {why}{self._link.reason()}")

    def _finish(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


def status_of(message: Msg) -> str:
    """The status that the server itself put on a message, `503` if there was nobody to take a request; or nothing."""
    return (message.headers or {}).get("Status", "")


def numbers(message: Msg) -> tuple[int, int, int]:
    """How often a message was delivered, its number in the stream, and the number of this delivery."""
    parts = message.reply.split(".")
    first = 4 if len(parts) == 9 else 6  # noqa: PLR2004 - with a domain there are two more words in front
    return int(parts[first]), int(parts[first + 1]), int(parts[first + 2])


def stored_at(message: Msg) -> float:
    """When the server stored a message that it delivers, in seconds of its clock."""
    return int(message.reply.split(".")[-2]) / 1e9


def seconds_of(time: str) -> float:
    """A time in an answer of the server, in seconds of its clock."""
    return datetime.fromisoformat(time).timestamp()
