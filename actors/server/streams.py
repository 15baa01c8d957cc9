"""Streams of server-sent events: how many may be open, and how each of them ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import anyio
from anyio import CancelScope
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

from actors.server.bodies import encode
from actors.server.problem import HttpError, unavailable
from actors.server.settings import ServerSettings
from bus.log import log

LAST_WORD = 1.0
"""Seconds that telling a reader of the end of its stream may take."""

RETRY = {"retry-after": "5"}


def event(value: object, *, kind: str | None = None, number: str | None = None) -> ServerSentEvent:
    """One event: JSON in one line, with a type and an id to come back to."""
    return ServerSentEvent(encode(value).decode(), event=kind, id=number, sep="\n")


class Streams:
    """The streams open now. When the server ends they end first: who reads them comes back to another server."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.stalled = 0
        self._open: dict[CancelScope, None] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    def require_room(self) -> None:
        """Refuse a stream that would be one too many.

        Raises:
            HttpError: It would be.
        """
        if self._closed:
            raise unavailable("ending", "the server is ending: come back to it, or to another")
        if len(self._open) >= self.settings.max_streams:
            raise HttpError(
                429, "too_many_streams", f"{len(self._open)} streams are open: try later", retry=True, headers=RETRY
            )

    @contextmanager
    def open(self) -> Iterator[None]:
        """Count a stream as long as the block lasts, which ends when the server does."""
        self.require_room()
        with CancelScope() as scope:
            self._open[scope] = None
            try:
                yield
            finally:
                del self._open[scope]

    def close(self) -> None:
        """End all streams, and open none any more."""
        self._closed = True
        for scope in tuple(self._open):
            scope.cancel()


class EventStream(EventSourceResponse):
    """An answer that is a stream of events.

    It ends with what it shows, with its reader, when the reader does not read on for `send_timeout` seconds, or with
    the server.

    Args:
        streams: The streams it is one of.
        content: What is shown.
    """

    def __init__(self, streams: Streams, content: AsyncGenerator[ServerSentEvent, None]) -> None:
        settings = streams.settings
        super().__init__(content, ping=settings.ping, send_timeout=settings.send_timeout, sep="\n")
        self._streams = streams
        self._content = content
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def watched(message: Message) -> None:
            await send(message)
            self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            with self._streams.open():
                await super().__call__(scope, receive, watched)
        except SendTimeoutError:
            self._streams.stalled += 1
            log().info("a reader of a stream does not read on: it is ended", path=scope["path"])
            return
        finally:
            with CancelScope(shield=True), anyio.move_on_after(LAST_WORD):
                await self._content.aclose()
        if not self._ended:  # it was the server that ended it: its reader sees an end, and no accident
            with anyio.move_on_after(LAST_WORD):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
