"""What the network side of a bus holds."""

from __future__ import annotations

import msgspec

from bus.claims import ClaimStatistics
from bus.connection import ConnectionStatistics
from bus.direct import DirectStatistics
from bus.fleet import FleetStatistics
from bus.freshness import FreshnessStatistics
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
        freshness: Which frames have come before.
        fleet: What is held of the other runners.
        connection: Whether it stands.
        blocked: How often the event loop was blocked for longer than about a heartbeat.
    """

    peers: int
    outbox: OutboxStatistics
    claims: ClaimStatistics
    direct: DirectStatistics
    refused: RefusalStatistics
    freshness: FreshnessStatistics
    fleet: FleetStatistics
    connection: ConnectionStatistics
    blocked: int
