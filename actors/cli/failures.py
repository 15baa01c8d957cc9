"""What a command says when it fails: one line with the way out, and an exit code."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import IntEnum

import click

from actors.jobs.errors import ActorError, JobError, JobTimeoutError, WorkerUnavailableError
from actors.runner.signals import watching
from actors.runs.errors import RunFailedError, RunNotFoundError, RunStoreError
from bus import BusError, DecodeError, TransportError
from bus.errors import Portable


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


class CommandError(Portable, click.ClickException):
    """A command cannot do what it was asked to.

    Args:
        message: One line: what is wrong, and the way out.
        exit_code: Of the table.
    """

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.code = exit_code


def usage(message: str) -> CommandError:
    """What was asked for makes no sense."""
    return CommandError(message, ExitCode.USAGE)


@contextmanager
def understood() -> Iterator[None]:
    """What is refused in here was asked for wrongly; elsewhere a ValueError or a TypeError is a defect."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise usage(str(error)) from error


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (click.ClickException, ExitCode.USAGE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (click.Abort, ExitCode.INTERRUPTED),
    (RunNotFoundError, ExitCode.NOT_FOUND),
    (WorkerUnavailableError, ExitCode.NOT_FOUND),
    (RunStoreError, ExitCode.UNREACHABLE),
    (TransportError, ExitCode.UNREACHABLE),
    (RunFailedError, ExitCode.FAILED),
    (JobTimeoutError, ExitCode.FAILED),
    (JobError, ExitCode.FAILED),
    (TimeoutError, ExitCode.TIMED_OUT),
    (DecodeError, ExitCode.FAILED),
    (OSError, ExitCode.FAILED),
)


def code_of(error: BaseException) -> ExitCode | None:
    """The exit code of an error; None if it is a defect."""
    if isinstance(error, CommandError):
        return error.code
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, (BusError, ActorError)):
        if isinstance(error, (ValueError, TypeError)):
            return ExitCode.USAGE
        return ExitCode.UNREACHABLE if isinstance(error, BusError) else ExitCode.FAILED
    return None


def one_line(text: str) -> str:
    """A text as one line that a terminal shows as it is, whoever wrote it."""
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def text_of(error: BaseException) -> str:
    """What is said of an error, in one line."""
    if isinstance(error, click.UsageError):
        context = error.ctx
        way_out = f" (see: {context.command_path} --help)" if context is not None else ""
        return one_line(error.format_message()).rstrip(".") + _origin(error) + way_out
    if isinstance(error, click.ClickException):
        return one_line(error.format_message())
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted"
    advice = "; `actorbus doctor` looks closer" if isinstance(error, (RunStoreError, TransportError)) else ""
    text = one_line(str(error))
    return (text or type(error).__name__) + advice


def _origin(error: click.UsageError) -> str:
    """Where a bad value came from, if not from the command line."""
    context, parameter = error.ctx, getattr(error, "param", None)
    if context is None or parameter is None or parameter.name is None:
        return ""
    source = context.get_parameter_source(parameter.name)
    if source is click.core.ParameterSource.ENVIRONMENT:
        return f"; it comes from the environment variable {parameter.envvar or 'ACTORBUS_...'}"
    if source is click.core.ParameterSource.DEFAULT_MAP:
        return f"; it comes from {context.find_root().obj.file}"
    return ""


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def ends_by_itself() -> AsyncIterator[list[signal.Signals]]:
    """Receive signals for as long as the block lasts, whoever else receives them in it for a while, and none after it.

    Whoever handles signals inside takes his handler away when he has ended, while the rest of the process still closes
    what is open: one that came then would kill it, and its exit code would not say how its work ended.
    """
    came: list[signal.Signals] = []
    try:
        with watching(SIGNALS, came.append):
            yield came
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
