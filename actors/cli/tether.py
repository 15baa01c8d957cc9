"""Programs of ours that end with the process that started them, whatever that one dies of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import anyio
import click
from anyio.abc import Process

TETHERED = "--tethered"

tethered_option = click.option(
    TETHERED, is_flag=True, hidden=True, help="End as by SIGTERM when stdin does: used by --reload and dev."
)


async def begin(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Start `actorbus` with these arguments, tethered to this process; None is our own environment.

    It has a session of its own: Ctrl-C reaches it through us, once.
    """
    command = [sys.executable, "-m", "actors.cli", *arguments, TETHERED]
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
