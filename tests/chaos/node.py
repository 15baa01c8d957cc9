"""A process of a chaos run: `python -m tests.chaos.node SETTINGS`, told what to do by lines on its standard input.

It ends in order when its input does, so that none outlives who started it.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
import msgspec

from actors import BaseWorker, Job, JobError, WorkerRunner, job
from bus import BusOptions, NetworkBus, WorkerLostData, WorkerReadyData, open_bus
from tests.chaos.lines import REMEMBERED, Event, Journal

HOUR = 3600.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is.

    Attributes:
        name: Of its runner, the same in every life.
        url: The broker, or the proxy before it.
        directory: Where its lines go.
        options: Of its bus.
        slots: How many jobs it does at once; 0 for one that only asks.
        watches: Nodes whose coming and going it writes down.
        drain_timeout: Seconds.
        clock: Hours by which its wall clock is wrong, either way, anew at each look; 0 for one that is right.
    """

    name: str
    url: str
    directory: str
    options: BusOptions = {}
    slots: int = 0
    watches: tuple[str, ...] = ()
    drain_timeout: float = 20.0
    clock: float = 0.0


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A command: ask for jobs.

    Attributes:
        count: How many.
        at_once: How many of them at a time.
        seconds: Between these, each takes.
        events: Updates or chunks that each sends.
        how: What its handler does at its end: `return`, `exit` (the process), or the name of something to raise; with
            `block` it has blocked the event loop before, for as long as it takes altogether.
        timeout: Of each.
        label: How their ids begin.
        seed: Of what is drawn for them.
    """

    count: int
    at_once: int = 1
    seconds: tuple[float, float] = (0.0, 0.0)
    events: int = 0
    how: str = "return"
    timeout: float | None = None
    label: str = "job"
    seed: int = 0


class Mute(Exception):  # noqa: N818 - it is what a handler of somebody else may raise
    def __str__(self) -> str:
        raise RuntimeError("it cannot be shown")


def throw(how: str) -> None:
    """Raise what goes under that name."""
    if how in {"return", "block"}:
        return
    if how == "Mute":
        raise Mute
    if how == "CancelledError":
        raise asyncio.CancelledError
    if how == "ExceptionGroup":
        raise ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [Mute(), OSError(5, "two")])])
    if how == "BaseExceptionGroup":
        raise BaseExceptionGroup("several", [SystemExit(3), asyncio.CancelledError(), ValueError("one")])
    kind: type[BaseException] = getattr(builtins, how)
    raise kind("raised on purpose")


class Performer(BaseWorker):
    """Does jobs, and writes what it does beside the framework."""

    def __init__(self, journal: Journal, slots: int) -> None:
        super().__init__("work")
        self.max_concurrency = slots
        self.journal = journal

    @job(name="do")
    async def do(self, job: Job[dict[str, Any]]) -> dict[str, int]:
        which: dict[str, Any] = {"job": job.id, "attempt": job.attempt}
        plan = job.payload
        self.journal.write("began", **which)
        try:
            if plan["how"] == "block":
                time.sleep(plan["seconds"])  # noqa: ASYNC251 - what nobody should do
            for number in range(plan["events"]):
                await anyio.sleep(plan["seconds"] / (plan["events"] + 1))
                self.journal.write("sent", number=number, **which)
                send = job.update if plan["updates"] else job.stream
                await send([job.attempt, number])
            await anyio.sleep(plan["seconds"] / (plan["events"] + 1))
            if plan["how"] == "exit":
                os._exit(9)
            throw(plan["how"])
        except BaseException as error:
            self.journal.write("stopped", detail=type(error).__name__, **which)
            raise
        self.journal.write("finished", **which)
        return {"attempt": job.attempt, "events": plan["events"]}


class Requester(BaseWorker):
    """Asks for jobs, and writes down what it is told."""

    def __init__(self, journal: Journal, name: str, watches: tuple[str, ...]) -> None:
        super().__init__(f"{name}-node")
        self.journal = journal
        self.watches = watches
        self.latest = 0
        self.told = anyio.Event()

    async def start(self) -> None:
        await super().start()
        await self.watch_workers(*(f"{name}-node" for name in self.watches))

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.journal.write("up", detail=data.worker_name.removesuffix("-node"))

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        self.journal.write("lost", detail=data.worker_name.removesuffix("-node"))

    async def ask_for(self, ask: Ask) -> None:
        rng = Random(ask.seed)
        numbers = iter(range(ask.count))

        async def one_after_the_other() -> None:
            for number in numbers:
                plan = {
                    "seconds": rng.uniform(*ask.seconds),
                    "events": ask.events,
                    "updates": rng.random() < 0.5,
                    "how": ask.how,
                }
                await self.one(f"{ask.label}.{number}", plan, ask.timeout)

        async with anyio.create_task_group() as tasks:
            for _ in range(ask.at_once):
                tasks.start_soon(one_after_the_other)

    async def one(self, job_id: str, plan: dict[str, Any], timeout: float | None) -> None:
        self.journal.write("asked", job=job_id)
        seen = 0
        attempt, status, detail = 0, "completed", ""
        try:
            async with self.job("work", name="do", payload=plan, job_id=job_id, timeout=timeout) as asked:
                async for event in asked:
                    if event.type in {event.UPDATE, event.STREAM_DATA}:
                        of, number = event.data
                        attempt = event.attempt
                        self.journal.write("saw", job=job_id, attempt=attempt, number=number, detail=f"attempt {of}")
            if asked.response["attempt"] != asked.results["work"].attempt:
                detail = REMEMBERED
            attempt, seen = max(attempt, asked.response["attempt"]), asked.response["events"]
        except JobError as error:
            status, detail = str(error.status), str(error.error)
        self.journal.write("ended", job=job_id, attempt=attempt, number=seen, status=status, detail=detail)


async def commands(requester: Requester, runner: WorkerRunner) -> None:
    """Do what is written to our standard input until it ends."""
    rest = b""
    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(0)
            data = os.read(0, 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line == b"statistics":
                    report(requester.journal, runner)
                else:
                    tasks.start_soon(requester.ask_for, msgspec.json.decode(line, type=Ask))
        await runner.end()


def report(journal: Journal, runner: WorkerRunner) -> None:
    """Write down what we hold."""
    assert isinstance(runner.bus, NetworkBus)
    network, own = runner.bus.network_statistics(), runner.statistics()
    figures = {
        "refused": network.claims.refused,
        "late": own.late_answers,
        "malformed": network.refused.total,
        "held": network.claims.held,
        "waiting": network.outbox.frames + network.outbox.settlements,
        "jobs": own.jobs,
        "groups": own.groups,
        "peers": network.peers,
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,  # noqa: PTH112, PTH208
        "tasks": len(asyncio.all_tasks()),
    }
    journal.write("statistics", figures=figures)


def disturb_clock(rng: Random, hours: float) -> None:
    """From now on the wall clock of this process jumps."""
    true = time.time

    def wrong() -> float:
        return true() + rng.choice((-1, 1)) * hours * HOUR

    time.time = wrong
    time.time_ns = lambda: int(wrong() * 1e9)


def noted(journal: Journal, event: Event, _source: object) -> None:
    """Write down an event of a bus or a runner."""
    journal.write(event)


async def main(settings: Settings) -> None:
    logging.basicConfig(level=logging.INFO)
    if settings.clock:
        disturb_clock(Random(settings.name), settings.clock)
    journal = Journal(Path(settings.directory) / f"{settings.name}-{os.getpid()}.jsonl", "")
    journal.node = f"{settings.name}#{os.getpid()}"
    bus = open_bus(settings.url, **settings.options)
    runner = WorkerRunner(settings.name, bus, drain_timeout=settings.drain_timeout)
    requester = Requester(journal, settings.name, settings.watches)

    bus.add_event_handler("on_connected", partial(noted, journal, "connected"))
    bus.add_event_handler("on_disconnected", partial(noted, journal, "disconnected"))
    runner.add_event_handler("on_ready", partial(noted, journal, "ready"))
    await runner.add_workers(requester)
    if settings.slots:
        await runner.add_workers(Performer(journal, settings.slots))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commands, requester, runner)
        await runner.run(auto_end=False)
        report(journal, runner)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, msgspec.json.decode(sys.argv[1], type=Settings))
