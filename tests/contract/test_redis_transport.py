"""The transport contract over Redis Streams, on a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import anyio
import pytest
import redis

from actors.runs.stores import redis as runs
from bus.brokers import RedisBroker
from bus.errors import DataLostError, PartlySentError
from bus.redis.admin import RIGHTS
from bus.redis.queues import MOST_POLLED
from bus.redis.transport import RedisTransport
from bus.testing import TRANSPORT_CONTRACT, TransportCheck
from bus.transport.transport import Delivery, Outgoing, Settlement
from tests.contract.networks import ACK_WAIT, namespaces, over_redis, redis_of_a_worker
from tests.support.environment import ROOT

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


INSTALLED = shutil.which("redis-server")


class Installed(RedisBroker):
    """The `redis-server` of this machine, of whatever version; the wheel brings Valkey."""

    def _program(self) -> str:
        assert INSTALLED is not None
        return INSTALLED


SERVERS = {"valkey": RedisBroker, **({"redis": Installed} if INSTALLED else {})}


@pytest.fixture(scope="module", params=SERVERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server, as a user that may do nothing but what is said to be needed."""
    with redis_of_a_worker(SERVERS[request.param]) as (url, _):
        yield url


@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda check: check.__name__)
async def test_redis_streams_keep_the_contract(check: TransportCheck, url: str) -> None:
    await check(over_redis(url))


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


async def test_g46_a_queue_is_gone_with_the_last_who_served_it_unless_something_waits_in_it() -> None:
    keys: list[list[str]] = []
    with RedisBroker() as broker, redis.Redis.from_url(broker.url, decode_responses=True) as other:
        first, second = (RedisTransport(broker.url, ack_wait=ACK_WAIT) for _ in range(2))
        for number, transport in enumerate((first, second)):
            await transport.open(f"node#{number}")
            transport.demand("work", 1)
            transport.demand(f"own{number}", 1)
            await transport.receive()
        await first.send([Outgoing("queue", "later", "1", b"job")])
        for transport in (first, second):
            await transport.close()
            keys.append(sorted(key.partition(":")[2] for key in other.scan_iter("actorbus:[aq]*")))
    waiting = "queue:later"
    assert keys == [["again:own1", "again:work", waiting, "queue:own1", "queue:work"], [waiting]]


async def test_g46_the_queues_of_a_process_that_crashed_go_unless_something_waits_in_them_or_others_serve_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.redis.transport.FORGOTTEN_AFTER", 2.0)
    with RedisBroker() as broker, redis.Redis.from_url(broker.url, decode_responses=True) as other:
        crashed, alive = (RedisTransport(broker.url, ack_wait=0.2) for _ in range(2))
        for number, transport in enumerate((crashed, alive)):
            await transport.open(f"node#{number}")
            transport.demand("both", 1)
        for name in ("own", "waiting", *(f"generated{number}" for number in range(100))):
            crashed.demand(name, 1)
        await crashed.receive()
        for link in (crashed._reader, crashed._writer):
            await link.close()
        await alive.send([Outgoing("queue", "waiting", "1", b"job")])
        left = {f"actorbus:{kind}:{name}" for kind in ("queue", "again") for name in ("both", "waiting")}
        with anyio.fail_after(60):
            while set(other.scan_iter("actorbus:[abq]*:*")) != left:
                await alive.receive()
        alive.demand("waiting", 1)
        with anyio.fail_after(20):
            while not (deliveries := await alive.receive()):
                pass
        assert [delivery.body for delivery in deliveries] == [b"job"]
        await alive.close()
        await crashed.close()


async def test_g46_what_a_process_asked_for_that_crashed_goes_from_queues_that_nobody_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.redis.transport.FORGOTTEN_AFTER", 2.0)
    with RedisBroker() as broker, redis.Redis.from_url(broker.url, decode_responses=True) as other:
        addresses = ("crashed#0badcafe", "alive#00c0ffee", "server#00000001")
        crashed, alive, server = (RedisTransport(broker.url, ack_wait=0.2) for _ in range(3))
        for address, transport in zip(addresses, (crashed, alive, server), strict=True):
            await transport.open(address)
        server.demand("served", 1)
        await server.receive()
        for queue in ("served", "nobody", "empty"):
            await crashed.send([Outgoing("queue", queue, f"0badcafe-{ord(queue[0])}{n}", b"dead") for n in range(50)])
        for n in range(3):
            await alive.send([Outgoing("queue", "nobody", f"00c0ffee-{n}", b"wanted")])
        await alive.send([Outgoing("queue", "nobody", "of another make", b"wanted")])
        for link in (crashed._reader, crashed._writer):
            await link.close()
        with anyio.fail_after(60):
            while other.exists("actorbus:queue:empty") or other.xlen("actorbus:queue:nobody") > 4:
                for transport in (alive, server):
                    await transport.send([Outgoing("everyone", "", "", b"beat")])
                    await transport.receive()
        found = [fields["b"] for _, fields in other.xrange("actorbus:queue:nobody")]
        assert found == ["wanted"] * 4
        assert other.xlen("actorbus:queue:served") == 50, "who serves it looks after that"
        for transport in (alive, server, crashed):
            await transport.close()


async def test_who_is_to_be_told_of_frames_in_a_queue_is_told_also_after_another_who_served_it_crashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.redis.transport.FORGOTTEN_AFTER", 2.0)
    with RedisBroker() as broker:
        told, *others = (RedisTransport(broker.url, ack_wait=0.2) for _ in range(3))
        await told.open("node#0")
        for name in (*(f"hot{number}" for number in range(MOST_POLLED)), "work"):
            told.demand(name, 1)
        for number, other in enumerate(others, 1):
            for _ in range(4):  # for longer than who does nothing with a queue is remembered
                await told.receive()
            told.demand("work", 0)
            await other.open(f"node#{number}")
            other.demand("work", 1)
            await other.receive()
            for link in (other._reader, other._writer):
                await link.close()
        told.demand("work", 1)
        await told.send([Outgoing("queue", "work", "1", b"job")])
        deliveries: list[Delivery] = []
        with anyio.move_on_after(20):
            while not deliveries:
                deliveries += await told.receive()
        assert [delivery.body for delivery in deliveries] == [b"job"]
        for transport in (told, *others):
            await transport.close()


async def test_a_queue_that_comes_back_after_it_was_gone_is_served_as_ever(url: str) -> None:
    namespace = next(namespaces)
    first, second = (RedisTransport(url, namespace=namespace, ack_wait=ACK_WAIT) for _ in range(2))
    await first.open("node#1")
    await second.open("node#2")
    first.demand("work", 1)
    await first.receive()
    await first.close()
    await second.send([Outgoing("queue", "work", "1", b"job")])
    second.demand("work", 1)
    with anyio.fail_after(20):
        while not (deliveries := await second.receive()):
            pass
    assert [delivery.body for delivery in deliveries] == [b"job"]
    assert await second.settle([(deliveries[0], Settlement.ACK)]) == [True]
    await second.close()


async def test_who_was_away_for_so_long_that_its_inbox_was_dropped_is_told_once(url: str) -> None:
    namespace = next(namespaces)
    transport = RedisTransport(url, namespace=namespace, ack_wait=ACK_WAIT)
    await transport.open("node#1")
    await transport.receive()
    with redis.Redis.from_url(url) as other:
        other.delete(f"{namespace}:inbox:node#1")
    with anyio.fail_after(20):
        with pytest.raises(DataLostError, match="its inbox was dropped"):
            await _receive_for_ever(transport)
        await transport.send([Outgoing("inbox", "node#1", "1", b"hello")])
        while not (received := await transport.receive()):
            pass
    assert [delivery.body for delivery in received] == [b"hello"]
    await transport.close()


async def _receive_for_ever(transport: RedisTransport) -> None:
    while True:
        await transport.receive()


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
