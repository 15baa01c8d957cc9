"""Programs run as a user runs them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from tests.support.environment import ROOT, environment

DEADLINE = 100.0

TAKEN = re.compile(r"(SIGINT: ending, .*; Ctrl-C|SIGTERM: ending, .*; SIGTERM) once more stops at once\n")
"""What a program says when the first signal comes."""


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python from the checkout; a warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@contextmanager
def started(command: str | list[str], *, cwd: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    """A command, or a line for the shell, in a group of processes of its own; its process is killed with the block."""
    with subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def program(name: str, *arguments: str, stderr: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """One of `tests.integration.programs`, until the end of the block at the latest; a warning in it is an error.

    Args:
        name: Its module.
        arguments: What it is given.
        stderr: `PIPE` if the test reads what it logs; else that comes out with what the test says.
    """
    command = [sys.executable, "-W", "error", "-m", f"tests.integration.programs.{name}", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def ready(name: str, *arguments: str) -> AsyncGenerator[subprocess.Popen[str]]:
    """The same, once it has said that it serves."""
    with program(name, *arguments) as process:
        assert await next_line(process) == "ready"
        yield process


async def next_line(process: subprocess.Popen[str]) -> str:
    """Wait for what a program says next; the empty string if it has ended."""
    return (await anyio.to_thread.run_sync(line_of, process, abandon_on_cancel=True)).strip()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def assert_says(output: str, patterns: list[str]) -> None:
    lines = iter(output.splitlines())
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"no line {pattern!r} in its place in:\n{output}"


def wait_for_its_end(link: socket.socket) -> None:
    """The connection ends with the process at its other side."""
    with suppress(ConnectionResetError):
        while link.recv(4096):
            pass
