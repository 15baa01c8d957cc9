"""Topics on a fleet: what is published reaches the followers on other runners, one scenario each."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from actors import BaseWorker, subscribe
from actors.testing import Faults, Simulation
from bus import EncodeError, MailboxFullError, NetworkBus
from bus.network.session import Session
from tests.simulation.fleet import run

ADAPTING = 3.0
"""Seconds in which runners learn of each other's workers, without faults."""


class Reader(BaseWorker):
    """Keeps the news."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.read: list[Any] = []
        self.gate = anyio.Event()
        self.gate.set()

    @subscribe("news")
    async def news(self, data: Any) -> None:
        await self.gate.wait()
        self.read.append(data)


def test_g44_what_is_published_reaches_each_follower_of_the_fleet_and_no_other_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put, sent = Session.put, []

    def seen(session: Session, lane: Any, to: str, message: Any, *arguments: Any, **options: Any) -> str:
        if type(message).__name__ == "BusTopicMessage":
            sent.append((lane, to.partition("#")[0]))
        return put(session, lane, to, message, *arguments, **options)

    async def program(sim: Simulation) -> None:
        writer, here = BaseWorker("writer"), Reader("here")
        there = [Reader("there"), Reader("too")]
        replica = Reader("there")
        await sim.start("a", writer, here)
        await sim.start("b", *there)
        await sim.start("c", replica)
        await sim.start("d", BaseWorker("deaf"))
        await anyio.sleep(ADAPTING)
        for number in range(20):
            assert await writer.publish("news", number) == 1
        assert await writer.publish("sports", 0) == 0
        await anyio.sleep(ADAPTING)
        for reader in (here, *there, replica):
            assert reader.read == list(range(20))
        assert sent == [("inbox", "b"), ("inbox", "c")] * 20
        assert sim.bus("d").statistics().undeliverable == 0

    monkeypatch.setattr(Session, "put", seen)
    run(program)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_worker_publishes_arrives_in_order_and_once_over_a_bad_network(seed: int) -> None:
    async def program(sim: Simulation) -> None:
        writers, readers = [BaseWorker("ann"), BaseWorker("bob")], {"b": Reader("near"), "c": Reader("far")}
        await sim.start("a", *writers)
        for runner, reader in readers.items():
            await sim.start(runner, reader)

        def known() -> set[str]:
            return {address.partition("#")[0] for address in sim.bus("a").registry.followers("news")}

        with anyio.fail_after(500):
            while known() != set(readers):  # noqa: ASYNC110 - nothing tells of it
                await anyio.sleep(1)
        published: dict[str, list[Any]] = {runner: [] for runner in readers}
        for number in range(50):
            for writer in writers:
                for runner in known():  # whose signs of life are lost is nobody's follower for a moment
                    published[runner].append((writer.name, number))
                await writer.publish("news", (writer.name, number))
            if number % 10 == 0:
                await anyio.sleep(1)
        await anyio.sleep(120)
        for runner, reader in readers.items():
            assert len(published[runner]) > 20
            for writer in writers:
                read = [each for each in reader.read if each[0] == writer.name]
                assert read == [each for each in published[runner] if each[0] == writer.name]

    run(program, seed, faults=Faults(drop=0.1, duplicate=0.2, delay=(0.01, 0.3)))


def test_g28_a_follower_whose_runner_died_and_came_back_hears_again() -> None:
    async def program(sim: Simulation) -> None:
        writer, first, second = BaseWorker("writer"), Reader("reader"), Reader("reader")
        await sim.start("a", writer)
        await sim.start("b", first)
        await anyio.sleep(ADAPTING)
        await writer.publish("news", 1)
        await anyio.sleep(ADAPTING)
        sim.crash("b")
        await writer.publish("news", 2)
        await anyio.sleep(10)
        assert writer.registry.followers("news") == ()
        await writer.publish("news", 3)
        await sim.start("b", second)
        await anyio.sleep(ADAPTING)
        await writer.publish("news", 4)
        await anyio.sleep(ADAPTING)
        assert (first.read, second.read) == ([1], [4])

    run(program)


def test_a_worker_that_is_removed_hears_no_more_and_costs_nothing() -> None:
    async def program(sim: Simulation) -> None:
        writer, reader, other = BaseWorker("writer"), Reader("reader"), Reader("other")
        await sim.start("a", writer)
        there = await sim.start("b", reader, other)
        await anyio.sleep(ADAPTING)
        await there.remove_worker("reader")
        await anyio.sleep(ADAPTING)
        await writer.publish("news", 1)
        await anyio.sleep(ADAPTING)
        assert (reader.read, other.read) == ([], [1])
        await there.remove_worker("other")
        await writer.publish("news", 2)  # on its way when the last one is gone: dropped where it arrives
        await anyio.sleep(ADAPTING)
        assert sim.bus("b").statistics().undeliverable == 1
        assert writer.registry.followers("news") == ()
        assert writer.registry.statistics().topics == 0
        sent = sim.bus("a").network_statistics().outbox.sent
        await writer.publish("news", 3)
        assert sim.bus("a").network_statistics().outbox.frames == 0
        assert sim.bus("a").network_statistics().outbox.sent == sent

    run(program)


def test_who_joins_later_learns_who_follows_what_from_the_list_even_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        writer, readers = BaseWorker("writer"), [Reader(f"reader-{number}") for number in range(100)]
        await sim.start("b", *readers)
        await anyio.sleep(30)
        await sim.start("a", writer)
        await anyio.sleep(10)
        await writer.publish("news", 1)
        await anyio.sleep(ADAPTING)
        assert all(reader.read == [1] for reader in readers)

    monkeypatch.setattr("bus.NetworkBus", partial(NetworkBus, max_message_bytes=2**13))
    run(program)


def test_a_list_of_workers_with_many_topics_fits_into_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        topics = [f"{number:03d}-{'x' * 60}" for number in range(99)]
        writer, readers = BaseWorker("writer"), [_follower_of(topics)(f"reader-{number}") for number in range(30)]
        await sim.start("b", *readers)
        await sim.start("a", writer)
        await anyio.sleep(10)
        await writer.publish(topics[98], "all")
        await anyio.sleep(ADAPTING)
        assert [reader.read for reader in readers] == [["all"]] * 30
        assert writer.registry.statistics().topics == 100
        assert sim.bus("a").network_statistics().refused.total == 0

    monkeypatch.setattr("bus.NetworkBus", partial(NetworkBus, max_message_bytes=2**14))
    run(program)


def _follower_of(topics: list[str]) -> type[Reader]:
    def method() -> Any:
        async def follow(self: Reader, data: Any) -> None:
            self.read.append(data)

        return follow

    methods = {f"on_{number}": subscribe(topic)(method()) for number, topic in enumerate(topics)}
    return type("Follower", (Reader,), methods)


def test_g47_a_follower_elsewhere_that_reads_nothing_drops_beyond_a_bound_and_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Narrow(Reader):
        mailbox_size = 10

    async def program(sim: Simulation) -> None:
        writer, narrow, quick = BaseWorker("writer"), Narrow("narrow"), Reader("quick")
        narrow.gate = anyio.Event()
        await sim.start("a", writer)
        await sim.start("b", narrow, quick)
        await anyio.sleep(ADAPTING)
        for number in range(100):
            await writer.publish("news", number)
        await anyio.sleep(5)
        dropped = sim.bus("b").statistics().undeliverable
        assert dropped == pytest.approx(100 - 10 - 20, abs=2)
        narrow.gate.set()
        await anyio.sleep(5)
        assert narrow.read == list(range(100 - dropped))
        assert quick.read == list(range(100))

    monkeypatch.setattr("bus.network.inbox.EXCESS", 20)
    run(program)


def test_g25_a_publisher_waits_while_too_much_is_to_be_sent_to_a_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        writer, reader = BaseWorker("writer"), Reader("reader")
        await sim.start("a", writer)
        await sim.start("b", reader)
        await anyio.sleep(ADAPTING)
        sim.partition("a")
        for number in range(50):
            await writer.publish("news", number)
        began = sim.now
        with pytest.raises(MailboxFullError):
            await writer.publish("news", "too much")
        assert sim.now - began == pytest.approx(10.0)
        sim.heal("a")
        await writer.publish("news", 50)
        await anyio.sleep(60)
        assert reader.read == list(range(51))

    monkeypatch.setattr("bus.transport.outbox.CAPACITY", 50)
    monkeypatch.setattr("bus.local.bus.SEND_TIMEOUT", 10.0)  # well before who is cut off takes all others for dead
    run(program)


def test_a_publisher_that_waits_for_a_runner_goes_on_when_that_one_is_known_to_be_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(sim: Simulation) -> None:
        writer, reader, other = BaseWorker("writer"), Reader("reader"), Reader("other")
        await sim.start("a", writer)
        await sim.start("b", reader)
        await sim.start("c", other)
        await anyio.sleep(ADAPTING)
        sim.crash("b")
        for number in range(40):
            await writer.publish("news", number)
        await anyio.sleep(30)
        assert other.read == list(range(40))

    monkeypatch.setattr("bus.transport.outbox.CAPACITY", 15)
    monkeypatch.setattr("bus.memory.broker.INBOX_BOUND", 10)
    run(program)


def test_who_ends_while_a_publisher_waits_for_another_runner_is_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        writer, slow, gone = BaseWorker("writer"), Reader("slow"), Reader("gone")
        await sim.start("a", writer)
        await sim.start("b", slow)
        await sim.start("c", gone)
        await anyio.sleep(ADAPTING)
        async with anyio.create_task_group() as tasks:
            sim.crash("b")
            tasks.start_soon(_publish, writer, 30)
            await anyio.sleep(ADAPTING)
            read = list(gone.read)
            assert 0 < len(read) < 30
            address = sim.bus("c").address
            await sim.end("c")
            put = Session.put
            sent = []

            def seen(session: Session, lane: Any, to: str, *arguments: Any, **options: Any) -> str:
                sent.append(to)
                return put(session, lane, to, *arguments, **options)

            monkeypatch.setattr(Session, "put", seen)
        assert address not in sent

    monkeypatch.setattr("bus.transport.outbox.CAPACITY", 10)
    monkeypatch.setattr("bus.memory.broker.INBOX_BOUND", 10)
    run(program)


async def _publish(writer: BaseWorker, count: int) -> None:
    for number in range(count):
        await writer.publish("news", number)


def test_what_is_too_big_for_the_network_reaches_nobody() -> None:
    async def program(sim: Simulation) -> None:
        writer, here, there = BaseWorker("writer"), Reader("here"), Reader("there")
        await sim.start("a", writer, here)
        await sim.start("b", there)
        await anyio.sleep(ADAPTING)
        with pytest.raises(EncodeError, match="max_message_bytes"):
            await writer.publish("news", b"x" * 2**20)
        await anyio.sleep(ADAPTING)
        assert here.read == there.read == []

    run(program)
