"""Withdrawals: jobs that were given up before anybody had them leave the queues that nobody serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from bus.errors import DecodeError, TransportError
from bus.log import log
from bus.transport.framing import number_of
from bus.transport.transport import Transport
from bus.wire.codec import decode_header

if TYPE_CHECKING:
    from bus.delivery.claims import Claims
    from bus.network.bus import NetworkBus
    from bus.transport.outbox import Outbox


PAGE = 64
"""Frames that are looked at in one go."""

PAUSE = 10.0
"""Seconds after which it is tried again if the network does not let us."""

MOST = 10_000
"""Most frames of one queue that are looked at: what lies behind so many stays until somebody serves the queue."""


class Withdrawals:
    """Takes the requests of this process out of their queues when it has given them up.

    Who serves a queue takes them out itself, and does not run them: this is for queues that nobody serves. Only what
    this process has asked for itself, and cancelled since, is touched.
    """

    def __init__(self, bus: NetworkBus, transport: Transport, outbox: Outbox, claims: Claims) -> None:
        self._bus = bus
        self._transport = transport
        self._outbox = outbox
        self._claims = claims
        self._under_way = False
        self._again = 0.0

    def look(self) -> None:
        """At every heartbeat: begin, if there is something to do."""
        if not self._under_way and self._bus.tasks.now() >= self._again and self._names():
            self._under_way = True
            self._bus.tasks.start(self._run, None)

    async def leave(self, seconds: float) -> None:
        """Let all that waits go out, and then take out what was given up: for at most `seconds` each."""
        await self._outbox.flush(seconds)
        if self._bus.connection.stands and self._names():
            with anyio.move_on_after(seconds):
                await self._run(None)

    def _names(self) -> list[str]:
        names = dict.fromkeys(name for name, _, _, _ in self._claims.given_up)
        return [name for name in names if not self._bus.reaches(name) and not self._bus.registry.remote_replicas(name)]

    async def _run(self, _argument: None) -> None:
        try:
            for name in self._names():
                await self._look_through(name)
        except TransportError as error:
            self._again = self._bus.tasks.now() + PAUSE
            log().debug("given up jobs could not be taken out of their queue yet", error=str(error))
        finally:
            self._under_way = False

    async def _look_through(self, name: str) -> None:
        unsent = frozenset(self._outbox.jobs())  # they may yet be stored
        doomed = {
            key: number
            for key, number in self._claims.given_up.items()
            if key[0] == name and (name, *key[2:]) not in unsent
        }
        frames = self._transport.waiting(name)
        places: list[str] = []
        after = ""
        for _ in range(MOST // PAGE):
            page = await frames.oldest(PAGE, after)
            if not page or len(places) >= len(doomed):
                break
            after = page[-1].place
            places += [frame.place for frame in page if self._is_given_up(frame.body, name, doomed)]
        if places:
            await frames.discard(places)
        for key, number in doomed.items():
            if self._claims.given_up.get(key) == number:
                del self._claims.given_up[key]

    def _is_given_up(self, body: bytes, name: str, doomed: dict[tuple[str, str, str, str], int]) -> bool:
        try:
            header, _ = decode_header(body, lane="queue", max_message_bytes=len(body))
        except DecodeError:
            return False  # who serves the queue buries it, and says so
        asked = (name, header.origin, header.source, header.job_id or "")
        return header.target == name and number_of(header.id) <= doomed.get(asked, -1)
