"""What waits in a queue that nobody serves is shown, and can be taken out, alike with every transport."""

from __future__ import annotations

import anyio
import pytest

from bus.testing import MakeNetwork
from bus.transport.transport import Outgoing, Settlement, Transport

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def claim(transport: Transport, many: int) -> list[bytes]:
    """Do so many jobs of the queue `work`."""
    done: list[bytes] = []
    with anyio.fail_after(60):
        while len(done) < many:
            transport.demand("work", 1)
            for delivery in await transport.receive():
                assert await transport.settle([(delivery, Settlement.ACK)]) == [True]
                done.append(delivery.body)
    transport.demand("work", 0)
    return done


async def test_g46_what_waits_is_shown_in_pages_and_can_be_taken_out(make_network: MakeNetwork) -> None:
    async with make_network(2) as network:
        one, other = network.transports.values()
        waiting = one.waiting("work")
        assert await waiting.oldest(10) == []
        await other.send([Outgoing("queue", "work", f"id-{number}", b"%d" % number) for number in range(5)])
        await other.send([Outgoing("queue", "elsewhere", "id-5", b"5")])
        first = await waiting.oldest(2)
        rest = await waiting.oldest(10, first[-1].place)
        assert [frame.body for frame in (*first, *rest)] == [b"0", b"1", b"2", b"3", b"4"]
        assert await waiting.oldest(10, rest[-1].place) == []
        await waiting.discard([first[0].place, rest[0].place])
        await waiting.discard([first[0].place])
        assert [frame.body for frame in await waiting.oldest(10)] == [b"1", b"3", b"4"]
        assert await claim(other, 3) == [b"1", b"3", b"4"]
        with anyio.fail_after(60):
            while await waiting.oldest(10):  # NATS is told, and confirms later
                await other.receive()
        (elsewhere,) = await one.waiting("elsewhere").oldest(10)
        await one.waiting("elsewhere").discard([elsewhere.place])


async def test_what_went_back_to_its_queue_is_shown_too(make_network: MakeNetwork) -> None:
    async with make_network(1) as network:
        (one,) = network.transports.values()
        await one.send([Outgoing("queue", "work", f"id-{number}", b"%d" % number) for number in range(2)])
        one.demand("work", 1)
        with anyio.fail_after(60):
            while not (deliveries := await one.receive()):
                pass
        one.demand("work", 0)
        assert await one.settle([(deliveries[0], Settlement.NAK)]) == [True]
        page = await one.waiting("work").oldest(1)
        rest = await one.waiting("work").oldest(10, page[0].place)
        assert [frame.body for frame in (*page, *rest)] == [b"0", b"1"]
        await one.waiting("work").discard([frame.place for frame in (*page, *rest)])
        assert await one.waiting("work").oldest(10) == []


@pytest.mark.parametrize("place", ["nonsense", "-1", "1-1", "*"])
async def test_a_place_that_is_none_is_refused_or_nowhere(make_network: MakeNetwork, place: str) -> None:
    async with make_network(1) as network:
        (one,) = network.transports.values()
        await one.send([Outgoing("queue", "work", "id", b"job")])
        try:
            assert await one.waiting("work").oldest(10, place) == []
        except ValueError as error:
            assert place in str(error)  # noqa: PT017 - either will do
        assert await claim(one, 1) == [b"job"]
