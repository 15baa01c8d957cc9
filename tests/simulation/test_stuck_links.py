"""A link on which nothing can be sent any more, although it lives: who cannot answer lets others have the jobs."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from actors.testing import Simulation
from bus import Outgoing
from bus.simulation.network import SimulatedTransport
from tests.simulation.fleet import Worker, pair, run


class _Stuck:
    """From now on what a node stores never comes to an end: the first time, or always and whatever is done about it."""

    def __init__(self, patch: pytest.MonkeyPatch, label: str, *, for_good: bool) -> None:
        self.calls = 0
        self.over = anyio.Event()
        send = SimulatedTransport.send

        async def stuck(transport: SimulatedTransport, frames: Sequence[Outgoing]) -> None:
            if transport.label == label and (for_good or not self.calls):
                self.calls += 1
                with anyio.CancelScope(shield=for_good):
                    await self.over.wait()
            await send(transport, frames)

        patch.setattr(SimulatedTransport, "send", stuck)


def test_g60_who_cannot_answer_does_not_keep_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        workers = [Worker("w"), Worker("w")]
        boss = await pair(sim, workers[0])
        try:
            async with boss.job("w", name="sleep", payload=5.0, timeout=100.0) as asked:
                await anyio.sleep(1)
                stuck = _Stuck(monkeypatch, "b", for_good=True)
                await sim.start("c", workers[1])
        finally:
            stuck.over.set()  # else nothing could end
        assert asked.response == {"by": "c"}
        assert len(workers[0].runs) == len(workers[1].runs) == 1
        await anyio.sleep(30)
        assert sim.network.broker.statistics().claimed == 0

    run(program)


def test_g60_a_flush_that_hangs_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(sim: Simulation) -> None:
        worker = Worker("w")
        boss = await pair(sim, worker)
        async with boss.job("w", name="sleep", payload=5.0, timeout=100.0) as asked:
            await anyio.sleep(1)
            stuck = _Stuck(monkeypatch, "b", for_good=False)
        assert asked.response == {"by": "b"}
        assert (stuck.calls, len(worker.runs)) == (1, 1)
        assert await boss.request("w", 1, name="echo", timeout=5.0) == 1

    run(program, ack_wait=2.0)
