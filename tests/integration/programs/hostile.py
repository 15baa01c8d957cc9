"""A program whose handlers do everything wrong: `hostile.py BACKEND`. It prints how each requester was told."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import anyio

from actors import BaseWorker, JobError, WorkerRunner, job
from bus import AsyncQueueBus, BusJobRequestMessage


class Hostile(BaseWorker):
    @job(name="raises")
    async def raises(self) -> None:
        raise ValueError("on purpose")

    @job(name="exits")
    async def exits(self) -> None:
        sys.exit(3)

    @job(name="interrupts")
    async def interrupts(self) -> None:
        raise KeyboardInterrupt

    @job(name="exits-in-a-thread")
    def exits_in_a_thread(self) -> None:
        sys.exit(4)

    @job(name="blocks")
    async def blocks(self) -> str:
        time.sleep(1.0)  # noqa: ASYNC251 - that is what is wrong with it
        return "done"

    @job(name="swallows")
    async def swallows(self) -> None:
        while not done.is_set():
            with contextlib.suppress(BaseException):
                await done.wait()

    @job(name="sleeps")
    async def sleeps(self) -> None:
        await anyio.sleep_forever()

    @job(name="takes-the-runner-along")
    async def takes_the_runner_along(self) -> None:
        await self.worker_runner.cancel("a handler wanted it")
        await anyio.sleep_forever()

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        if message.job_name != "never-answers":
            await self.send_job_response(message.job_id, {"asked for": message.job_name})


class Silent(BaseWorker):
    """Has no handler at all."""


async def tell(asker: BaseWorker, worker: str, name: str, **options: Any) -> None:
    began = time.monotonic()
    try:
        outcome = f"completed {await asker.job(worker, name=name, **options)!r}"
    except JobError as error:
        outcome = f"{error.status.value} {error.error.type if error.error else None}"
    print(f"{worker} {name}: {outcome}", flush=True)
    if time.monotonic() - began > 10:
        print(f"{worker} {name}: told too late", flush=True)


async def program() -> None:
    async with AsyncQueueBus() as bus, anyio.create_task_group() as tasks:
        options: dict[str, Any] = {"cancel_grace": 0.2, "ready_timeout": 1.0}
        near, far = WorkerRunner("near", bus, **options), WorkerRunner("far", bus, **options)
        asker = BaseWorker("asker")
        await near.add_workers(asker, Hostile("hostile"), Silent("silent"))
        await far.add_workers(Hostile("doomed"), Hostile("doomed-too"))
        tasks.start_soon(far.run)
        async with near:
            for name in ("raises", "exits", "interrupts", "exits-in-a-thread", "unknown"):
                await tell(asker, "hostile", name)
            await tell(asker, "silent", "unknown")
            await tell(asker, "hostile", "never-answers", timeout=0.5)
            await tell(asker, "hostile", "sleeps", timeout=0.5)
            await tell(asker, "hostile", "swallows", timeout=0.5)
            await tell(asker, "nobody", "anything")
            async with anyio.create_task_group() as both:
                both.start_soon(lambda: tell(asker, "hostile", "blocks"))
                both.start_soon(lambda: tell(asker, "doomed-too", "blocks"))
            async with anyio.create_task_group() as both:
                both.start_soon(lambda: tell(asker, "doomed-too", "sleeps"))
                await anyio.wait_all_tasks_blocked()
                both.start_soon(lambda: tell(asker, "doomed", "takes-the-runner-along"))
            await tell(asker, "doomed", "raises")
            await tell(asker, "hostile", "raises")
            done.set()
            await anyio.wait_all_tasks_blocked()
            print(near.statistics(), flush=True)
    print("end", flush=True)


done = anyio.Event()

if __name__ == "__main__":
    anyio.run(program, backend=sys.argv[1])
