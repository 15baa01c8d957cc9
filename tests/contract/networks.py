"""The networks that the contract of transports is tried on, as factories of nodes that are closed again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import count

import anyio
import redis

from bus.brokers import NatsBroker, RedisBroker
from bus.nats.transport import NatsTransport
from bus.redis.admin import RIGHTS
from bus.redis.transport import RedisTransport
from bus.testing import ContractNetwork, MakeNetwork
from bus.transport.transport import Transport
from tests.support.environment import ROOT

ACK_WAIT = 1.0
"""Seconds that a lease lasts on a real server."""

NATS_PERMISSIONS = (ROOT / "docs" / "nats-permissions.conf").read_text("utf-8")

namespaces = (f"test{number}" for number in count())


@asynccontextmanager
async def opened(transports: Mapping[str, Transport], ack_wait: float) -> AsyncGenerator[ContractNetwork]:
    """Nodes under their addresses, until the block is left, however that happens."""
    try:
        for address, transport in transports.items():
            await transport.open(address)
        yield ContractNetwork(transports, ack_wait)
    finally:
        with anyio.CancelScope(shield=True):
            for transport in transports.values():
                await transport.close()


def over_links(make_link: Callable[[str], Transport], ack_wait: float) -> MakeNetwork:
    """Nodes in this process, each with a link of its own."""

    def make_network(nodes: int) -> AbstractAsyncContextManager[ContractNetwork]:
        return opened({f"node{n}~1": make_link(f"node{n}") for n in range(nodes)}, ack_wait)

    return make_network


def over_redis(url: str) -> MakeNetwork:
    """Nodes on a Redis server, in a namespace that nobody has used."""

    def make_network(nodes: int) -> AbstractAsyncContextManager[ContractNetwork]:
        namespace = next(namespaces)
        links = {f"node{n}#1": RedisTransport(url, namespace=namespace, ack_wait=ACK_WAIT) for n in range(nodes)}
        return opened(links, ACK_WAIT)

    return make_network


def over_nats(server: NatsBroker) -> MakeNetwork:
    """Nodes on a NATS server that has `NATS_PERMISSIONS`."""

    @asynccontextmanager
    async def make_network(nodes: int) -> AsyncGenerator[ContractNetwork]:
        links = {f"node{n}#1": NatsTransport(url_of_a_worker(server), ack_wait=ACK_WAIT) for n in range(nodes)}
        try:
            async with opened(links, ACK_WAIT) as network:
                yield network
        finally:
            assert [link.statistics().errors for link in links.values()] == [0] * nodes, "a right is missing"

    return make_network


def url_of_a_worker(server: NatsBroker) -> str:
    """The server, as a user that may do nothing but what is said to be needed."""
    return server.url.replace("//", "//actorbus:choose-one@")


@contextmanager
def redis_of_a_worker(
    make_broker: Callable[[], RedisBroker] = RedisBroker, rights: str = RIGHTS
) -> Iterator[tuple[str, redis.Redis]]:
    """A server, as a user that may do nothing but what is said to be needed, and as one that may do all."""
    with make_broker() as broker, redis.Redis.from_url(broker.url) as admin:
        admin.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["test*"])
        admin.execute_command("ACL", "SETUSER", "worker", *rights.split())
        yield f"redis://worker:secret@127.0.0.1:{broker.port}", admin
