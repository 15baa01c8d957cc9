"""The inbox of a node on a NATS server: read in order, each message once, from where the reading stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.errors import DataLostError, TransportError
from bus.log import log
from bus.nats.connection import Answers, NatsLink, status_of
from bus.nats.layout import HEARTBEAT, NO_MESSAGE, NatsLayout, error_code, metadata, refusal, seconds_of
from bus.transport.transport import Delivery, Lane, Outgoing

PACK_BYTES = 2**19
"""Most bytes of frames that share one message; a larger frame has one of its own."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class Pack(NamedTuple):
    """Frames for one node that travel as one message.

    Attributes:
        frames: The frames.
        body: The content of the message.
    """

    frames: Sequence[Outgoing]
    body: bytes

    @classmethod
    def of(cls, frames: Sequence[Outgoing]) -> Pack:
        """All these frames as one message."""
        return cls(frames, _encode([frame.body for frame in frames]))

    @property
    def id(self) -> str:
        """Stands for all its frames: one that is sent again with others behind it is in another message.

        What is doubled by that is dropped by its frame id.
        """
        return f"{self.frames[0].id}/{self.frames[-1].id}/{len(self.frames)}"


def packs(frames: Sequence[Outgoing]) -> list[Pack]:
    """Frames in their order, as many together as one message takes."""
    found: list[Pack] = []
    batch: list[Outgoing] = []
    size = 0
    for frame in frames:
        if batch and size + len(frame.body) > PACK_BYTES:
            found.append(Pack.of(batch))
            batch, size = [], 0
        batch.append(frame)
        size += len(frame.body)
    if batch:
        found.append(Pack.of(batch))
    return found


def to_send_again(frames: Sequence[Outgoing], unanswered: Iterable[Sequence[Outgoing]]) -> dict[str, None]:
    """Ids of the frames that are in messages without an answer, and of all for the same inbox.

    An answer must not count while an event before it is not stored: who waits for both would have neither, should we
    die now.
    """
    lost = [frame for pack in unanswered for frame in pack]
    ids = dict.fromkeys(frame.id for frame in lost)
    inboxes = dict.fromkeys(frame.to for frame in lost if frame.lane == "inbox")
    again = [frame for frame in frames if frame.id in ids or (frame.lane == "inbox" and frame.to in inboxes)]
    return dict.fromkeys(frame.id for frame in again)


class Arrivals:
    """Deliveries in the order they came, and the wake-up of the reader that waits for them.

    Between them stand receipts: subjects to which the reader sends an empty message once it has taken what came before.
    """

    def __init__(self) -> None:
        self._items: deque[Delivery | str] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._news = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Delivery | str) -> None:
        """Add a delivery or a receipt, and wake the reader."""
        self._items.append(item)
        self.wake()

    def take(self, most: int) -> tuple[list[Delivery], list[str]]:
        """At most `most` deliveries, and the receipts that are due with them."""
        deliveries: list[Delivery] = []
        receipts: list[str] = []
        items = self._items
        while items and len(deliveries) < most:
            item = items.popleft()
            if isinstance(item, str):
                receipts.append(item)
            else:
                deliveries.append(item)
        return deliveries, receipts

    def wake(self) -> None:
        """Let the reader look again: there is something, or something to do."""
        self._news = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Return at the next `wake()`, at once if there was one since the last wait, or after `seconds`."""
        if not self._news:
            loop = asyncio.get_running_loop()
            reader = self._reader = loop.create_future()
            timer = loop.call_later(seconds, _wake, reader)
            try:
                await reader
            finally:
                timer.cancel()
                self._reader = None
        self._news = False


def _wake(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)


PURGE_PERIOD = 10.0
"""Seconds between two deletions of what was read: one request for all of it."""

SAME_TIME = 1e-5
"""Seconds by which two readings of one time may differ: one has microseconds, the other nanoseconds."""

MARKS = 20
"""Marks that a node leaves in its inbox within the time that a message is stored there."""

_MARK = _encode([])


class NatsInbox:
    """Reads an inbox through one consumer per life of the connection.

    The server numbers what it delivers. A number that is missing, or silence, means that something was lost on the way:
    then a new consumer starts behind the last message that was taken in. So nothing is lost, doubled or reordered,
    and nothing needs to be acknowledged.

    The server drops what has waited for too long. So a node leaves a mark in its inbox now and then: if the last
    message it took in is older than that, it was away, and something after that message may be gone. As it may if that
    message is gone and the inbox is full: then the server has dropped the oldest.
    """

    def __init__(self, layout: NatsLayout, arrivals: Arrivals, node: str) -> None:
        self.malformed = 0
        self.reopened = 0
        self._layout = layout
        self._arrivals = arrivals
        self._node = node
        self._subject = layout.inbox_subject(node)
        self._name = self._subject.rpartition(".")[2]
        self._birth = ""
        self._position = 0
        self._last = 0.0
        self._age = 0.0
        self._mark_at = 0.0
        self._purged = 0
        self._purge_at = 0.0
        self._epoch = 0
        self._number = 0
        self._seen_at = 0.0
        self._broken = True
        self._subscription: Subscription | None = None

    def reset(self) -> None:
        """The connection is a new one."""
        self._broken = True
        self._subscription = None

    async def maintain(self, link: NatsLink, now: float) -> None:
        """Open a consumer if there is none that works, and delete what was read.

        Raises:
            TransportError: JetStream did not answer, or refused.
            DataLostError: What was here, or for us, may be gone.
        """
        if not self._broken and now - self._seen_at > 3 * HEARTBEAT:
            self._broken = True
        if self._broken:
            await self._open(link)
            self._mark_at = now + self._age / MARKS
            return
        if self._position > self._purged and now >= self._purge_at:
            self._purge_at = now + PURGE_PERIOD
            link.spawn(self._purge, link, self._position)
        if self._age and now >= self._mark_at:
            self._mark_at = now + self._age / MARKS
            await link.publish(self._subject, _MARK)

    async def drop(self, link: NatsLink) -> None:
        """Delete the consumer and everything that waits."""
        await self._delete_reader(link)
        await link.api(f"STREAM.PURGE.{self._layout.inboxes}", {"filter": self._subject})

    async def _open(self, link: NatsLink) -> None:
        if self._epoch:
            self.reopened += 1
            await self._delete_reader(link)
        if self._subscription is not None:
            link.stop_listening(self._subscription)
            self._subscription = None
        await self._layout.ensure_streams(link)
        mark = Answers(link)
        await mark.ask(self._subject, _MARK)
        await mark.wait()
        info = await self._layout.inbox_info(link, self._subject)
        self._age = info.age
        if info.birth != self._birth:
            lost, self._birth = self._birth, info.birth
            self._position = self._purged = 0
            if lost:
                raise DataLostError(f"{link.where} has lost everything it had accepted")
        if self._position and not await self._holds(link):
            self._position = self._purged = 0  # what comes again is dropped by its frame ids
            if 0 < info.age < info.latest - self._last:
                raise DataLostError(
                    f"this process was away for {info.latest - self._last:.0f} seconds, and what waits longer than "
                    f"{info.age:.0f} is dropped at {link.where}"
                )
            if 0 < info.most <= info.stored:
                raise DataLostError(
                    f"while this process was away more messages came for it than {link.where} keeps: {info.most}"
                )
        self._epoch += 1
        self._number = 0
        self._broken = False
        subject = link.new_subject()
        self._subscription = await link.listen(subject, partial(self._arrived, self._epoch))
        try:
            await self._layout.make_reader(link, self._reader, self._node, subject, after=self._position)
        except TransportError:
            self._broken = True
            raise
        self._seen_at = asyncio.get_running_loop().time()

    @property
    def _reader(self) -> str:
        """Name of the consumer of this life of the connection."""
        return f"{self._name}-{self._epoch}"

    async def _delete_reader(self, link: NatsLink) -> None:
        await link.publish(f"$JS.API.CONSUMER.DELETE.{self._layout.inboxes}.{self._reader}")

    async def _holds(self, link: NatsLink) -> bool:
        """Whether the last message we took in still has the number it had.

        A server that was killed may have handed out messages that it had not written yet: then it gives their numbers
        to others, which would lie behind what counts as read.
        """
        answer = await link.api(f"STREAM.MSG.GET.{self._layout.inboxes}", {"seq": self._position})
        if error_code(answer) not in {None, NO_MESSAGE}:
            raise refusal(f"stream {self._layout.inboxes!r}", answer)
        message = answer.get("message", {})
        return message.get("subject") == self._subject and abs(seconds_of(message["time"]) - self._last) < SAME_TIME

    async def _purge(self, link: NatsLink, position: int) -> None:
        stream = self._layout.inboxes
        # The last message stays: by it we see whether the numbers still mean the same.
        answer = await link.api(f"STREAM.PURGE.{stream}", {"filter": self._subject, "seq": position})
        if "error" in answer:
            raise refusal(f"to purge stream {stream!r}", answer)
        self._purged = position

    def _arrived(self, epoch: int, message: Msg) -> None:
        if epoch != self._epoch or self._broken:
            return
        self._seen_at = asyncio.get_running_loop().time()
        if message.reply.startswith("$JS.ACK."):
            delivered = metadata(message)
            if delivered.number != self._number + 1:
                self._break()
                return
            self._number = delivered.number
            self.take(message.data, "inbox", self._arrivals.put)
            self._position, self._last = delivered.position, delivered.stored_at
            return
        headers = message.headers or {}
        if status_of(message) != "100":
            self._break()
            return
        receipt = message.reply or headers.get("Nats-Consumer-Stalled")
        if receipt:
            self._arrivals.put(receipt)
        if int(headers.get("Nats-Last-Consumer", self._number)) > self._number:
            self._break()

    def take(self, data: bytes, lane: Lane, take: Callable[[Delivery], None]) -> None:
        """Give the frames of one message to `take`."""
        try:
            bodies = _decode(data)
        except msgspec.MsgspecError as error:
            self.malformed += 1
            log().warning("message refused", lane=lane, error=str(error))
            return
        for body in bodies:
            take(Delivery(lane, "", body))

    def _break(self) -> None:
        self._broken = True
        self._arrivals.wake()
