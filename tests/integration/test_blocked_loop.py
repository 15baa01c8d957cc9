"""A handler that blocks its event loop, and a process that is frozen, among others, over real brokers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors import BaseWorker, Client, WorkerRunner
from bus import WorkerLostData, open_bus
from bus.brokers import Broker
from tests.integration.programs.blocked import Blocking
from tests.integration.programs.fleet_worker import QUICK
from tests.support.environment import ROOT, environment
from tests.support.processes import next_line

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LONGEST_WAIT = 100.0
LEASE = QUICK["lease"]


@pytest.fixture
def url(each_broker: Broker) -> str:
    return each_broker.url


class Watcher(BaseWorker):
    def __init__(self) -> None:
        super().__init__("watcher")
        self.lost: list[str] = []
        self.told = anyio.Event()

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        self.lost.append(data.runner)
        self.told.set()


class Program:
    """A process of the blocked program."""

    def __init__(self, url: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.integration.programs.blocked", "first", url, *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True)

    async def line(self) -> str:
        return await next_line(self.process)

    def end(self) -> str:
        """Kill it, and return what it logged."""
        self.process.kill()
        return self.process.communicate()[1]


@asynccontextmanager
async def fleet(url: str, *arguments: str) -> AsyncGenerator[tuple[Program, Client, Watcher, Blocking]]:
    """A program, a client, and, in a runner of its own, a watcher and a replica that is not added yet."""
    program = Program(url, *arguments)
    try:
        with anyio.fail_after(LONGEST_WAIT):
            assert await program.line() == "ready"
            async with AsyncExitStack() as stack:
                runner = WorkerRunner("second", open_bus(url, **QUICK), handle_sigint=False, handle_sigterm=False)
                watcher, replica = Watcher(), Blocking("blocking")
                await runner.add_workers(watcher)
                await stack.enter_async_context(runner)
                await watcher.watch_workers("blocking")
                client = await stack.enter_async_context(Client(open_bus(url, **QUICK)))
                yield program, client, watcher, replica
    finally:
        program.end()


@asynccontextmanager
async def asked(client: Client, name: str, payload: Any = None) -> AsyncIterator[list[Any]]:
    """Ask for a job; at the end of the block, wait for its answer."""
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await client.job("blocking", name=name, payload=payload, job_id="j", timeout=90))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        yield answers


async def test_g34_a_blocked_event_loop_is_not_a_death(url: str) -> None:
    async with fleet(url) as (program, client, watcher, replica):
        async with asked(client, "block", 4 * LEASE) as answers:
            assert await program.line() == "begun j 1"
            await watcher.worker_runner.add_workers(replica)
        assert answers == [["first", 1]]
        assert replica.begun == []
        assert watcher.lost == []
        assert await client.job("blocking", name="block", payload=0.0, timeout=60), "both go on"
    logged = program.end()
    assert logged.count("has been blocked for") == 1
    assert "in block_the_loop" in logged


async def test_g35_past_its_limit_a_blocked_loop_loses_its_job_and_its_answer_is_refused(url: str) -> None:
    async with fleet(url, str(LEASE / 2)) as (program, client, watcher, replica):
        async with asked(client, "block", 4 * LEASE) as answers:
            assert await program.line() == "begun j 1"
            await watcher.worker_runner.add_workers(replica)
            await replica.started.wait()
            assert await program.line() == "refused", "it wakes while the other has its job"
            assert answers == []
            replica.gate.set()
        (attempt,) = replica.begun
        assert attempt > 1
        assert answers == [["second", attempt]]
        assert watcher.lost == ["first"]
    logged = program.end()
    assert logged.count("its leases are given up") == 1


async def test_g35_a_frozen_process_loses_its_job(url: str) -> None:
    async with fleet(url) as (program, client, watcher, replica):
        async with asked(client, "sleep") as answers:
            assert await program.line() == "begun j 1"
            await watcher.worker_runner.add_workers(replica)
            program.process.send_signal(signal.SIGSTOP)
            await replica.started.wait()
            await watcher.told.wait()
            program.process.send_signal(signal.SIGCONT)
            assert await program.line() == "cancelled"
            assert await program.line() == "refused"
            assert answers == []
            replica.gate.set()
        (attempt,) = replica.begun
        assert attempt > 1
        assert answers == [["second", attempt]]
        assert watcher.lost == ["first"]
    assert "its leases are given up" not in program.end()
