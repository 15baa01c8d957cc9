"""The tests, and what they start, have a user's environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import KEPT, environment, leave_a_users_environment

STRAY = {
    "ACTORBUS_BUS": "redis://10.0.0.1:6379",
    "ACTORBUS_PORT": "tcp://10.0.0.1:80",
    "ACTORBUS_SIGNING_KEY": "00",
    "ARGS": "-k nothing",
    "CI": "true",
    "COLUMNS": "40",
    "FORCE_COLOR": "1",
    "MAKEFLAGS": "w -- ARGS=-x",
    "MAKELEVEL": "1",
    "MFLAGS": "-w",
    "NO_COLOR": "1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://10.0.0.1",
    "PYTEST_ADDOPTS": "-x",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "error",
}
"""What callers of tests have had, and users have not."""

OURS = {"PYTHONPATH", "TERM", "COLUMNS", "LINES"}


@pytest.fixture
def _stray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STRAY.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_stray")
def test_a_program_gets_nothing_that_the_caller_of_the_tests_happens_to_have() -> None:
    given = environment(ACTORBUS_BUS="redis://localhost")
    assert given.pop("ACTORBUS_BUS") == "redis://localhost"
    assert given["COLUMNS"] != STRAY["COLUMNS"]
    assert {name for name in given if not name.startswith("LC_")} <= KEPT | OURS
    assert given["PATH"] == os.environ["PATH"]


@pytest.mark.usefixtures("_stray")
def test_the_process_of_the_tests_keeps_only_what_pytest_needs_besides() -> None:
    leave_a_users_environment()
    assert set(STRAY).intersection(os.environ) == {"PYTEST_ADDOPTS"}
    assert "PATH" in os.environ


def test_this_process_has_such_an_environment() -> None:
    assert {name for name in os.environ if not name.startswith(("LC_", "PYTEST_"))} <= KEPT


def test_an_outer_make_does_not_reach_a_make_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@echo $(A) $(MAKELEVEL)\n")
    program = (
        "import subprocess\nfrom tests.support.environment import environment\n"
        f"subprocess.run(['make', '-C', {str(tmp_path)!r}, 'A=inner', '--no-print-directory'], env=environment())"
    )
    (tmp_path / "outer.mk").write_text('all:\n\t@"$$PY" -c "$$PROGRAM"\n')
    command = ["make", "-f", "outer.mk", "A=outer", "-j2", "-w"]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(PY=sys.executable, PROGRAM=program),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[1:-1] == ["inner 0"]
