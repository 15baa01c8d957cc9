"""A server of its own whose runs are in a file: `python -m tests.integration.programs.http_server PORT FILE`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel

from actors import BaseWorker, Job, job
from actors.server import listen, serve


class Counter(BaseWorker):
    @job
    async def count(self, job: Job[int]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number
            await anyio.lowlevel.checkpoint()


if __name__ == "__main__":
    app = serve(workers=[Counter("counter")], run_store=f"sqlite:///{sys.argv[2]}")
    anyio.run(lambda: listen(app, port=int(sys.argv[1]), log_level="warning"))
