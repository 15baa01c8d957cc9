"""What a runner holds at a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from actors.runner import WorkerRunner


class RunnerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a runner: everything it holds.

    Attributes:
        workers: Workers on it.
        jobs: Jobs they have accepted and not answered.
        groups: Groups they asked for that have not ended.
        deadlines: Deadlines armed.
        tasks: Tasks that run something now.
        late_answers: Answers that came when nobody waited for them any more, since the start.
    """

    workers: int
    jobs: int
    groups: int
    deadlines: int
    tasks: int
    late_answers: int


def statistics_of(runner: WorkerRunner) -> RunnerStatistics:
    """What the runner holds now."""
    executors = [entry.worker._executor for entry in runner._roster.entries.values()]
    pool = runner.tasks.statistics() if runner.running else None
    return RunnerStatistics(
        workers=len(executors),
        jobs=sum(len(executor.jobs) for executor in executors if executor is not None),
        groups=len(runner.open_groups),
        deadlines=runner.deadlines.statistics().armed if runner.running else 0,
        tasks=pool.tasks - pool.idle if pool is not None else 0,
        late_answers=runner.late_answers,
    )
