"""What a process has yet to send: frames that the network stores, settlements, and frames of the lane `direct`.

Each kind has one queue and one writer, which sends all that waits in one flush.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any, Protocol

import anyio
import msgspec
from msgspec.structs import replace

from bus.backoff import Backoff
from bus.errors import PartlySentError, TransportError
from bus.local.mailbox import Room
from bus.local.tasks import Tasks, Waiter, wake
from bus.log import log
from bus.messages import BusJobStreamDataMessage
from bus.transport.framing import Chunks, Framer
from bus.transport.transport import Delivery, Lane, Outgoing, Prompt, Settlement, Transport
from bus.wire.codec import decode_header

CAPACITY = 10_000
"""Requests and messages of users that may wait for the network, and as many for each place that refuses frames just
now. Answers and events are bounded by their jobs."""

BATCH = 256
"""Frames of one flush."""

SLOWEST = 100_000.0
"""Bytes in a second that a link is given time for, besides `HANGS`."""

HANGS = 4
"""Leases after which a flush hangs: one that is slow lasts for some, and what it answers stays claimed meanwhile."""

BACKOFF = Backoff(first=0.05, limit=2.0, jitter=0.5)


Place = tuple[Lane, str]
"""A lane, and an address or the name of a queue."""


class OutboxStatistics(msgspec.Struct, frozen=True):
    """A snapshot of an `Outbox`.

    Attributes:
        frames: Frames that wait to be sent.
        held: Those of them that their place has refused.
        settlements: Settlements that wait to be sent.
        sent: Frames that the network has accepted so far.
        failures: Flushes that have failed.
    """

    frames: int
    held: int
    settlements: int
    sent: int
    failures: int


class _Item(msgspec.Struct):
    frame: Outgoing
    lease: Lease | None
    accepted: Callable[[], None] | None
    bounded: bool
    chunks: Chunks | None


class Lease(Protocol):
    """What a process holds, until `ack_wait` after it was renewed."""

    renewed: float

    @property
    def delivery(self) -> Delivery | None:
        """The claim on a queue; None for a job that has none, and so no lease."""


class Settling(msgspec.Struct):
    """A settlement that waits to be sent; it is tried until the lease of its claim is over.

    Attributes:
        delivery: The claim.
        how: How it ends.
        renewed: When its lease was last renewed, on our clock.
    """

    delivery: Delivery
    how: Settlement
    renewed: float


class _Wakeup:
    """Wakes the one task that waits for something to do."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._waiter: Waiter | None = None

    def set(self) -> None:
        if self._waiter is not None:
            wake(self._waiter)

    async def wait(self) -> None:
        self._waiter = self._tasks.waiter()
        try:
            await self._waiter
        finally:
            self._waiter = None


class _Flushes:
    """What is being sent, and whether some of it never comes to an end."""

    def __init__(self) -> None:
        self._until: dict[anyio.CancelScope, float] = {}

    async def run(self, operation: Awaitable[Any], until: float) -> None:
        """Wait for an operation that should have ended by then.

        Raises:
            TransportError: It was given up.
        """
        with anyio.CancelScope() as scope:
            self._until[scope] = until
            try:
                await operation
            finally:
                del self._until[scope]
        if scope.cancelled_caught:
            raise TransportError("the network has taken too long for what was sent")

    def give_up(self, now: float) -> bool:
        """Let those fail that should have ended by now, to be tried again. Returns whether there are any."""
        late = [scope for scope, until in self._until.items() if now > until]
        for scope in late:
            scope.cancel()
        return bool(late)


class _Line:
    """Frames in their order, and the room for those that are bounded."""

    __slots__ = ("items", "room")

    def __init__(self, owner: str, tasks: Tasks) -> None:
        self.items: deque[_Item] = deque()
        self.room = Room(owner, CAPACITY, tasks)


class Outbox:
    """Sends frames in the order they were posted, again and with the same id until the network has accepted them.

    A place that refuses its frames gets a line of its own, so that what goes elsewhere does not wait for it. Frames and
    settlements do not wait for each other either.
    """

    def __init__(self, transport: Transport, tasks: Tasks, rng: Random) -> None:
        self._line = _Line("the network", tasks)
        self._held: dict[Place, _Line] = {}
        self._transport = transport
        self._tasks = tasks
        self._rng = rng
        self._settlements: deque[Settling] = deque()
        self._frames_wakeup = _Wakeup(tasks)
        self._settlements_wakeup = _Wakeup(tasks)
        self._idle: list[Waiter] = []
        self._flushes = _Flushes()
        self._sent = 0
        self._failures = 0
        self._closing = False

    def full(self, lane: Lane, to: str) -> Room | None:
        """The room that a sender which can wait has to wait for; None if there is a place."""
        room = self._line_to((lane, to)).room
        return room if room.taken >= room.capacity else None

    def put(
        self,
        frame: Outgoing,
        accepted: Callable[[], None] | None = None,
        *,
        bounded: bool = False,
        lease: Lease | None = None,
        chunks: Chunks | None = None,
    ) -> None:
        """Send a frame soon.

        Args:
            frame: The frame.
            accepted: Called once the network has stored it.
            bounded: Whether it takes a place: ask `full` before.
            lease: That of the claim which the frame settles: once it has ended, the frame settles nothing.
            chunks: What the frame is made of when it is first sent.
        """
        line = self._line_to((frame.lane, frame.to))
        if bounded:
            line.room.taken += 1
        line.items.append(_Item(frame, lease, accepted, bounded, chunks))
        self._frames_wakeup.set()

    def put_chunk(self, chunk: BusJobStreamDataMessage, to: str, framer: Framer, origin: str) -> str:
        """Send a chunk of a stream soon, in the frame of the chunk before it if that one still waits as the last.

        Returns:
            Id of the frame.

        Raises:
            EncodeError: It cannot travel.
        """
        items = self._line_to(("inbox", to)).items
        last = items[-1].chunks if items else None
        if last is not None and last.join(chunk, to):
            return last.id
        frame = framer.frame(chunk, "inbox", to, origin)
        self.put(frame, chunks=Chunks(chunk, frame, framer, origin))
        return frame.id

    def settle(self, settling: Settling) -> None:
        """End a claim soon; this is tried until its lease has ended anyway."""
        self._settlements.append(settling)
        self._settlements_wakeup.set()

    @property
    def settling(self) -> list[Settling]:
        """The settlements that wait: the leases of their claims must not run out meanwhile."""
        return list(self._settlements)

    def jobs(self) -> Iterator[tuple[str, str, str]]:
        """The requests that the network has not accepted yet, as far as is known: worker, requester, id."""
        for line in (self._line, *self._held.values()):
            for frame in (item.frame for item in line.items if item.frame.lane == "queue"):
                header, _ = decode_header(frame.body, max_message_bytes=len(frame.body))
                yield (header.target or "", header.source, header.job_id or "")

    def statistics(self) -> OutboxStatistics:
        """How much waits now."""
        held = sum(len(line.items) for line in self._held.values())
        return OutboxStatistics(len(self._line.items) + held, held, len(self._settlements), self._sent, self._failures)

    async def flush(self, seconds: float) -> None:
        """Wait until everything was sent, at most `seconds`."""
        with anyio.move_on_after(seconds):
            while self._line.items or self._held or self._settlements:
                waiter = self._tasks.waiter()
                self._idle.append(waiter)
                await waiter

    def stuck(self, now: float) -> bool:
        """Whether a flush hangs, so that nothing can be answered from here. It is given up, and begun anew."""
        return self._flushes.give_up(now)

    def _late(self, size: int = 0) -> float:
        """When a flush of so many bytes that begins now should have ended, over any link that moves at all."""
        return self._tasks.now() + HANGS * self._transport.ack_wait + size / SLOWEST

    def close(self) -> None:
        """Note that the network is being left: what cannot be sent any more is no failure."""
        self._closing = True

    async def run(self) -> None:
        """Send until cancelled."""
        async with anyio.create_task_group() as loops:
            loops.start_soon(self._pump, self._line.items, self._frames_wakeup, self._send)
            loops.start_soon(self._pump, self._settlements, self._settlements_wakeup, self._settle)

    async def _pump(self, waiting: deque[Any], wakeup: _Wakeup, send: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            if not waiting:
                self._wake_idle()
                await wakeup.wait()
            try:
                await send()
                failures = 0
            except TransportError as error:
                if self._closing:
                    return
                failures += 1
                self._failures += 1
                if failures == 1:
                    log().warning("the network does not accept frames; trying again", error=str(error))
                await anyio.sleep(BACKOFF.delay(failures, self._rng))

    def _line_to(self, place: Place) -> _Line:
        return self._held.get(place, self._line)

    async def _send(self) -> None:
        if self._line.items:  # one batch at a time: over a slow network there is always more
            missing = await self._send_from(self._line)
            places = dict.fromkeys((item.frame.lane, item.frame.to) for item in missing)
            for place in places:
                self._hold(place)

    async def _send_from(self, line: _Line) -> list[_Item]:
        """Send what fits into one flush. What its place has refused stays in front, and is returned."""
        items = line.items
        batch = [items[index] for index in range(min(len(items), BATCH))]
        refused: tuple[str, ...] = ()
        over = self._tasks.now() - self._transport.ack_wait
        frames = [_last_form(each, over) for each in batch]
        try:
            size = sum(len(frame.body) for frame in frames)
            await self._flushes.run(self._transport.send(frames), self._late(size))
        except PartlySentError as error:
            self._failures += 1
            refused = error.missing
            if line is self._line:
                log().warning("frames are refused where they go; trying again", frames=len(refused), error=str(error))
        missing = [item for item in batch if item.frame.id in refused] if refused else []
        self._sent += len(batch) - len(missing)
        for item in batch:
            items.popleft()
            if refused and item.frame.id in refused:
                continue
            if item.bounded:
                line.room.give()
            if item.accepted is not None:
                item.accepted()
        items.extendleft(reversed(missing))
        return missing

    def _hold(self, place: Place) -> None:
        """Give a place a line of its own."""
        held = self._held[place] = _Line(f"{place[0]} {place[1]!r}", self._tasks)
        rest: list[_Item] = []
        for item in self._line.items:
            if (item.frame.lane, item.frame.to) != place:
                rest.append(item)
                continue
            held.items.append(item)
            if item.bounded:
                held.room.taken += 1
                self._line.room.give()
        self._line.items.clear()
        self._line.items.extend(rest)
        self._tasks.spawn(self._try_again, place, held)

    async def _try_again(self, place: Place, held: _Line) -> None:
        """Send what a place has refused until the place takes it."""
        failures = 1
        while held.items:
            if failures:
                await anyio.sleep(BACKOFF.delay(failures, self._rng))
            try:
                failures = failures + 1 if await self._send_from(held) else 0
            except TransportError:
                failures += 1
        del self._held[place]
        held.room.close()
        self._wake_idle()

    def _wake_idle(self) -> None:
        if not (self._line.items or self._held or self._settlements):
            for waiter in self._idle:
                wake(waiter)
            self._idle.clear()

    async def _settle(self) -> None:
        while self._settlements:
            now = self._tasks.now()
            batch = [self._settlements[index] for index in range(min(len(self._settlements), BATCH))]
            lasting = [(each.delivery, each.how) for each in batch if now < each.renewed + self._transport.ack_wait]
            if lasting:
                await self._flushes.run(self._transport.settle(lasting), self._late())
            for _ in batch:
                self._settlements.popleft()


def _last_form(item: _Item, over: float) -> Outgoing:
    """The frame as it goes out. Nothing may join it afterwards: it might be lost with a double that is dropped."""
    if item.chunks is not None:
        item.frame, item.chunks = item.chunks.frame(), None
    if item.lease is None or item.lease.renewed > over:
        return item.frame
    return replace(item.frame, settles=None)


SHARE = 50
"""Frames that are written without waiting for more, so that their receivers begin meanwhile: that makes a tenth to a
third more jobs a second with a hundred in flight."""


class DirectOutbox:
    """Sends frames of the lane `direct`, in the order they were posted, each once.

    Frames wait while there is no connection. One that was sent is never sent again, whether it arrived or not. Requests
    take room; answers and events are bounded by their jobs.
    """

    def __init__(self, transport: Transport, tasks: Tasks, rng: Random) -> None:
        self.room = Room("the network", CAPACITY, tasks)
        self._transport = transport
        self._tasks = tasks
        self._rng = rng
        self._frames: deque[tuple[Outgoing, bool]] = deque()
        self._waiter: Waiter | None = None
        self._idle: list[Waiter] = []
        self._prompt = transport if isinstance(transport, Prompt) else None
        self._received = 0
        self._sending = False

    @property
    def waiting(self) -> int:
        """Frames that wait to be sent."""
        return len(self._frames)

    def put(self, frame: Outgoing, *, bounded: bool = False) -> None:
        """Send a frame soon. A `bounded` one takes a place: look whether there is `room` before.

        A frame that follows on the receipt of a single one goes at once: it is likely to have no others to go with.
        """
        if self._received == 1 and self._prompt is not None and not self._frames:
            self._received = 0
            if self._prompt.tell_at_once([frame]):
                return
        self.room.taken += bounded
        self._frames.append((frame, bounded))
        if len(self._frames) % SHARE == 0 and self._prompt is not None and not self._sending:
            self._send_share(self._prompt)
        if self._waiter is not None:
            wake(self._waiter)

    def received(self) -> None:
        """Count a frame that has come."""
        self._received += 1

    async def flush(self, seconds: float) -> None:
        """Wait until everything was sent, at most `seconds`."""
        with anyio.move_on_after(seconds):
            while self._frames:
                waiter = self._tasks.waiter()
                self._idle.append(waiter)
                await waiter

    def _send_share(self, prompt: Prompt) -> None:
        """Write what waits, node by node, as far as the transport takes it at once."""
        nodes: dict[str, list[Outgoing]] = {}
        for frame, _ in self._frames:
            nodes.setdefault(frame.to, []).append(frame)
        taken = {to for to, frames in nodes.items() if prompt.tell_at_once(frames)}
        for _ in range(len(self._frames)):
            frame, bounded = self._frames.popleft()
            if frame.to not in taken:
                self._frames.append((frame, bounded))
            elif bounded:
                self.room.give()

    async def run(self) -> None:
        """Send until cancelled."""
        failures = 0
        while True:
            if not self._frames:
                for waiter in self._idle:
                    wake(waiter)
                self._idle.clear()
                self._waiter = self._tasks.waiter()
                await self._waiter
                self._waiter = None
                continue
            self._received = 0
            count = min(len(self._frames), BATCH)
            self._sending = True
            try:
                await self._transport.tell([self._frames[index][0] for index in range(count)])
            except TransportError as error:
                failures += 1
                if failures == 1:
                    log().warning("the network is not connected; trying again", error=str(error))
                await anyio.sleep(BACKOFF.delay(failures, self._rng))
                continue
            finally:
                self._sending = False
            failures = 0
            for _ in range(count):
                if self._frames.popleft()[1]:
                    self.room.give()
