"""Frames that were refused: they are counted by reason, and logged once for each sender and reason."""

from __future__ import annotations

import msgspec

from bus.errors import DecodeError, Refusal
from bus.log import log
from bus.transport.transport import Lane

MAX_LOGGED = 1000
"""Pairs of a sender and a reason that are logged: whoever invents senders fills this table, not the log."""

LONGEST_SENDER = 80
"""Characters of a sender that are remembered: an address has at most 73."""

_ADVICE: dict[Refusal, str] = {
    "unsigned": "give it the keys of this one: compare signing_key (or ACTORBUS_SIGNING_KEY) of both processes",
    "unknown_key": "compare signing_key (or ACTORBUS_SIGNING_KEY) of both processes",
    "altered": "the network or somebody on it changes frames",
    "misdirected": "the network or somebody on it moves frames",
    "replayed": "the network or somebody on it repeats old frames",
}


class RefusalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How many frames a process has refused since it started, by reason. Frames with two faults count under the first.

    Attributes:
        oversized: Of more bytes than `max_message_bytes`.
        malformed: Not frames: cut short, of another version, or with a header that cannot be read.
        unsigned: Without a signature, while this process has a key.
        unknown_key: Signed with a key that this process does not have, or while it has none.
        altered: Not what was signed.
        misdirected: Meant for another inbox, queue or lane than they came by.
        replayed: Taken before, or older than what is remembered.
        misattributed: About another runner than the one they come from.
        undecodable: Of a type, or with an object, that is unknown here or does not fit its class.
        undeliverable: Such that taking them in raised an error, which was logged with its traceback.
    """

    oversized: int = 0
    malformed: int = 0
    unsigned: int = 0
    unknown_key: int = 0
    altered: int = 0
    misdirected: int = 0
    replayed: int = 0
    misattributed: int = 0
    undecodable: int = 0
    undeliverable: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, name) for name in self.__struct_fields__)


class Refusals:
    """Counts refusals, and logs the first one of each sender and reason."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = dict.fromkeys(RefusalStatistics.__struct_fields__, 0)
        self._logged: dict[tuple[str, Refusal], None] = {}

    def add(self, error: DecodeError, lane: Lane) -> None:
        """Count a frame that was refused."""
        self._counts[error.reason] += 1
        sender = error.sender[:LONGEST_SENDER]
        if (sender, error.reason) in self._logged or len(self._logged) >= MAX_LOGGED:
            return
        self._logged[sender, error.reason] = None
        fields = {"reason": error.reason, "sender": sender, "lane": lane, "error": str(error)}
        advice = _ADVICE.get(error.reason)
        if advice is not None:
            fields["advice"] = advice
        log().warning("frame refused; further ones of this sender for this reason are only counted", **fields)
        if len(self._logged) == MAX_LOGGED:
            log().warning("frames of too many senders are refused: from now on they are only counted")

    def statistics(self) -> RefusalStatistics:
        """How many frames were refused so far."""
        return RefusalStatistics(**self._counts)
