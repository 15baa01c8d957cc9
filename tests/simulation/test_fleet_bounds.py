"""What a fleet does at its bounds: full inboxes, much news, many workers: one scenario each."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actors import BaseWorker, Job, job
from actors.testing import Simulation
from bus import BusDataMessage, register_message


class Worker(BaseWorker):
    """Does what it is told, and counts."""

    def __init__(self, name: str, *, limit: int = 16) -> None:
        super().__init__(name)
        self.max_concurrency = limit
        self.runs: list[tuple[str, int]] = []
        self.heard: list[int] = []

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs.append((job.id, job.attempt))
        return job.payload

    @job(name="sleep")
    async def sleep(self, job: Job[Any]) -> Any:
        self.runs.append((job.id, job.attempt))
        await anyio.sleep(job.payload)
        return {"by": self.worker_runner.name}

    async def on_bus_message(self, message: Any) -> None:
        if isinstance(message, Number):
            self.heard.append(message.number)
        else:
            await super().on_bus_message(message)


@register_message
class Number(BusDataMessage, kw_only=True):
    """A message of a user's own."""

    number: int


def run(program: Any, seed: int = 1, **options: Any) -> Any:
    return Simulation(seed, **{"limit": 2000.0, **options}).run(program)


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

    monkeypatch.setattr("bus.transports.broker.INBOX_BOUND", 100)
    run(program)
