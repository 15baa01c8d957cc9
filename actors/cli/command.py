"""Commands: how they are declared, run and fail."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import anyio
import click

from actors.cli.failures import CommandError, ExitCode, code_of, table, text_of
from actors.cli.settings import PREFIX
from actors.cli.target import imported

P = ParamSpec("P")
R = TypeVar("R")


class Invocation:
    """One call of the program.

    Attributes:
        arguments: What it was called with.
        file: The configuration file that was read; None if there is none.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.file: Path | None = None


class Command(click.Command):
    """A command; its help ends with an example.

    Args:
        example: A line to be typed.
        imports: Whether it imports the modules of `--import` and is not given their names.
    """

    def __init__(self, *arguments: Any, example: str, imports: bool = True, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.example = example
        self._imports = imports

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        for name in ctx.params.pop("imports", ()) if self._imports else ():
            imported(name)
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        del ctx
        _write_examples(formatter, [self.example])


class Group(click.Group):
    """Commands under one word; its help ends with their examples."""

    command_class = Command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        del ctx
        _write_examples(formatter, [each.example for each in self.commands.values() if isinstance(each, Command)])


class Program(Group):
    """The program: every error is one line on stderr and an exit code of the table."""

    group_class = Group

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit codes."""
        super().format_epilog(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text("Exit codes:")
        formatter.write(f"{table()}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. What click itself would print, or call a failure, is said in our way."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:
            raise CommandError("interrupted", ExitCode.INTERRUPTED) from error
        except BrokenPipeError as error:
            raise click.exceptions.Exit(failed(error)) from error

    def main(  # type: ignore[override]  # it always exits
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **keywords: Any
    ) -> NoReturn:
        """Run a command line, and exit."""
        arguments = sys.argv[1:] if args is None else args
        keywords = {"auto_envvar_prefix": PREFIX, "obj": Invocation(arguments), **keywords, "standalone_mode": False}
        try:
            returned = super().main(arguments, prog_name or "actorbus", **keywords)
        except BaseException as error:  # noqa: BLE001 - everything ends as an exit code
            sys.exit(failed(error))
        sys.exit(returned if isinstance(returned, int) else ExitCode.OK)


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    formatter.write_paragraph()
    formatter.write_text("Example:" if len(examples) == 1 else "Examples:")
    for each in examples:
        formatter.write(f"  {each}\n")


def failed(error: BaseException) -> int:
    """Tell an error, and what to exit with."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, BrokenPipeError):  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the interpreter still flushes at its end goes nowhere
        return ExitCode.OK
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else ExitCode.FAILED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    code = code_of(error)
    if code is None:
        traceback.print_exception(error)
        return ExitCode.DEFECT
    click.echo(f"actorbus: {text_of(error)}", err=True)
    return code


def asynchronous(command: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make an `async def` a command."""

    @wraps(command)
    def run(*args: P.args, **keywords: P.kwargs) -> R:
        return anyio.run(partial(command, *args, **keywords))

    return run
