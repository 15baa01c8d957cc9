"""Which frames have come before: doubles of what is remembered are dropped, and what is older than that is refused."""

from __future__ import annotations

from collections import OrderedDict

from bus.codec import Header
from bus.errors import DecodeError
from bus.transport import Lane

SEEN = 10_000
"""Ids of frames remembered to drop doubles: more than a flush that is retried can hold."""

MAX_SENDERS = 4096
"""Senders of which is remembered how far their frames have been forgotten."""

_LONGEST_NUMBER = 18


class Freshness:
    """The frames that came by inbox and by `everyone`; those of queues are told by their claims.

    Frames of one life of a runner are numbered, and come by one lane in that order, but for what a retry doubles. So
    once the id of a frame is forgotten, no frame of that life and lane with a lower number can be new.

    Args:
        strict: Whether frames are signed. Where they are not, anybody could push the numbers of others up.
    """

    def __init__(self, *, strict: bool) -> None:
        self.doubles = 0
        self._strict = strict
        self._seen: OrderedDict[str, tuple[str, Lane, int]] = OrderedDict()
        self._forgotten: OrderedDict[tuple[str, Lane], int] = OrderedDict()

    def is_new(self, header: Header, lane: Lane) -> bool:
        """Whether a frame has not come before; it is remembered.

        Raises:
            DecodeError: It is older than what is remembered of its sender, or its id is not one of its sender's.
        """
        if header.id in self._seen:
            self.doubles += 1
            return False
        number = self._number(header, lane) if self._strict else 0
        self._seen[header.id] = (header.origin, lane, number)
        if len(self._seen) > SEEN:
            self._forget()
        return True

    def _number(self, header: Header, lane: Lane) -> int:
        life, _, text = header.id.rpartition("-")
        if not text.isdecimal() or len(text) > _LONGEST_NUMBER or header.origin.rpartition("#")[2] != life:
            raise DecodeError(f"the id {header.id!r:.100} is none of a frame from {header.origin!r:.100}", "malformed")
        number = int(text)
        if number <= self._forgotten.get((header.origin, lane), 0):
            raise DecodeError(f"frame {header.id} is older than {SEEN} others that came since", "replayed")
        return number

    def _forget(self) -> None:
        _, (origin, lane, number) = self._seen.popitem(last=False)
        if self._strict:
            key = (origin, lane)
            self._forgotten[key] = max(number, self._forgotten.pop(key, 0))
            if len(self._forgotten) > MAX_SENDERS:
                self._forgotten.popitem(last=False)
