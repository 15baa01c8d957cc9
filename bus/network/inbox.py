"""The inbox: takes what comes from the network, refuses what must not be read, and hands the rest over."""

from __future__ import annotations

from msgspec.structs import replace

from bus.delivery.direct import Direct
from bus.delivery.leases import Leases
from bus.errors import DecodeError
from bus.local.bus import WorkerBus
from bus.log import log, text_of
from bus.membership.membership import Membership
from bus.messages import (
    JOB_TALK,
    RUNNER_MESSAGES,
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobRequestMessage,
    BusJobReturnedMessage,
    BusJobStreamChunksMessage,
    BusJobStreamDataMessage,
    BusJobWantedMessage,
    BusMessage,
    BusRegistryRequestMessage,
    BusTopicMessage,
)
from bus.transport.deduplication import Deduplication
from bus.transport.node import Node
from bus.transport.refusals import Refusals
from bus.transport.system_answers import for_unreadable_event, to_unreadable_request
from bus.transport.transport import Delivery, Lane, Settlement
from bus.wire.codec import Header, decode, decode_header
from bus.wire.packing import unpack
from bus.wire.signing import Signer

EXCESS = 10_000
"""Messages from other processes that may wait beyond what the mailbox of their reader holds; others are dropped."""


class Inbox:
    """Reads the frames for a node, and hands their messages to those whom they concern.

    * A frame is measured, its header read, its signature verified, and the way it came compared with where it was sent,
      in this order. Only then its body is decoded.
    * A frame that is refused is counted, and becomes a dead letter if it came from a queue. It never stops the reading.
    * A frame whose signature does not hold is never answered: its sender may have put anybody's address on it.

    Args:
        node: Who it works for.
        bus: Who has the readers of this process.
        leases: Takes job requests, and what requesters say of them.
        direct: Takes what performers say of jobs at most once.
        membership: Takes what other runners say of themselves.
        signer: Verifies frames; None for unsigned ones.
        max_message_bytes: Most bytes of a message.
    """

    def __init__(
        self,
        node: Node,
        bus: WorkerBus,
        leases: Leases,
        direct: Direct,
        membership: Membership,
        *,
        signer: Signer | None,
        max_message_bytes: int,
    ) -> None:
        self.refusals = Refusals()
        self.deduplication = Deduplication(strict=signer is not None)
        self._node = node
        self._bus = bus
        self._leases = leases
        self._direct = direct
        self._membership = membership
        self._max_bytes = max_message_bytes
        self._signer = signer
        self._alone = True

    def read(self, delivery: Delivery) -> None:
        """Take in one frame."""
        sender = ""
        try:
            header, body = decode_header(
                delivery.body, lane=delivery.lane, verifier=self._signer, max_message_bytes=self._max_bytes
            )
            sender = header.origin
            self._arrived(header, body, delivery)
        except DecodeError as error:
            error.sender = error.sender or sender
            self._refused(delivery, error)
        except Exception as error:  # noqa: BLE001 - one bad message must not stop the reader
            log().error("message could not be delivered", error=text_of(error), exc_info=True)
            self._refused(delivery, DecodeError(text_of(error), "undeliverable", sender))

    def _refused(self, delivery: Delivery, error: DecodeError) -> None:
        self.refusals.add(error, delivery.lane)
        if delivery.lane != "queue":
            return
        if self._alone and error.reason in {"unsigned", "unknown_key"} and self._leases.pass_on(delivery):
            return  # as long as no frame could be verified, it may be our key that is the wrong one
        self._leases.settle(delivery, Settlement.TERM, self._node.tasks.now())

    def _arrived(self, header: Header, body: memoryview, delivery: Delivery) -> None:
        self._check_way(header, delivery)
        if self._alone and header.origin != self._node.address:
            self._alone = False
            self._leases.resume()
        now = self._node.tasks.now()
        if delivery.lane == "queue":
            self._leases.claimed(self._request(header, body, delivery), delivery, header.id, now)
            return
        if not self.deduplication.is_new(header, delivery.lane):
            return
        if header.origin == self._node.address:
            self._membership.echoed(now)
            return
        try:
            message = decode(header, body)
        except DecodeError as error:
            self._unreadable(header, delivery.lane, error)
            raise
        message.origin = header.origin
        message.destination = ""
        if isinstance(message, BusJobStreamChunksMessage):
            self._hand_on_each(header, message, delivery.lane, now)
        else:
            self._hand_on(message, header.id, delivery.lane, now)

    def _hand_on_each(self, header: Header, chunks: BusJobStreamChunksMessage, lane: Lane, now: float) -> None:
        """Hand on the chunks of one frame. One that cannot be read ends its job, after those before it."""
        for sequence, body in enumerate(chunks.chunks, chunks.sequence):
            try:
                data = unpack(body)
            except DecodeError as error:
                self._unreadable(replace(header, sequence=sequence), lane, error)
                raise
            chunk = BusJobStreamDataMessage(
                source=chunks.source,
                target=chunks.target,
                origin=chunks.origin,
                job_id=chunks.job_id,
                sequence=sequence,
                attempt=chunks.attempt,
                asked=chunks.asked,
                data=data,
            )
            self._hand_on(chunk, header.id, lane, now)

    def _hand_on(self, message: BusMessage, frame_id: str, lane: Lane, now: float) -> None:
        """Hand a message to whom it concerns."""
        if isinstance(message, JOB_TALK):
            if self._direct.receive(message, now):
                self._node.deliver(message)
            elif hasattr(message, "sequence"):  # else it says that it has the job, as it had until it gave it back
                raise DecodeError(f"a {type(message).__name__} of a job that another runner has", "misattributed")
        elif isinstance(message, BusJobRequestMessage):
            if lane != "direct":
                raise DecodeError("a job request comes by the queue of its worker, or straight", "misdirected")
            self._leases.asked(message, frame_id, now)
        elif isinstance(message, RUNNER_MESSAGES):
            self._take_runner_message(message, lane, now)
        elif message.target is None:
            self._hand_out(message)
        elif isinstance(message, BusJobInquiryMessage):
            self._leases.inquired(message)
        elif isinstance(message, BusJobWantedMessage):
            self._leases.wanted(message, frame_id)
        elif isinstance(message, BusJobReturnedMessage):
            self._direct.returned(message)
        elif not isinstance(message, BusJobCancelMessage) or self._leases.forbid(message, message.origin, frame_id):
            self._deliver(message)

    def _hand_out(self, message: BusMessage) -> None:
        """Hand over what has no target. What was published goes to its followers, or is dropped and counted."""
        if isinstance(message, BusTopicMessage):
            for copy in tuple(self._bus.topics.copies(message)) or (message,):
                self._deliver(copy)
        else:
            self._bus.hand_out(message)

    def _deliver(self, message: BusMessage) -> None:
        """Hand over a message that nobody has asked for: how much of that waits is bounded."""
        if message.urgent:
            self._node.deliver(message)
            return
        room = self._node.deliver(message, force=False)
        if room is not None and room.taken < room.capacity + EXCESS:
            self._node.deliver(message)
        elif room is not None:
            self._bus.undelivered(message.target or "", 1)

    def _check_way(self, header: Header, delivery: Delivery) -> None:
        """Refuse a frame that came another way than it was sent, or that cannot be verified or answered.

        Raises:
            DecodeError: It is for another inbox, queue or lane, or signed while we have no key, or has no origin.
        """
        if header.key_id and self._signer is None:
            sender = f"{header.source!r:.100} at {header.origin!r:.100}"
            raise DecodeError(f"a frame from {sender} is signed, and this process has no key", "unknown_key")
        if not header.origin:
            raise DecodeError(f"a frame of type {header.type!r:.100} does not say where it comes from", "malformed")
        if delivery.lane == "queue":
            right = not header.destination and header.target == delivery.queue
        else:
            right = header.destination == ("" if delivery.lane == "everyone" else self._node.address)
        if not right:
            meant = f"the inbox of {header.destination!r:.100}" if header.destination else f"{header.target!r:.100}"
            came = f"the queue of {delivery.queue!r}" if delivery.queue else f"the lane {delivery.lane!r}"
            raise DecodeError(f"a frame of type {header.type!r:.100} for {meant} came by {came}", "misdirected")

    def _take_runner_message(self, message: BusMessage, lane: Lane, now: float) -> None:
        _check_runner(message)
        if isinstance(message, BusRegistryRequestMessage):
            self._leases.informed.forget(runner=message.origin)  # it does not know all our workers
        self._membership.receive(message, now, to_us=lane != "everyone")

    def _request(self, header: Header, body: memoryview, delivery: Delivery) -> BusJobRequestMessage:
        try:
            message = decode(header, body)
        except DecodeError as error:
            self._answer_unread(header, delivery.attempt, error)
            raise
        if not isinstance(message, BusJobRequestMessage):
            raise DecodeError(f"a {type(message).__name__} came by the queue of {delivery.queue!r}", "misdirected")
        message.origin = header.origin
        return message

    def _unreadable(self, header: Header, lane: Lane, error: DecodeError) -> None:
        """End the job that waits for a frame that cannot be read."""
        answer = for_unreadable_event(header, error)
        if answer is not None:
            if self._direct.receive(answer, self._node.tasks.now()):
                self._node.deliver(answer)
        elif lane == "direct" and header.type == BusJobRequestMessage.__name__:
            self._answer_unread(header, header.attempt, error)

    def _answer_unread(self, header: Header, attempt: int, error: DecodeError) -> None:
        """Answer a request that cannot be read, as nobody else would."""
        answer = to_unreadable_request(header, attempt, error)
        if answer is not None:
            self._node.send_to(header.origin, answer)


def _check_runner(message: BusMessage) -> None:
    """Refuse a message of one runner about another.

    Raises:
        DecodeError: It is one.
    """
    sender = message.origin.rpartition("#")[0]
    about = getattr(message, "runner", sender)
    if about != sender:
        what = f"a {type(message).__name__} about runner {about!r:.100}"
        raise DecodeError(f"{what} comes from {message.origin!r:.100}", "misattributed")
