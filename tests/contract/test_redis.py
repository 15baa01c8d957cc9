"""The transport contract over Redis Streams, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest
import redis

from bus.brokers import RedisBroker
from bus.testing import TRANSPORT_CONTRACT, ContractNetwork, MakeNetwork, TransportCheck
from bus.transports.redis_server import RIGHTS
from bus.transports.redis_streams import RedisTransport

pytestmark = pytest.mark.anyio

ACK_WAIT = 1.0

namespaces = (f"test{number}" for number in count())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server, as a user that may do nothing but what is said to be needed."""
    with RedisBroker() as broker, redis.Redis.from_url(broker.url) as admin:
        admin.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["test*"])
        admin.execute_command("ACL", "SETUSER", "worker", *RIGHTS.split())
        yield f"redis://worker:secret@127.0.0.1:{broker.port}"


def over(url: str) -> MakeNetwork:
    @asynccontextmanager
    async def make_network(nodes: int) -> AsyncIterator[ContractNetwork]:
        namespace = next(namespaces)
        transports = {f"node{n}#1": RedisTransport(url, namespace=namespace, ack_wait=ACK_WAIT) for n in range(nodes)}
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
async def test_redis_streams_keep_the_contract(check: TransportCheck, url: str) -> None:
    await check(over(url))
