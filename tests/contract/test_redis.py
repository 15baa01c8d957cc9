"""The transport contract over Redis Streams, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest

from bus.testing import TRANSPORT_CONTRACT, ContractNetwork, MakeNetwork, TransportCheck
from bus.transports.redis_streams import RedisTransport
from tests.brokers import ValkeyBroker, valkey

pytestmark = pytest.mark.anyio

ACK_WAIT = 1.0

namespaces = (f"test{number}" for number in count())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyBroker]:
    with valkey(tmp_path_factory.mktemp("valkey")) as broker:
        yield broker


def over(broker: ValkeyBroker) -> MakeNetwork:
    @asynccontextmanager
    async def make_network(nodes: int) -> AsyncIterator[ContractNetwork]:
        namespace = next(namespaces)
        transports = {
            f"node{n}#1": RedisTransport(broker.url, namespace=namespace, ack_wait=ACK_WAIT) for n in range(nodes)
        }
        for address, transport in transports.items():
            await transport.open(address)
        try:
            yield ContractNetwork(transports, ACK_WAIT)
        finally:
            with anyio.CancelScope(shield=True):
                for transport in transports.values():
                    await transport.close()

    return make_network


@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda check: check.__name__)
async def test_redis_streams_keep_the_contract(check: TransportCheck, broker: ValkeyBroker) -> None:
    await check(over(broker))
