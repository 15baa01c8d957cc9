"""What the network side of a bus holds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bus.delivery.claims import ClaimStatistics
from bus.delivery.direct import DirectStatistics
from bus.errors import MailboxFullError
from bus.local.mailbox import Room
from bus.membership.membership import MembershipStatistics
from bus.messages import BusTopicMessage
from bus.transport.connection import ConnectionStatistics
from bus.transport.deduplication import DeduplicationStatistics
from bus.transport.outbox import OutboxStatistics
from bus.transport.refusals import RefusalStatistics

if TYPE_CHECKING:
    from bus.network.bus import NetworkBus


async def publish_elsewhere(bus: NetworkBus, message: BusTopicMessage) -> None:
    """Send what was published once to each other runner that has a follower.

    Raises:
        EncodeError: It is too big for a message.
        MailboxFullError: More waits to be sent to one of them than may, for 30 seconds; those before it get it.
    """
    for address in bus.registry.followers(message.topic):
        send = partial(_publish_to, bus, address, message)
        room = send()
        if room is not None:
            try:
                await bus._send_later(room, send)
            except MailboxFullError:
                if address in bus.registry.followers(message.topic):
                    raise


def _publish_to(bus: NetworkBus, address: str, message: BusTopicMessage) -> Room | None:
    """Send to one runner, unless its followers are gone. The room to wait for if there is none now."""
    if address not in bus.registry.followers(message.topic):
        return None
    room = bus._outbox.full("inbox", address)
    if room is None:
        bus.put("inbox", address, message, bounded=True)
    return room


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
    freshness: DeduplicationStatistics
    fleet: MembershipStatistics
    connection: ConnectionStatistics
    blocked: int


def statistics_of(bus: NetworkBus) -> NetworkStatistics:
    """The snapshot of a bus that was started."""
    return NetworkStatistics(
        len(bus._membership.liveness.peers),
        bus._outbox.statistics(),
        bus._leases.claims.statistics(len(bus._leases.informed)),
        bus._direct.statistics(),
        bus._inbox.refusals.statistics(),
        bus._inbox.deduplication.statistics(),
        bus._membership.statistics(),
        bus.connection.statistics(),
        bus._watchdog.blocked,
    )
