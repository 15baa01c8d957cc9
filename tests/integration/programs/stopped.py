"""A program for signals to stop: `stopped.py BACKEND MAIN JOB DRAIN_TIMEOUT [OPTION_TO_SWITCH_OFF ...]`."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import anyio

from actors import BaseWorker, Client, JobError, WorkerRunner, job
from actors.performer.threads import THREADS
from bus import AsyncQueueBus


def say(*words: Any) -> None:
    print(*words, flush=True)


class Performer(BaseWorker):
    @job(name="work")
    async def work(self) -> str:
        with anyio.open_signal_receiver(signal.SIGUSR1) as released:
            say("begun")
            async for _ in released:
                break
        return "done"

    @job(name="thread")
    def thread(self) -> None:
        say("begun")
        threading.Event().wait(60)

    @job(name="stuck")
    def stuck(self) -> None:
        threading.Event().wait()

    @job(name="fleeing")
    async def fleeing(self) -> None:
        try:
            await self.work()
        finally:
            say("cleaned up")


class Asker(BaseWorker):
    async def on_activated(self, args: Any) -> None:
        self.create_task(ask(self))

    async def stop(self) -> None:
        say("stop", self.name)
        await super().stop()


async def ask(asker: BaseWorker) -> None:
    try:
        say("outcome", await asker.job("performer", name=JOB))
    except JobError as error:
        say("outcome", error.status.value)


async def one_runner(**options: Any) -> None:
    runner = WorkerRunner("runner", **options)
    await runner.add_workers(Performer("performer"), Asker("asker"))
    await runner.run()
    say("runner ended")


async def script(**options: Any) -> None:
    runner = WorkerRunner("runner", **options)
    performer = Performer("performer")
    await runner.add_workers(performer)
    async with runner:
        await ask(performer)
    say("runner ended")


async def two_runners(**options: Any) -> None:
    async def run(runner: WorkerRunner) -> None:
        await runner.run()
        say("runner ended")

    async with AsyncQueueBus() as bus, anyio.create_task_group() as tasks:
        first, second = WorkerRunner("first", bus, **options), WorkerRunner("second", bus, **options)
        await first.add_workers(Performer("performer"))
        await second.add_workers(Asker("asker"))
        tasks.start_soon(run, first)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(run, second)


async def handed_over(**options: Any) -> None:
    """The runner that was the first to watch for signals has ended when they come."""
    gone = WorkerRunner("gone", **options)
    async with anyio.create_task_group() as tasks:
        async with gone:
            tasks.start_soon(lambda: one_runner(**options))
            await anyio.wait_all_tasks_blocked()
        say("the first is gone")


async def stuck_threads(**options: Any) -> None:
    """A thousand jobs have timed out whose threads never end."""
    runner = WorkerRunner("runner", **options)
    await runner.add_workers(Performer("performer"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await anyio.wait_all_tasks_blocked()
        async with Client(runner) as client:
            while runner.statistics().abandoned_threads < THREADS:  # whose time is up before it begins needs no thread
                await client.gather("performer", range(1000), name=JOB, timeout=0.05, max_concurrency=500)
            say("threads", runner.statistics().threads, runner.statistics().abandoned_threads)
    say("runner ended")


BACKEND, MAIN, JOB, DRAIN = sys.argv[1:5]
MAINS = {main.__name__: main for main in (one_runner, script, two_runners, handed_over, stuck_threads)}


async def main() -> None:
    options: dict[str, Any] = dict.fromkeys(sys.argv[5:], False)
    await MAINS[MAIN](drain_timeout=float(DRAIN), cancel_grace=1.0, **options)


try:
    anyio.run(main, backend=BACKEND)
except KeyboardInterrupt:
    say("KeyboardInterrupt")
say("end")
