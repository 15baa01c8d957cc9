"""A program of a fleet: one worker on a bus of its own, until it is told to end or killed.

    python -m tests.integration.programs.fleet_worker NAME URL

It prints `ready` when it serves, and a line for each job that it starts.
"""

from __future__ import annotations

import sys
from typing import Any, TypedDict

import anyio

from actors import BaseWorker, Job, WorkerRunner, job
from bus import open_bus


class Quick(TypedDict):
    """Options of a bus."""

    ack_wait: float
    heartbeat: float
    lease: float


QUICK: Quick = {"ack_wait": 2.0, "heartbeat": 0.5, "lease": 2.0}
"""Leases as short as a busy machine allows: what a test waits for."""


class Hanging(BaseWorker):
    """Its first attempt of a job never ends; any later one answers at once."""

    @job(name="hang")
    async def hang(self, job: Job[Any]) -> list[Any]:
        print("started", job.attempt, flush=True)
        if job.attempt == 1:
            await anyio.sleep_forever()
        return [self.worker_runner.name, job.attempt]


async def main(name: str, url: str) -> None:
    runner = WorkerRunner(name, open_bus(url, **QUICK))
    await runner.add_workers(Hanging("hanging"))
    async with runner:
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
