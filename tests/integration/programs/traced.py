"""A process of its own with a worker that tells what its jobs are part of.

    python -m tests.integration.programs.traced NAME URL

It prints `ready` when it serves, and a line for each `hang` that it starts.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
from opentelemetry.sdk.trace import TracerProvider

from actors import BaseWorker, Job, WorkerRunner, install_telemetry, job
from bus import open_bus
from tests.integration.programs.fleet_worker import QUICK


def told(job: Job[Any]) -> list[Any]:
    trace = job.trace
    return [] if trace is None else [trace.parent, trace.state, trace.run]


class Far(BaseWorker):
    """Its first attempt of `hang` never ends; any later one answers at once."""

    @job
    async def tell(self, job: Job[str]) -> list[Any]:
        """What this is part of, and what a job is that this asks the other process for."""
        return [told(job), await self.job(job.payload, name="tell", delivery=job.request.delivery)]  # type: ignore[arg-type]

    @job
    async def hang(self, job: Job[Any]) -> list[Any]:
        print("started", job.attempt, flush=True)
        if job.attempt == 1:
            await anyio.sleep_forever()
        return told(job)

    @job
    async def in_spans(self, job: Job[str]) -> list[Any]:
        """Make spans from now on, which nobody keeps; tell as `tell`."""
        install_telemetry(tracer_provider=TracerProvider())
        return [told(job), await self.job(job.payload, name="tell")]


async def main(name: str, url: str) -> None:
    async with WorkerRunner(name, open_bus(url, **QUICK)) as runner:
        await runner.add_workers(Far("far"))
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
