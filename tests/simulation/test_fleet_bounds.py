"""What a fleet does at its bounds: full inboxes, much news, many workers: one scenario each."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import anyio
import pytest

from actors import BaseWorker, JobError
from actors.testing import Simulation
from bus import BusDataMessage, NetworkBus, register_message
from bus.simulation.network import SimulatedTransport
from bus.transport.transport import Delivery
from tests.simulation import fleet
from tests.simulation.fleet import run


class Worker(fleet.Worker):
    """It also listens."""

    def __init__(self, name: str, *, limit: int = 16) -> None:
        super().__init__(name, limit=limit)
        self.heard: list[int] = []

    async def on_bus_message(self, message: Any) -> None:
        if isinstance(message, Number):
            self.heard.append(message.number)
        else:
            await super().on_bus_message(message)


@register_message
class Number(BusDataMessage, kw_only=True):
    """A message of a user's own."""

    number: int


def test_g47_an_inbox_that_is_full_holds_up_nothing_that_goes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        boss, slow, quick = BaseWorker("boss"), Worker("slow"), Worker("quick")
        await sim.start("a", boss)
        await sim.start("b", slow)
        await sim.start("c", quick)
        await anyio.sleep(3)
        sim.partition("b")
        for number in range(120):
            await boss.bus.send(Number(source="boss", target="slow", number=number))
        for payload in range(3):
            with anyio.fail_after(1):
                assert await boss.job("quick", name="echo", payload=payload) == payload
        assert sim.bus("a").network_statistics().outbox.held >= 20
        sim.heal("b")
        await anyio.sleep(20)
        assert slow.heard == list(range(120))
        assert sim.bus("a").network_statistics().outbox.held == 0

    monkeypatch.setattr("bus.memory.broker.INBOX_BOUND", 100)
    run(program)


def test_g47_messages_that_nobody_asked_for_are_dropped_and_counted_beyond_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Busy(Worker):
        def __init__(self) -> None:
            super().__init__("busy")
            self.mailbox_size = 10
            self.gate = anyio.Event()

        async def on_bus_message(self, message: Any) -> None:
            await self.gate.wait()
            await super().on_bus_message(message)

    async def program(sim: Simulation) -> None:
        boss, busy = BaseWorker("boss"), Busy()
        await sim.start("a", boss)
        await sim.start("b", busy)
        await anyio.sleep(3)
        for number in range(100):
            await boss.bus.send(Number(source="boss", target="busy", number=number))
        await anyio.sleep(5)
        dropped = sim.bus("b").statistics().undeliverable
        assert dropped == pytest.approx(100 - 10 - 20, abs=2)
        busy.gate.set()
        await anyio.sleep(5)
        assert busy.heard == list(range(100 - dropped))
        assert await boss.job("busy", name="echo", payload=1) == 1

    monkeypatch.setattr("bus.network.inbox.EXCESS", 20)
    run(program)


def test_a_list_of_workers_that_is_too_long_for_a_message_travels_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        names = [f"worker-{number:05d}-{'x' * 50}" for number in range(3000)]
        await sim.start("b", *(Worker(name) for name in names))
        await sim.start("a", boss)
        await anyio.sleep(10)
        assert len(boss.registry.remote_workers) == len(names)
        assert await boss.job(names[-1], name="echo", payload=1) == 1
        statistics = sim.bus("a").network_statistics()
        assert statistics.refused.total == 0
        assert statistics.fleet.lists == 0

    monkeypatch.setattr("bus.NetworkBus", partial(NetworkBus, max_message_bytes=2**16))
    run(program)


def test_g27_a_runner_whose_beats_are_lost_is_asked_before_it_counts_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        boss, worker = BaseWorker("boss"), Worker("w")
        await sim.start("a", boss)
        await sim.start("b", worker)
        await anyio.sleep(3)
        carry = SimulatedTransport._carry

        def carry_few_beats(transport: SimulatedTransport, delivery: Delivery) -> None:
            own = f"{transport.label}#".encode() in delivery.body
            if own or delivery.lane != "everyone":
                carry(transport, delivery)

        monkeypatch.setattr(SimulatedTransport, "_carry", carry_few_beats)
        assert await boss.job("w", name="sleep", payload=200.0) == {"by": "b"}
        assert len(worker.runs) == 1
        assert "w" in boss.registry
        sim.crash("b")
        await anyio.sleep(6 + 2)
        assert "w" not in boss.registry

    run(program)


def test_g47_the_tables_of_the_network_are_counted_and_empty_after_the_last_job() -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        for number in range(50):
            assert await boss.job("w", name="echo", payload=number) == number
        await anyio.sleep(5)
        statistics = sim.bus("b").network_statistics()
        claims = statistics.claims
        assert (claims.held, claims.waiting, claims.ending, claims.forbidden, claims.lost) == (0, 0, 0, 0, 0)
        assert (claims.remembered, claims.introductions) == (50, 1)
        assert (statistics.fleet.runners.alive, statistics.fleet.news, statistics.fleet.lists) == (1, 0, 0)
        assert 0 < statistics.freshness.seen < 100

    run(program)


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
def test_g47_nothing_piles_up_while_the_broker_is_down(delivery: Literal["at_least_once", "at_most_once"]) -> None:
    async def program(sim: Simulation) -> None:
        boss = BaseWorker("boss")
        await sim.start("a", boss)
        await sim.start("b", Worker("w"))
        await anyio.sleep(3)
        async with anyio.create_task_group() as task_group:
            for _ in range(10):
                task_group.start_soon(_ask_in_vain, boss)
            await anyio.sleep(5)
            sim.network.stop_broker()
            waiting = []
            for _ in range(2):
                await anyio.sleep(600)
                statistics = [sim.bus(label).network_statistics() for label in "ab"]
                waiting.append([(each.outbox.frames, each.direct.waiting) for each in statistics])
            assert waiting[0] == waiting[1]
            sim.network.start_broker()
            await anyio.sleep(10)
            assert [sim.bus(label).network_statistics().direct.waiting for label in "ab"] == [0, 0]
            assert "w" in boss.registry

    run(program, delivery=delivery)


async def _ask_in_vain(boss: BaseWorker) -> None:
    with pytest.raises(JobError):
        await boss.job("w", name="sleep", payload=5000.0)


def test_g32_what_a_worker_is_asked_for_at_home_leaves_no_room_for_jobs_from_the_queue() -> None:
    async def program(sim: Simulation) -> None:
        boss, here = BaseWorker("boss"), Worker("w", limit=4)
        await sim.start("a", boss, here)
        await sim.start("b", Worker("w", limit=4))
        await anyio.sleep(3)
        async with anyio.create_task_group() as task_group:
            for _ in range(4):
                task_group.start_soon(_sleep_at, boss, "a")
            await anyio.sleep(1)
            assert len(here.runs) == 4
            with anyio.fail_after(5):
                await boss.job("w", name="echo", payload=1)
            assert len(here.runs) == 4

    run(program)


async def _sleep_at(boss: BaseWorker, label: str) -> None:
    assert await boss.job("w", name="sleep", payload=100.0) == {"by": label}
