"""What was given up on is kept, shown and thrown away alike by every transport."""

from __future__ import annotations

import time

import anyio
import pytest

from bus import KeepsDeadLetters, Outgoing, Settlement, Transport
from bus.testing import MakeNetwork

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def give_up(transport: Transport, queue: str, body: bytes) -> None:
    await transport.send([Outgoing("queue", queue, f"id-{body.decode()}", body)])
    transport.demand(queue, 1)
    with anyio.fail_after(60):
        while not (claims := await transport.receive()):
            pass
    assert await transport.settle([(claims[0], Settlement.TERM)]) == [True]


async def test_g36_what_was_given_up_is_listed_in_pages_and_discarded_once(make_network: MakeNetwork) -> None:
    async with make_network(2) as network:
        one, other = network.transports.values()
        assert isinstance(one, KeepsDeadLetters)
        assert isinstance(other, KeepsDeadLetters)
        assert await other.dead_frames.oldest(10) == []
        before = time.time()
        for number in range(5):
            await give_up(one, f"queue.{number % 2}", b"%d" % number)
        first = await other.dead_frames.oldest(2)
        rest = await other.dead_frames.oldest(10, first[-1].place)
        letters = [*first, *rest]
        assert [letter.body for letter in letters] == [b"0", b"1", b"2", b"3", b"4"]
        assert [letter.queue for letter in letters] == ["queue.0", "queue.1", "queue.0", "queue.1", "queue.0"]
        assert [letter.attempt for letter in letters] == [1] * 5
        assert all(abs(letter.died_at - before) < 3600 for letter in letters)
        assert all("given up" in letter.history[-1] for letter in letters)
        assert await other.dead_frames.oldest(10, letters[-1].place) == []
        assert [await other.dead_frames.discard(letters[1].place) for _ in range(2)] == [True, False]
        assert [letter.body for letter in await one.dead_frames.oldest(10)] == [b"0", b"2", b"3", b"4"]


@pytest.mark.parametrize("place", ["", "nonsense", "-1", "999999999", "1-1", "*"])
async def test_no_letter_is_found_under_a_place_that_is_none(make_network: MakeNetwork, place: str) -> None:
    async with make_network(1) as network:
        (transport,) = network.transports.values()
        assert isinstance(transport, KeepsDeadLetters)
        await give_up(transport, "work", b"poison")
        assert not await transport.dead_frames.discard(place)
        assert len(await transport.dead_frames.oldest(10)) == 1
        if place in {"nonsense", "-1", "*"}:
            with pytest.raises(ValueError, match="is not where a dead letter is kept"):
                await transport.dead_frames.oldest(10, place)
