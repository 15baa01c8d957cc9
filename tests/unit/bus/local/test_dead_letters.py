"""Jobs that were given up on are kept, can be looked at, and can be done again."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from actors import BaseWorker, Client, JobError, WorkerRunner, job
from bus import DEAD_LETTERED, DeadLetter, Delivery, NetworkBus, Outgoing, Settlement
from bus.memory.broker import MemoryBroker
from bus.memory.transport import MemoryTransport

pytestmark = pytest.mark.anyio


class Fickle(BaseWorker):
    ill = True

    @job
    async def work(self, text: str) -> str:
        return text.upper()


class Impatient(MemoryTransport):
    """Says of every job that it has died of it twice."""

    async def receive(self) -> list[Delivery]:
        return [
            Delivery(each.lane, each.queue, each.body, each.attempt + 2 * Fickle.ill, each.token)
            for each in await super().receive()
        ]

    async def settle(self, settlements: Sequence[tuple[Delivery, Settlement]]) -> Sequence[bool]:
        return await super().settle(
            [(replace(delivery, attempt=delivery.token.attempt), how) for delivery, how in settlements]  # type: ignore[attr-defined]
        )


async def given_up(client: Client, text: str) -> DeadLetter:
    with pytest.raises(JobError) as caught:
        await client.request("fickle", text, name="work", timeout=60)
    assert caught.value.error is not None
    assert caught.value.error.type == DEAD_LETTERED
    with anyio.fail_after(60):
        while not (letters := await client.dead_letters.oldest()):
            await anyio.lowlevel.checkpoint()
    return letters[-1]


async def test_g36_a_job_that_was_given_up_is_listed_inspected_and_done_again() -> None:
    broker = MemoryBroker()
    Fickle.ill = True
    bus = NetworkBus(Impatient(broker), max_deliver=2)
    async with (
        WorkerRunner("home", bus) as runner,
        Client(NetworkBus(MemoryTransport(broker)), name="boss") as client,
    ):
        await runner.add_workers(Fickle("fickle"))
        letter = await given_up(client, "poison")
        assert (letter.worker_name, letter.job_name, letter.requester) == ("fickle", "work", "boss")
        assert (letter.payload, letter.problem, letter.attempts) == ("poison", None, 1)
        assert await client.dead_letters.get(letter.id) == letter
        assert await client.dead_letters.oldest(worker_name="other") == []

        with pytest.raises(JobError):  # given up again: a letter of its own in place of the first
            await client.requeue(letter.id, timeout=60)
        with anyio.fail_after(60):
            while [each.id for each in await client.dead_letters.oldest()] == [letter.id]:
                await anyio.lowlevel.checkpoint()
        (second,) = await client.dead_letters.oldest()
        assert second.id != letter.id
        Fickle.ill = False
        assert await client.requeue(second.id, timeout=60) == "POISON"
        assert await client.dead_letters.oldest() == []


async def test_a_letter_stays_when_its_job_is_not_done_again_and_can_be_purged() -> None:
    broker = MemoryBroker()
    Fickle.ill = True
    async with Client(NetworkBus(MemoryTransport(broker)), name="boss") as client:
        async with WorkerRunner("home", NetworkBus(Impatient(broker), max_deliver=2)) as runner:
            await runner.add_workers(Fickle("fickle"))
            letter = await given_up(client, "poison")
        with pytest.raises(JobError):
            await client.requeue(letter.id, timeout=1)
        assert await client.dead_letters.get(letter.id) == letter
        assert [await client.dead_letters.purge(worker_name=name) for name in ("other", "fickle", "fickle")] == [
            0,
            1,
            0,
        ]
        with pytest.raises(ValueError, match="there is none of that id"):
            await client.requeue(letter.id)


async def test_a_letter_that_is_no_job_says_why() -> None:
    broker = MemoryBroker()
    async with (
        Client(NetworkBus(MemoryTransport(broker))) as client,
        WorkerRunner(bus=NetworkBus(MemoryTransport(broker))) as runner,
    ):
        await runner.add_workers(Fickle("fickle"))
        sender = MemoryTransport(broker)
        await sender.open("stranger#1")
        await sender.send([Outgoing("queue", "fickle", "x", b"rubbish")])
        with anyio.fail_after(60):
            while not (letters := await client.dead_letters.oldest()):
                await anyio.lowlevel.checkpoint()
        assert letters[0].problem is not None
        assert letters[0].payload is None
        with pytest.raises(ValueError, match="it cannot be read"):
            await client.requeue(letters[0].id)
        assert await client.dead_letters.discard(letters[0].id)


async def test_within_one_process_there_are_none() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        assert await client.dead_letters.oldest() == []
        assert not await client.dead_letters.discard("1")
        assert await client.dead_letters.purge() == 0
