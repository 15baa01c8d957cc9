"""Reloading: a program that is started again whenever a file changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import click
from anyio.abc import Process

from actors.cli.failures import ExitCode, usage
from actors.cli.output import say
from actors.runner.signals import watching

PATIENCE = 35.0
"""Seconds the program may take to end when it is asked to; then it is killed."""


async def reloaded(arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run `actorbus` with these arguments in a process of its own, and again after each change of a Python file.

    Args:
        arguments: Those of `actorbus`.
        folder: Where to look for changes, and below.
        environment: That of the program; None is our own.

    Returns:
        The exit code of the last one, when a signal has ended it.
    """
    try:
        from watchfiles import PythonFilter, awatch  # noqa: PLC0415 - only who reloads needs it
    except ModuleNotFoundError:
        raise usage("--reload needs watchfiles: pip install 'actorbus[cli]'") from None
    stop = anyio.Event()
    code = 0
    # Python knows what it compiled by the second and the size of the source. Of two changes within a second, as by an
    # editor that saves and then formats, it would go on with the first.
    environment = {**(os.environ if environment is None else environment), "PYTHONDONTWRITEBYTECODE": "1"}
    process = await begin(arguments, environment)

    def on_signal(_number: signal.Signals) -> None:
        stop.set()
        if process.returncode is None:
            process.terminate()  # the first one lets it drain, the second does not

    with watching((signal.SIGINT, signal.SIGTERM), on_signal):
        try:
            async for changes in awatch(folder, watch_filter=PythonFilter(), stop_event=stop):
                shown = ", ".join(sorted(Path(path).name for _, path in changes)[:3])
                say(f"actorbus: {shown} changed, starting again")
                await end(process, PATIENCE)
                if stop.is_set():
                    break
                process = await begin(arguments, environment)
                if stop.is_set():  # the signal came between the two
                    process.terminate()
            code = await process.wait()
            if code == -signal.SIGTERM:  # it had only begun to start: nothing was under way
                code = ExitCode.OK
        finally:
            with anyio.CancelScope(shield=True):
                await end(process, PATIENCE)
    return code


ENDS_WITH_PARENT = "--ends-with-parent"

child_option = click.option(
    ENDS_WITH_PARENT, is_flag=True, hidden=True, help="End as by SIGTERM when stdin does: used by --reload and dev."
)


async def begin(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Start `actorbus` with these arguments, tethered to this process; None is our own environment.

    It has a session of its own: Ctrl-C reaches it through us, once.
    """
    command = [sys.executable, "-m", "actors.cli", *arguments, ENDS_WITH_PARENT]
    return await anyio.open_process(
        command, stdin=subprocess.PIPE, stdout=None, stderr=None, env=environment, start_new_session=True
    )


async def end(process: Process, patience: float) -> None:
    """Ask a process to end, and kill it if it has not after `patience` seconds."""
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(patience):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdin is not None:
        await process.stdin.aclose()


def end_with_parent() -> None:
    """End, as by SIGTERM, when whoever started this process has died."""

    def wait() -> None:
        while os.read(0, 1):
            """Nobody writes."""
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
