"""Simulated processes, and a scheduler that lets those which are paused stand still."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar

from trio._core import _run as trio_run
from trio.lowlevel import Task


class Process:
    """All tasks that were started inside it: the tasks of one node of a simulation.

    While it is paused none of them takes a step. What would have woken them, also their timers, wakes them late.
    """

    def __init__(self) -> None:
        self.paused = False
        self._waiting: list[Task] = []

    def enter(self) -> None:
        """Let the current task, and those it starts from now on, belong to this process."""
        _process.set(self)

    def pause(self) -> None:
        """Stand still."""
        self.paused = True

    def resume(self) -> None:
        """Go on."""
        self.paused = False
        waiting, self._waiting = self._waiting, []
        trio_run.GLOBAL_RUN_CONTEXT.runner.runq.extend(waiting)

    def keep(self, task: Task) -> None:
        """Let a task that could run wait until the process goes on."""
        self._waiting.append(task)


_process: ContextVar[Process | None] = ContextVar("process", default=None)


class _RunQueue(deque[Task]):
    """The tasks that trio runs next, without those of paused processes."""

    def append(self, task: Task) -> None:
        process = task.context.get(_process)
        if process is not None and process.paused:
            process.keep(task)
        else:
            super().append(task)


def let_processes_pause() -> None:
    """Make the trio run that this is called in obey `Process.pause`."""
    runner = trio_run.GLOBAL_RUN_CONTEXT.runner
    runner.runq = _RunQueue(runner.runq)
