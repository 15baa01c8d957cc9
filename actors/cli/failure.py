"""What a command says when it fails: one line with the way out, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from actors.cli.exit_code import ExitCode
from actors.errors import ActorError, JobError, JobTimeoutError, WorkerUnavailableError
from actors.runs.errors import RunFailedError, RunNotFoundError, RunStoreError
from bus import BusError, DecodeError, TransportError


class CommandError(click.ClickException):
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


IN_PROGRAMS = "call bus.register_type on its class in this process too"
"""How a program gets values of a type it does not know."""


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
    text = one_line(str(error)).replace(IN_PROGRAMS, "name the module that has it with --import")
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
