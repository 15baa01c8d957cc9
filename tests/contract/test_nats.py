"""The transport contract on a real NATS server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest

from bus.testing import TRANSPORT_CONTRACT, ContractNetwork, MakeNetwork, TransportCheck
from bus.transports.jetstream import JetStreamTransport
from tests.nats_server import NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

ACK_WAIT = 1.0

namespaces = count()


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


def over(server: NatsServer) -> MakeNetwork:
    @asynccontextmanager
    async def make_network(nodes: int) -> AsyncIterator[ContractNetwork]:
        namespace = f"contract.{next(namespaces)}"
        transports = {
            f"node{n}#1": JetStreamTransport(server.url, namespace=namespace, ack_wait=ACK_WAIT) for n in range(nodes)
        }
        try:
            for address, transport in transports.items():
                await transport.open(address)
            yield ContractNetwork(transports, ACK_WAIT)
        finally:
            with anyio.CancelScope(shield=True):
                for transport in transports.values():
                    await transport.close()

    return make_network


@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda check: check.__name__)
async def test_a_nats_server_keeps_the_contract(check: TransportCheck, server: NatsServer) -> None:
    await check(over(server))
