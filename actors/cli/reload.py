"""Reloading: a program that is started again whenever a file changes."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from actors.cli.failure import usage
from actors.cli.output import say
from actors.cli.tether import begin, end
from actors.signals import watch

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
    async with anyio.create_task_group() as tasks:
        process = await begin(arguments, environment)

        def on_signal(number: signal.Signals) -> None:
            stop.set()
            if process.returncode is None:
                process.send_signal(number)  # the first one lets it drain, the second does not

        for number in (signal.SIGINT, signal.SIGTERM):
            tasks.start_soon(watch, number, on_signal)
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
        finally:
            with anyio.CancelScope(shield=True):
                await end(process, PATIENCE)
        tasks.cancel_scope.cancel()
    return code
