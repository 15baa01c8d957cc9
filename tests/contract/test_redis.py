"""The transport contract over Redis Streams, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import anyio
import pytest
import redis

from actors.runs import redis_store as runs
from bus.brokers import RedisBroker
from bus.errors import PartlySentError
from bus.testing import TRANSPORT_CONTRACT, ContractNetwork, MakeNetwork, TransportCheck
from bus.transport import Outgoing
from bus.transports.redis_server import RIGHTS
from bus.transports.redis_streams import RedisTransport

pytestmark = pytest.mark.anyio

ACK_WAIT = 1.0
ROOT = Path(__file__).resolve().parents[2]

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


async def test_a_key_that_takes_no_frames_does_not_keep_the_others_from_being_stored(url: str) -> None:
    namespace = next(namespaces)
    with redis.Redis.from_url(url) as other:
        other.set(f"{namespace}:queue:broken", "not a stream")
    transport = RedisTransport(url, namespace=namespace, ack_wait=ACK_WAIT)
    await transport.open("node#1")
    transport.demand("work", 1)
    frames = [Outgoing("queue", name, name, name.encode()) for name in ("broken", "work")]
    with pytest.raises(PartlySentError, match="WRONGTYPE") as caught:
        await transport.send(frames)
    assert caught.value.missing == ("broken",)
    with anyio.fail_after(20):
        while not (deliveries := await transport.receive()):
            pass
    assert [delivery.body for delivery in deliveries] == [b"work"]
    await transport.close()


def test_the_documented_user_has_the_rights_that_are_tested() -> None:
    lines = (ROOT / "docs" / "redis-acl.conf").read_text("utf-8").splitlines()
    (user,) = (line for line in lines if not line.startswith("#"))
    user, _, rights = user.partition(" +select ")
    assert user == "user actorbus on >choose-one ~actorbus:* resetchannels -@all"
    assert set(rights.split()) == {*RIGHTS.split(), *runs.RIGHTS.split()}


async def test_the_documented_user_can_work() -> None:
    documented = (ROOT / "docs" / "redis-acl.conf").read_text("utf-8")
    with RedisBroker(documented) as broker:
        transport = RedisTransport(broker.url.replace("//", "//actorbus:choose-one@") + "/1")
        await transport.open("node#1")
        await transport.send([Outgoing("inbox", "node#1", "1", b"hello")])
        with anyio.fail_after(60):
            while not (received := await transport.receive()):
                pass
        assert [delivery.body for delivery in received] == [b"hello"]
        await transport.close()
