"""A worker of a fleet, one process of many: `python -m examples.fleet.worker [URL]`; see `examples/fleet/script.py`.

The URL of the broker may also stand in ACTORBUS_BUS. Start it as often as you like: the jobs are shared. Kill one: what
it had in hand is done by another.
"""

import sys

import anyio

from actors import BaseWorker, WorkerRunner, job
from bus import open_bus


class Counter(BaseWorker):
    @job
    async def count(self, text: str) -> int:
        return len(text.split())


async def main() -> None:
    runner = WorkerRunner(bus=open_bus(*sys.argv[1:]))

    @runner.event_handler("on_ready")
    def ready(_runner: WorkerRunner) -> None:
        print("ann is ready", flush=True)

    await runner.add_workers(Counter("ann"))
    await runner.run()  # until Ctrl-C


if __name__ == "__main__":
    anyio.run(main)
