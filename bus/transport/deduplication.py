"""Deduplication: frames that have come before are dropped, and those older than what is remembered are refused."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from bus.errors import DecodeError
from bus.transport.transport import Lane
from bus.wire.codec import Header

SEEN = 10_000
"""Ids of frames that are remembered: more than a flush that is tried again can hold."""

MAX_SENDERS = 4096
"""Senders for which the highest number of a forgotten frame is remembered."""

_LONGEST_NUMBER = 18

_Sender = tuple[str, Lane]
_Mark = tuple[_Sender, int]
_UNMARKED: _Mark = (("", "inbox"), 0)


class DeduplicationStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Deduplication`.

    Attributes:
        doubles: Frames that were dropped because they came a second time, as they do where a network tries again.
        seen: Ids of frames that are remembered (at most 10,000).
        senders: Senders for which the highest number of a forgotten frame is remembered (at most 4,096).
    """

    doubles: int
    seen: int
    senders: int


class Deduplication:
    """Remembers the frames that came by every lane but queues, whose doubles are recognised by their claims.

    The frames of one life of a runner are numbered, and come by one lane in that order, except where a retry doubles
    them. So once the id of a frame is forgotten, no frame of that life and lane with a lower number can be new.

    Args:
        strict: Whether older frames are refused, which needs signatures: without, anybody could raise the number of
            another sender.
    """

    def __init__(self, *, strict: bool) -> None:
        self.doubles = 0
        self._strict = strict
        self._seen: OrderedDict[str, _Mark] = OrderedDict()
        self._forgotten: OrderedDict[_Sender, int] = OrderedDict()

    def statistics(self) -> DeduplicationStatistics:
        """What is remembered now."""
        return DeduplicationStatistics(self.doubles, len(self._seen), len(self._forgotten))

    def is_new(self, header: Header, lane: Lane) -> bool:
        """Whether a frame has not come before. It is remembered from now on.

        Raises:
            DecodeError: It is older than what is remembered of its sender, or its id is none of its sender.
        """
        if header.id in self._seen:
            self.doubles += 1
            return False
        self._seen[header.id] = self._mark(header, lane) if self._strict else _UNMARKED
        if len(self._seen) > SEEN:
            _, (sender, number) = self._seen.popitem(last=False)
            if self._strict and number > self._forgotten.get(sender, 0):
                self._forgotten[sender] = number
                if len(self._forgotten) > MAX_SENDERS:
                    self._forgotten.popitem(last=False)
        return True

    def _mark(self, header: Header, lane: Lane) -> _Mark:
        life, _, text = header.id.rpartition("-")
        if not text.isdecimal() or len(text) > _LONGEST_NUMBER or header.origin.rpartition("#")[2] != life:
            raise DecodeError(f"the id {header.id!r:.100} is none of a frame from {header.origin!r:.100}", "malformed")
        sender, number = (header.origin, lane), int(text)
        if number <= self._forgotten.get(sender, 0):
            raise DecodeError(f"frame {header.id} is older than {SEEN} others that came since", "replayed")
        return sender, number
