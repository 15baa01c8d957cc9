"""How a command says to the shell what came of it: the one table of exit codes."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command exits with; the same number means the same for all of them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    TIMED_OUT = 5
    DEFECT = 70
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done; for a worker: ended by a signal, its jobs drained",
    ExitCode.FAILED: "the job or run failed or was cancelled; for a worker: it could not go on",
    ExitCode.USAGE: "bad usage, configuration or code that was named: nothing was done",
    ExitCode.NOT_FOUND: "there is no such worker, run or dead letter",
    ExitCode.UNREACHABLE: "the broker or the run store does not answer, or refuses",
    ExitCode.TIMED_OUT: "it took longer than this command was to wait; what was submitted goes on",
    ExitCode.DEFECT: "a defect of this program; what is printed is for its makers",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C; for a worker: by the second signal, jobs were cut short",
}
"""What each of them means."""


def table() -> str:
    """The table, as the help shows it."""
    return "\n".join(f"{code.value:>4}  {meaning}" for code, meaning in MEANINGS.items())
