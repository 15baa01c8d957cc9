"""The fleets of the scenarios: who works in them, how they are run, and what is done to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import pytest

from actors import BaseWorker, Job, JobError, job
from actors.testing import Simulation
from bus import Outgoing
from bus.simulation.network import SimulatedTransport
from bus.wire.codec import decode_header
from tests.support.running import session_of


class Worker(BaseWorker):
    """Does what it is told, and writes down what it began and what was cancelled."""

    def __init__(self, name: str, *, limit: int = 16, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.max_concurrency = limit
        self.runs: list[tuple[str, int]] = []
        self.cancelled: list[str] = []

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs.append((job.id, job.attempt))
        return job.payload

    @job(name="sleep")
    async def sleep(self, job: Job[Any]) -> dict[str, Any]:
        self.runs.append((job.id, job.attempt))
        try:
            await anyio.sleep(job.payload)
        except BaseException:
            self.cancelled.append(job.id)
            raise
        return {"by": self.worker_runner.name}

    @job(name="count")
    async def count(self, job: Job[Any]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number


def run(program: Any, seed: int = 1, **options: Any) -> Any:
    """What a program returns that is given a simulation; it may take half an hour, and none of ours."""
    return Simulation(seed, **{"limit": 2000.0, **options}).run(program)


async def crash_in(sim: Simulation, label: str, seconds: float) -> None:
    await anyio.sleep(seconds)
    sim.crash(label)


async def pair(sim: Simulation, *workers: BaseWorker) -> BaseWorker:
    """A boss on one runner, and each worker on one of its own; everybody knows everybody."""
    boss = BaseWorker("boss")
    await sim.start("a", boss)
    for label, worker in zip("bcd", workers, strict=False):
        await sim.start(label, worker)
    await anyio.sleep(3)
    return boss


def lose(
    monkeypatch: pytest.MonkeyPatch, label: str, wanted: Callable[[str, int], bool], most: int = 10**9
) -> list[str]:
    """Lose direct frames of a node, by the type of the message and its sequence. Returns the types of those lost."""
    tell = SimulatedTransport.tell
    lost: list[str] = []

    async def losing(transport: SimulatedTransport, frames: Sequence[Outgoing]) -> None:
        kept = []
        for frame in frames:
            header, _ = decode_header(frame.body)
            if transport.label == label and len(lost) < most and wanted(header.type, header.sequence):
                lost.append(header.type)
            else:
                kept.append(frame)
        await tell(transport, kept)

    monkeypatch.setattr(SimulatedTransport, "tell", losing)
    return lost


def nothing_left(sim: Simulation) -> None:
    for label in sim.alive():
        direct = sim.bus(label).network_statistics().direct
        assert (direct.asked, direct.parked, direct.waiting) == (0, 0, 0)
        assert sim.bus(label).network_statistics().claims.held == 0
        assert session_of(sim.bus(label))._direct._load == {}


def error_of(failure: pytest.ExceptionInfo[JobError]) -> str:
    assert failure.value.error is not None
    return failure.value.error.type
