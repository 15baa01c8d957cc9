"""A running runner for one test, which must leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from actors import BaseWorker, Function, WorkerRunner
from actors.performer.execution import Execution
from actors.runner.runner import core_of_runner
from actors.worker.verbs import core_of
from bus import NetworkBus
from bus.network.session import Session

LONGEST_WAIT = 60.0
"""Seconds until a test that waits for something is told that it does not come: a fault, not a slow machine."""


@asynccontextmanager
async def running(*workers: BaseWorker | Function[Any, Any], **options: Any) -> AsyncGenerator[WorkerRunner]:
    """Run `workers` on a runner of their own; fail if the body leaves a job, a group, a deadline or a handler behind.

    Args:
        workers: What to add, in order.
        options: Arguments of the runner. Short limits by default, so that what waits for one of them is soon over.
    """
    settings = {"handle_sigint": False, "handle_sigterm": False, "cancel_grace": 1.0, "drain_timeout": 10.0}
    runner = WorkerRunner(**{**settings, **options})
    await runner.add_workers(*workers)
    over = False
    with anyio.fail_after(LONGEST_WAIT):
        async with runner:
            before = await leftovers(runner)
            yield runner
            over = True
            assert core_of_runner(runner).ends or await leftovers(runner) == before
    assert over, "the rest of the test was cancelled, since its runner had ended"


class TasksBegun:
    """Counts the tasks that a runner begins from now on: work that is done in used ones begins none."""

    def __init__(self, runner: WorkerRunner) -> None:
        self.count = 0
        self._group = core_of_runner(runner).tasks._task_group
        core_of_runner(runner).tasks._task_group = cast("TaskGroup", self)

    def start_soon(self, *arguments: Any) -> None:
        self.count += 1
        self._group.start_soon(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)


def execution_of(worker: BaseWorker, job_id: str) -> Execution:
    """A job that a worker has accepted and not answered."""
    admission = core_of(worker).admission
    assert admission is not None
    return admission.executions[job_id]


async def settled(runner: WorkerRunner) -> None:
    """Wait until every thread of a plain handler is back."""
    while runner.statistics().threads:
        await anyio.lowlevel.checkpoint()


async def leftovers(runner: WorkerRunner) -> dict[str, object]:
    """What a runner still holds once everything that can go on has: all 0 when nobody asks for anything."""
    await anyio.wait_all_tasks_blocked()
    now = runner.statistics()
    admissions = [core_of(worker).admission for worker in runner.workers]
    held = [admission.statistics() for admission in admissions if admission is not None]
    return {
        "jobs": now.jobs,
        "groups": now.groups,
        "deadlines": now.deadlines,
        "running": sum(each.running for each in held),
        "pending": sum(each.pending for each in held),
        "quarantined": sum(each.quarantined for each in held),
        "threads": now.threads,
        "parked": runner.bus.statistics().parked,
        "names with parked requests": len(runner.bus._parked),
    }


def session_of(bus: NetworkBus) -> Session:
    """The inside of a bus that is started."""
    assert bus._session is not None
    return bus._session
