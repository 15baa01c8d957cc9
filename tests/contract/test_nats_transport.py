"""The transport contract on a real NATS server, as a user with the rights of docs/nats-permissions.conf."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from bus.brokers import NatsBroker
from bus.errors import TransportError
from bus.nats.transport import NatsTransport
from bus.testing import TRANSPORT_CONTRACT, TransportCheck
from bus.transport.transport import Delivery, Outgoing
from tests.contract.networks import NATS_PERMISSIONS, over_nats, url_of_a_worker

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture
def server() -> Iterator[NatsBroker]:
    with NatsBroker(NATS_PERMISSIONS) as server:
        yield server


@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda check: check.__name__)
async def test_a_nats_server_keeps_the_contract(check: TransportCheck, server: NatsBroker) -> None:
    await check(over_nats(server))


async def test_a_missing_right_is_named() -> None:
    lacking = NATS_PERMISSIONS.replace('subscribe: ["_INBOX.>", "actorbus.everyone", ', 'subscribe: ["_INBOX.>", ')
    with (
        NatsBroker(lacking) as server,
        pytest.raises(TransportError, match=r"a right that is needed.*actorbus\.everyone"),
    ):
        await NatsTransport(url_of_a_worker(server)).open("node#1")


async def test_wrong_credentials_are_named(server: NatsBroker) -> None:
    with pytest.raises(TransportError, match="Authorization Violation"):
        await NatsTransport(server.url).open("node#1")


async def test_direct_frames_are_handed_over_as_they_come_in_the_order_sent_by_either_way(server: NatsBroker) -> None:
    async with over_nats(server)(2) as network:
        (here, a), (there, b) = network.transports.items()
        assert isinstance(a, NatsTransport)
        assert isinstance(b, NatsTransport)
        got: list[Delivery] = []
        all_here = anyio.Event()

        def take(delivery: Delivery) -> None:
            got.append(delivery)
            if len(got) == 300:
                all_here.set()

        b.hand_over(take)
        sent = 0
        for number in range(300):
            frame = Outgoing("direct", there, str(number), b"%d" % number)
            if number % 3 and a.tell_at_once([frame]):
                sent += 1
            else:
                await a.tell([frame])
        with anyio.fail_after(30):
            await all_here.wait()
        assert sent > 100
        assert [(delivery.lane, delivery.body) for delivery in got] == [("direct", b"%d" % n) for n in range(300)]
        await a.close()
        assert not a.tell_at_once([Outgoing("direct", here, "late", b"")])
