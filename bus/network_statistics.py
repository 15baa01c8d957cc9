"""What the network side of a bus holds."""

from __future__ import annotations

import msgspec

from bus.claims import ClaimStatistics
from bus.direct import DirectStatistics
from bus.outbox import OutboxStatistics
from bus.refusals import RefusalStatistics


class NetworkStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `NetworkBus`.

    Attributes:
        peers: Runners that are alive.
        outbox: What waits to be sent.
        claims: Jobs held for others.
        direct: Jobs asked of others at most once.
        refused: Frames that were not taken in, by reason.
        doubles: Frames that came a second time and were dropped, as networks do that try again.
    """

    peers: int
    outbox: OutboxStatistics
    claims: ClaimStatistics
    direct: DirectStatistics
    refused: RefusalStatistics
    doubles: int
