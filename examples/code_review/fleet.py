"""Reviewers in processes of their own, started by the demo: `make demo BUS=redis WORKERS=3`, or `BUS=nats`, or a URL.

Such a process is `python -m examples.code_review.fleet`. It finds the bus in ACTORBUS_BUS, and ends when its input
does, which is with the demo, whatever that one dies of.
"""

import os
import signal
import sys
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from actors import JobRecord, WorkerRunner
from bus import open_bus
from examples.code_review.team import REVIEWERS, Reviewer

OPTIONS: dict[str, Any] = {"namespace": "code-review", "heartbeat": 1.0, "ack_wait": 3.0}
"""For all processes alike. What one that was killed had in hand comes back after `ack_wait` seconds."""

MOST = 32
"""Reviewer processes of one fleet: each takes 40 MB, and more than there are cores are of no use."""

ENDS_WITHIN = 10.0
"""Seconds a process may take to end when it is asked to."""


class Fleet:
    """The reviewer processes. Each serves all the names of reviewers: they are replicas, and share the work."""

    def __init__(self, url: str, size: int, *, kill: bool) -> None:
        self.url, self.size = url, size
        self.lost: list[str] = []
        self._kill, self._kill_at = kill, 0
        self._begun = self._alive = 0

    def expect(self, reviews: int) -> None:
        """So many reviews are about to be asked for: the process that begins the middle one is the one to be killed."""
        self._kill_at = reviews // 2 + 1 if self._kill else 0

    async def employ(self, number: int) -> None:
        who = f"reviewer process {number} of {self.size}"
        while True:
            process = await anyio.open_process(
                [sys.executable, "-m", "examples.code_review.fleet"],
                stdin=PIPE,
                stdout=PIPE,
                stderr=None,
                env={**os.environ, "ACTORBUS_BUS": self.url},  # on the command line others could read its password
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its reviewers
            )
            self._alive += 1
            print(f"{who} (pid {process.pid}) started", flush=True)
            try:
                await self._watch(process)
            finally:
                await ended(process)
                self._alive -= 1
            how = f"killed by {signal.Signals(-status).name}" if (status := await process.wait()) < 0 else "lost"
            self.lost.append(f"{who} (pid {process.pid}) was {how}")
            print(self.lost[-1], flush=True)
            if self._alive or status >= 0:
                return
            print("no reviewer process is left: another one takes its place", flush=True)

    async def _watch(self, process: Process) -> None:
        assert process.stdout is not None
        async for lines in TextReceiveStream(process.stdout):  # one line for each review that begins
            before, self._begun = self._begun, self._begun + lines.count("\n")
            if before < self._kill_at <= self._begun:
                process.kill()


async def ended(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        assert process.stdin is not None
        await process.stdin.aclose()
        with anyio.move_on_after(ENDS_WITHIN) as waiting:
            await process.wait()
        if waiting.cancelled_caught:
            process.kill()
        await process.aclose()


@asynccontextmanager
async def reviewers(url: str, size: int, *, kill: bool) -> AsyncGenerator[Fleet]:
    fleet = Fleet(url, size, kill=kill)
    print(f"the bus is {url.partition(':')[0]}://{url.rpartition('@')[2].rpartition('//')[2]}")
    async with anyio.create_task_group() as tasks:
        for number in range(size):
            tasks.start_soon(fleet.employ, number + 1)
        try:
            yield fleet
        finally:
            tasks.cancel_scope.cancel()


async def serve() -> None:
    runner = WorkerRunner(bus=open_bus(**OPTIONS), handle_sigint=False)

    @runner.event_handler("on_job_start")
    def begun(_runner: WorkerRunner, record: JobRecord) -> None:
        if record.job_name == "review":
            print(record.worker_name, flush=True)

    await runner.add_workers(*map(Reviewer, REVIEWERS))
    async with runner:
        await anyio.wait_readable(sys.stdin)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the demo is gone
    warnings.simplefilter("ignore")  # Python's, about the code it parses
    anyio.run(serve)
