"""What the network side of a bus holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bus.claims import ClaimStatistics
from bus.connection import ConnectionStatistics
from bus.direct import DirectStatistics
from bus.fleet import FleetStatistics
from bus.freshness import FreshnessStatistics
from bus.outbox import OutboxStatistics
from bus.refusals import RefusalStatistics

if TYPE_CHECKING:
    from bus.network import NetworkBus


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


def statistics_of(bus: NetworkBus) -> NetworkStatistics:
    """The snapshot of a bus that was started."""
    return NetworkStatistics(
        len(bus._fleet.presence.peers),
        bus._outbox.statistics(),
        bus._claimer.claims.statistics(len(bus._claimer.introductions)),
        bus._direct.statistics(),
        bus._reader.refusals.statistics(),
        bus._reader.freshness.statistics(),
        bus._fleet.statistics(),
        bus.connection.statistics(),
        bus._pulse.blocked,
    )
