"""The transport contract, on the in-memory broker and on the simulated network."""

from __future__ import annotations

import random
from typing import Any

import pytest
from trio.testing import MockClock

from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport
from bus.simulation.network import Faults, SimulatedNetwork
from bus.testing import (
    TRANSPORT_CONTRACT,
    TransportCheck,
    a_lost_claim_can_be_neither_renewed_nor_settled,
)
from tests.contract.networks import over_links

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Trio runs on a virtual clock, so that its leases can be as long as real ones."""
    return ("trio", {"clock": MockClock(autojump_threshold=0)}) if request.param == "trio" else ("asyncio", {})


@pytest.fixture
def ack_wait(anyio_backend_name: str) -> float:
    return 30.0 if anyio_backend_name == "trio" else 1.0


every_check = pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda check: check.__name__)


@every_check
async def test_the_in_memory_transport_keeps_the_contract(check: TransportCheck, ack_wait: float) -> None:
    broker = MemoryBroker(ack_wait=ack_wait)
    await check(over_links(lambda _: MemoryTransport(broker), ack_wait))


@every_check
@pytest.mark.parametrize(
    "faults", [Faults(), Faults(delay=(0.001, 0.02), duplicate=0.3)], ids=["no-faults", "delays-and-duplicates"]
)
async def test_the_simulated_network_keeps_the_contract(check: TransportCheck, faults: Faults, ack_wait: float) -> None:
    network = SimulatedNetwork(random.Random(4), faults, MemoryBroker(ack_wait=ack_wait))
    await check(over_links(network.transport, ack_wait))


async def test_the_contract_is_not_kept_by_a_broker_that_takes_late_acks(ack_wait: float) -> None:
    broker = MemoryBroker(ack_wait=ack_wait, fenced_ack=False)
    with pytest.raises(AssertionError, match=r"got \[True, False, False\]"):
        await a_lost_claim_can_be_neither_renewed_nor_settled(over_links(lambda _: MemoryTransport(broker), ack_wait))
