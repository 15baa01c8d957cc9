"""The reader: takes what comes from the network, refuses what must not be read, and hands the rest over."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from bus.answers import for_unreadable_event, to_unreadable_request
from bus.codec import Header, decode, decode_header
from bus.errors import DecodeError
from bus.events import log, text_of
from bus.messages import (
    JOB_TALK,
    RUNNER_MESSAGES,
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobRequestMessage,
    BusJobReturnedMessage,
    BusMessage,
)
from bus.transport import Delivery, Lane, Settlement

if TYPE_CHECKING:
    from bus.claimer import Claimer
    from bus.direct import Direct
    from bus.fleet import Fleet
    from bus.network import NetworkBus

SEEN = 10_000
"""Ids of frames remembered to drop doubles: more than a flush that is retried can hold."""


class Reader:
    """Reads frames for a bus. A frame that cannot be read is counted and answered for; it never stops the reader."""

    def __init__(
        self, bus: NetworkBus, claimer: Claimer, direct: Direct, fleet: Fleet, *, max_message_bytes: int
    ) -> None:
        self.malformed = 0
        self._bus = bus
        self._claimer = claimer
        self._direct = direct
        self._fleet = fleet
        self._max_bytes = max_message_bytes
        self._seen: OrderedDict[str, None] = OrderedDict()

    def read(self, delivery: Delivery) -> None:
        """Take in one frame."""
        try:
            self._arrived(delivery)
        except DecodeError as error:
            self._refused(delivery, error)
        except Exception as error:  # noqa: BLE001 - one bad message must not stop the reader
            log().error("message could not be delivered", error=text_of(error), exc_info=True)
            self._refused(delivery, DecodeError(text_of(error)))

    def _refused(self, delivery: Delivery, error: DecodeError) -> None:
        self.malformed += 1
        log().warning("frame refused", lane=delivery.lane, error=str(error))
        if delivery.lane == "queue":
            self._claimer.settle(delivery, Settlement.TERM, self._bus.tasks.now())

    def _arrived(self, delivery: Delivery) -> None:
        header, body = decode_header(delivery.body, max_message_bytes=self._max_bytes)
        now = self._bus.tasks.now()
        if delivery.lane == "queue":
            self._claimer.claimed(self._request(header, body, delivery), delivery, now)
            return
        if header.id in self._seen:
            return
        self._seen[header.id] = None
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        if header.origin == self._bus.address:
            self._fleet.presence.heard_self(now)
            return
        try:
            message = decode(header, body)
        except DecodeError as error:
            self._unreadable(header, delivery.lane, error)
            raise
        message.origin = header.origin
        message.destination = ""
        self._hand_on(message, delivery.lane, now)

    def _hand_on(self, message: BusMessage, lane: Lane, now: float) -> None:
        """Give a message to whom it concerns."""
        if isinstance(message, BusJobRequestMessage):
            if lane != "direct":
                raise DecodeError("a job request comes by the queue of its worker, or straight")
            self._claimer.asked(message, now)
        elif isinstance(message, RUNNER_MESSAGES):
            self._fleet.heard(message, now)
        elif message.target is None:
            self._bus.hand_out(message)
        elif isinstance(message, BusJobInquiryMessage):
            self._claimer.inquired(message)
        elif isinstance(message, BusJobReturnedMessage):
            self._direct.returned(message)
        else:
            if isinstance(message, BusJobCancelMessage):
                self._claimer.forbid(message, message.origin)
            elif isinstance(message, JOB_TALK):
                self._direct.heard(message, now)
            self._bus.deliver(message)

    def _request(self, header: Header, body: memoryview, delivery: Delivery) -> BusJobRequestMessage:
        try:
            message = decode(header, body)
        except DecodeError as error:
            self._answer_unread(header, delivery.attempt, error)
            raise
        if not isinstance(message, BusJobRequestMessage) or message.target != delivery.queue:
            raise DecodeError(f"a {type(message).__name__} for {message.target!r} in the queue of {delivery.queue!r}")
        message.origin = header.origin
        return message

    def _unreadable(self, header: Header, lane: Lane, error: DecodeError) -> None:
        """End the job that waits for what cannot be read."""
        answer = for_unreadable_event(header, error)
        if answer is not None:
            self._direct.heard(answer, self._bus.tasks.now())
            self._bus.deliver(answer)
        elif lane == "direct" and header.type == BusJobRequestMessage.__name__:
            self._answer_unread(header, 1, error)

    def _answer_unread(self, header: Header, attempt: int, error: DecodeError) -> None:
        """Answer a request that cannot be read: nobody else would."""
        answer = to_unreadable_request(header, attempt, error)
        if answer is not None:
            self._bus.send_to(header.origin, answer)
