"""A process of its own that serves the worker `performer`: `python -m tests.integration.programs.performer url label`.

It prints a line as it is ready and as each job begins. The one with the label `stuck` never finishes a job.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio

from actors import BaseWorker, Job, WorkerRunner, job
from bus import RedisBus


class Performer(BaseWorker):
    @job(name="do")
    async def do(self, job: Job[Any]) -> dict[str, Any]:
        print("begun", job.id, job.attempt, flush=True)
        if self.worker_runner.name == "stuck":
            await anyio.sleep_forever()
        return {"by": self.worker_runner.name, "attempt": job.attempt, "payload": job.payload}


async def main(*arguments: str) -> None:
    url, label = arguments
    runner = WorkerRunner(label, RedisBus(url, ack_wait=2.0))
    await runner.add_workers(Performer("performer"))

    @runner.event_handler("on_ready")
    def on_ready(_runner: WorkerRunner) -> None:
        print("ready", flush=True)

    await runner.run(auto_end=False)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
