"""Whatever a handler does, whoever asked is told, and the program lives on: in a real process."""

from __future__ import annotations

import pytest

from tests.support.processes import run

TOLD = {
    "hostile raises": "error ValueError",
    "hostile exits": "error SystemExit",
    "hostile interrupts": "error KeyboardInterrupt",
    "hostile exits-in-a-thread": "error SystemExit",
    "hostile unknown": "completed {'asked for': 'unknown'}",
    "silent unknown": "error HandlerError",
    "hostile never-answers": "failed JobTimeoutError",
    "hostile sleeps": "failed JobTimeoutError",
    "hostile swallows": "failed JobTimeoutError",
    "nobody anything": "failed WorkerUnavailableError",
    "hostile blocks": "completed 'done'",
    "doomed-too blocks": "completed 'done'",
    "doomed-too sleeps": "cancelled JobCancelled",
    "doomed takes-the-runner-along": "cancelled JobCancelled",
    "doomed raises": "failed WorkerUnavailableError",
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whoever_asks_a_handler_that_does_everything_wrong_is_told_each_time(backend: str) -> None:
    """Raises, never answers, is unknown, swallows its cancellation, blocks the loop, exits, dies with its runner."""
    program = run("tests/integration/programs/hostile.py", backend)
    assert program.returncode == 0, program.stderr
    *lines, statistics, end = program.stdout.splitlines()
    assert dict(line.split(": ", 1) for line in lines[:-1]) == TOLD
    assert lines[-1] == "hostile raises: error ValueError"  # the worker lives on after all of it
    assert "jobs=0, groups=0, deadlines=0, tasks=0" in statistics
    assert end == "end"
    assert "handler swallows its cancellation" in program.stderr
    assert "Traceback" not in program.stderr
