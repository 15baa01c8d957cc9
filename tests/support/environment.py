"""The environment of the tests and of the programs they start: a user's, whatever the caller of the tests had in his.

Without this a test passes or fails by how it is called: make tells each make below it what it was told itself, CI sets
variables that nobody else has, and a bus, a key or a collector of telemetry may be left over in somebody's shell.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

KEPT = {"HOME", "PATH", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
"""What a login gives, and what a Python may need to start. Besides these, all that begins with `LC_`."""

PYTEST = "PYTEST_"
"""How the names begin that pytest and its plugins set for themselves, and need."""


def environment(**more: str) -> dict[str, str]:
    """What a program is started with: a user's environment, and the packages of this checkout.

    The terminal is one that can do everything, of a size that stays: programs look at that when they show something.

    Args:
        more: What else it shall have, or have instead.
    """
    kept = {name: value for name, value in os.environ.items() if is_kept(name)}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **more}


def leave_a_users_environment() -> None:
    """Take all that a user would not have out of the environment of this process, which runs tests."""
    for name in tuple(os.environ):
        if not is_kept(name) and not name.startswith(PYTEST):
            del os.environ[name]


def is_kept(name: str) -> bool:
    return name in KEPT or name.startswith("LC_")
