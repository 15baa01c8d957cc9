"""What the network side of a bus holds."""

from __future__ import annotations

import msgspec

from bus.claims import ClaimStatistics
from bus.direct import DirectStatistics
from bus.outbox import OutboxStatistics


class NetworkStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `NetworkBus`.

    Attributes:
        peers: Runners that are alive.
        outbox: What waits to be sent.
        claims: Jobs held for others.
        direct: Jobs asked of others at most once.
        malformed: Frames that were unreadable.
    """

    peers: int
    outbox: OutboxStatistics
    claims: ClaimStatistics
    direct: DirectStatistics
    malformed: int
