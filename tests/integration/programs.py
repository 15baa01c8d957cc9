"""Programs run as a user runs them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.environment import ROOT, environment

DEADLINE = 100.0


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


def assert_says(output: str, patterns: list[str]) -> None:
    lines = iter(output.splitlines())
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"no line {pattern!r} in its place in:\n{output}"


def wait_for_its_end(link: socket.socket) -> None:
    """The connection ends with the process at its other side."""
    with suppress(ConnectionResetError):
        while link.recv(4096):
            pass
