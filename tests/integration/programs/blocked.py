"""A program of a fleet whose first attempt of a job blocks the event loop, or sleeps for ever.

    python -m tests.integration.programs.blocked NAME URL [BLOCK_LIMIT]

It prints `ready` when it serves, `begun JOB ATTEMPT` as a job starts, `refused` once a message of a job was not sent
because its lease was lost, and `cancelled` when a sleeping job is. Its log goes to stderr.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import anyio

from actors import BaseWorker, Job, WorkerRunner, job
from bus import open_bus
from bus.network.bus import NetworkBus
from tests.integration.programs.fleet_worker import QUICK


class Blocking(BaseWorker):
    """Its first attempt of a job goes wrong; a later one ends when it may."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun: list[int] = []
        self.started = anyio.Event()
        self.gate = anyio.Event()

    @job(name="block")
    async def block(self, job: Job[Any]) -> list[Any]:
        self._begins(job)
        if job.attempt == 1:
            block_the_loop(job.payload)
        else:
            await self.gate.wait()
        return [self.worker_runner.name, job.attempt]

    @job(name="sleep")
    async def sleep(self, job: Job[Any]) -> list[Any]:
        self._begins(job)
        if job.attempt == 1:
            try:
                await anyio.sleep_forever()
            finally:
                print("cancelled", flush=True)
        else:
            await self.gate.wait()
        return [self.worker_runner.name, job.attempt]

    def _begins(self, job: Job[Any]) -> None:
        self.begun.append(job.attempt)
        self.started.set()
        print("begun", job.id, job.attempt, flush=True)


def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


async def main(*arguments: str) -> None:
    name, url, limit = (*arguments, "60")[:3]
    logging.basicConfig()
    bus = open_bus(url, **QUICK, block_limit=float(limit))
    assert isinstance(bus, NetworkBus)
    runner = WorkerRunner(name, bus)
    await runner.add_workers(Blocking("blocking"))
    async with runner:
        print("ready", flush=True)
        while not bus.network_statistics().claims.refused:  # noqa: ASYNC110 - nothing tells of it
            await anyio.sleep(1)
        print("refused", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
