"""Revocation: jobs that were cancelled before anybody had them leave the queues that nobody serves."""

from __future__ import annotations

from collections import OrderedDict

import anyio

from bus.delivery.claims import Key
from bus.errors import DecodeError, TransportError
from bus.log import log
from bus.transport.framing import number_of
from bus.transport.node import Node
from bus.transport.outbox import Outbox
from bus.transport.transport import Transport
from bus.wire.codec import decode_header

MAX_CANCELLED = 10_000
"""Cancelled jobs that are remembered until their queue was looked through."""

PAGE = 64
"""Frames that are looked at in one go."""

PAUSE = 10.0
"""Seconds until the next try after the network has failed."""

MOST = 10_000
"""Most frames of one queue that are looked at: those behind stay until somebody serves the queue."""


class Revocation:
    """Takes the requests of this process out of their queues once they are cancelled.

    A runner that serves a queue takes them out itself and does not run them, so this is for queues that nobody serves.
    It touches only what this process has asked for itself and cancelled since.
    """

    def __init__(self, node: Node, transport: Transport, outbox: Outbox) -> None:
        self._node = node
        self._transport = transport
        self._outbox = outbox
        self._cancelled: OrderedDict[Key, int] = OrderedDict()
        self._under_way = False
        self._again = 0.0

    def __len__(self) -> int:
        """Cancelled jobs that may wait in a queue that nobody serves."""
        return len(self._cancelled)

    def add(self, key: Key, frame_id: str) -> None:
        """Remember that a job of this process was cancelled: all requests for it that have an earlier frame id."""
        self._cancelled[key] = number_of(frame_id)
        if len(self._cancelled) > MAX_CANCELLED:
            self._cancelled.popitem(last=False)

    def check(self) -> None:
        """Begin, if there is something to do. It is called at every heartbeat."""
        if not self._under_way and self._node.tasks.now() >= self._again and self._queues():
            self._under_way = True
            self._node.tasks.start(self._run, None)

    async def finish(self, seconds: float) -> None:
        """Send all that waits, then take out what was cancelled: for at most `seconds` each."""
        await self._outbox.flush(seconds)
        if self._node.connected and self._queues():
            with anyio.move_on_after(seconds):
                await self._run(None)

    def _queues(self) -> list[str]:
        names = dict.fromkeys(name for name, _, _, _ in self._cancelled)
        replicas = self._node.registry.remote_replicas
        return [name for name in names if not self._node.reaches(name) and not replicas(name)]

    async def _run(self, _argument: None) -> None:
        try:
            for name in self._queues():
                await self._search(name)
        except TransportError as error:
            self._again = self._node.tasks.now() + PAUSE
            log().debug("cancelled jobs could not be taken out of their queue yet", error=str(error))
        finally:
            self._under_way = False

    async def _search(self, name: str) -> None:
        unsent = frozenset(self._outbox.jobs())  # they may still be stored
        revoked = {
            key: number for key, number in self._cancelled.items() if key[0] == name and (name, *key[2:]) not in unsent
        }
        frames = self._transport.waiting(name)
        places: list[str] = []
        after = ""
        for _ in range(MOST // PAGE):
            page = await frames.oldest(PAGE, after)
            if not page or len(places) >= len(revoked):
                break
            after = page[-1].place
            places += [frame.place for frame in page if _is_cancelled(frame.body, name, revoked)]
        if places:
            await frames.discard(places)
        for key, number in revoked.items():
            if self._cancelled.get(key) == number:
                del self._cancelled[key]


def _is_cancelled(body: bytes, name: str, revoked: dict[Key, int]) -> bool:
    try:
        header, _ = decode_header(body, lane="queue", max_message_bytes=len(body))
    except DecodeError:
        return False  # a runner that serves the queue makes it a dead letter, and logs that
    asked = (name, header.origin, header.source, header.job_id or "")
    return header.target == name and number_of(header.id) <= revoked.get(asked, -1)
