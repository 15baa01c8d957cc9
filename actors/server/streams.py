"""Streams of server-sent events: how many may be open, and how each of them ends."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import msgspec
from anyio import CancelScope
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

from actors.client.client import Client, _Requester
from actors.runs.errors import RunError
from actors.runs.owner import TOPIC
from actors.server.access import ServerSettings
from actors.server.bodies import encode
from actors.server.problem import HttpError, unavailable
from actors.worker.handlers import subscribe
from bus.log import log

KEPT = 1_000
"""Events kept for readers that come back, or are slow. Each costs what it says, whatever the number of readers."""


class FleetEvent(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        type: `worker_ready`, `worker_changed`, `worker_lost`, `job_started`, `job_completed`, `job_failed`, the type of
            a run's event, or `missed`: that many events (`data`, None if nobody knows) are not shown. They came while
            this reader did not read, and are not kept any more; or a runner had too many to tell.
        at: Unix time; of a job or a run, by the clock of who does it.
        data: What is known of it.
    """

    type: str
    at: float
    data: Any


class Feed:
    """Keeps the last events and wakes who waits for more. A slow reader costs nothing but its place.

    Args:
        life: Tells the ids of this server's life from those of another.
    """

    def __init__(self, life: str) -> None:
        self._life = life
        self._events: deque[FleetEvent] = deque(maxlen=KEPT)
        self._count = 0
        self._news = anyio.Event()
        self.readers = 0

    def put(self, event: FleetEvent) -> None:
        """Something happened."""
        self._events.append(event)
        self._count += 1
        news, self._news = self._news, anyio.Event()
        news.set()

    def read(self, after: str | None = None) -> AsyncGenerator[tuple[str, FleetEvent], None]:
        """The events after an id; without one, those that come from now on. Each with its own id, in order."""
        life, _, number = (after or "").rpartition("-")
        place = self._count
        missed = 0
        if life == self._life and number.isdecimal() and len(number) < 16:  # noqa: PLR2004 - more is none of ours
            place = min(int(number), self._count)
        elif after:
            missed = -1  # nobody knows how many: they were another life's
        return self._read(place, missed)

    async def _read(self, place: int, missed: int) -> AsyncGenerator[tuple[str, FleetEvent], None]:
        self.readers += 1
        try:
            while True:
                oldest = self._count - len(self._events)
                if place < oldest:
                    missed, place = oldest - place, oldest
                if missed:
                    known = missed if missed > 0 else None
                    yield f"{self._life}-{place}", FleetEvent("missed", 0.0, known)
                    missed = 0
                elif place < self._count:
                    event = self._events[place - oldest]
                    place += 1
                    yield f"{self._life}-{place}", event
                else:
                    await self._news.wait()
        finally:
            self.readers -= 1


MOST_TAILS = 100
"""Runs whose events are shown at once; those of others can be had from their own streams."""

MOST_REMEMBERED = 1_000
"""Runs that were shown to their end: news of one of them, as that somebody would cancel it, does not show it again."""


class RunTails(_Requester):
    """Shows the events of runs that this process hears of, while somebody watches.

    Args:
        feed: Where they are shown.
        client: Finds runs.
    """

    def __init__(self, feed: Feed, client: Client) -> None:
        super().__init__()
        self._feed = feed
        self._client = client
        self._following: dict[str, None] = {}
        self._shown: OrderedDict[str, None] = OrderedDict()

    @subscribe(TOPIC)
    async def on_news(self, run_id: str) -> None:
        """A run was submitted, or is to be cancelled."""
        known = run_id in self._following or run_id in self._shown
        if self._feed.readers and not known and len(self._following) < MOST_TAILS:
            self._following[run_id] = None
            self.create_task(self._follow(run_id), f"events of run {run_id}", vital=False)

    async def leave(self) -> None:
        """Stop, when the server does."""
        await self.stop()

    async def _follow(self, run_id: str) -> None:
        try:
            run = await self._client.run(run_id)
            async for event in run.events():
                if not self._feed.readers:
                    return
                self._feed.put(FleetEvent(event.type.value, event.at, {"run_id": run_id, "event": event}))
            self._shown[run_id] = None
            if len(self._shown) > MOST_REMEMBERED:
                self._shown.popitem(last=False)
        except RunError:
            return  # it is gone, or the store is: whoever reads the run's own stream is told
        finally:
            del self._following[run_id]


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
