"""A process of its own that serves the worker `desk`: `python -m tests.integration.programs.desk URL CONCURRENCY`."""

from __future__ import annotations

import sys
from typing import Any

import anyio

from actors import BaseWorker, WorkerRunner, job


class Desk(BaseWorker):
    napping = 0

    @job
    async def echo(self, payload: Any) -> Any:
        return payload

    @job
    async def nap(self, seconds: float) -> int:
        """Sleep; return how many slept as this one began."""
        self.napping += 1
        before = self.napping
        await anyio.sleep(seconds)
        self.napping -= 1
        return before


async def main(url: str, concurrency: int) -> None:
    runner = WorkerRunner("desk-runner", url, concurrency=concurrency)
    await runner.add_workers(Desk("desk"))
    await runner.run(auto_end=False)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
