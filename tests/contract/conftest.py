"""What all contracts share."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from bus.brokers import NatsBroker
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.simulation.network import Faults, SimulatedNetwork
from bus.testing import MakeNetwork
from tests.contract.networks import NATS_PERMISSIONS, over_links, over_nats, over_redis, redis_of_a_worker


@pytest.fixture(params=["memory", "simulated", "redis", "nats"])
def make_network(request: pytest.FixtureRequest) -> Iterator[MakeNetwork]:
    """A network of each kind. A server of Redis must be left without queues."""
    if request.param == "redis":
        with redis_of_a_worker() as (url, admin):
            yield over_redis(url)
            assert list(admin.scan_iter("*:queue:*")) == []
    elif request.param == "nats":
        with NatsBroker(NATS_PERMISSIONS) as server:
            yield over_nats(server)
    elif request.param == "simulated":
        simulated = SimulatedNetwork(Random(4), Faults(), MemoryBroker())
        yield over_links(simulated.transport, simulated.broker.ack_wait)
    else:
        memory = MemoryBroker()
        yield over_links(lambda _: MemoryTransport(memory), memory.ack_wait)
