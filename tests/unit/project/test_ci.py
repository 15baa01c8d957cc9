"""CI types what a user types, in a user's environment."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.environment import ROOT, environment
from tests.unit.project.test_environment import STRAY

MAKE = """#!/bin/sh
env >"$HOME/$1.env"
echo "this is $1"
if [ -e "$HOME/$1" ]; then . "$HOME/$1"; fi
"""


class Checkout:
    """One that holds only what CI runs, with a make that writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.command = ["bash", str(folder / "a tree" / ".ci" / "run")]
        self.path = f"{folder / 'bin'}:{os.environ['PATH']}"
        (folder / "a tree" / ".ci").mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "run", folder / "a tree" / ".ci")
        (folder / "bin").mkdir()
        self.home.mkdir()
        make = folder / "bin" / "make"
        make.write_text(MAKE)
        make.chmod(0o755)
        self.does("test", "echo '3 passed, 1 skipped in 0.42s'")

    def does(self, target: str, script: str) -> None:
        (self.home / target).write_text(script)

    def run(self) -> tuple[int, list[str], str]:
        """Its exit code and what it prints."""
        ended = subprocess.run(
            self.command,
            env=environment(PATH=self.path, HOME=str(self.home), PIP_INDEX_URL="there", **STRAY),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout.splitlines(), ended.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_ci_types_what_the_readme_says_and_closes_with_the_line_of_the_test_runner(checkout: Checkout) -> None:
    closing = "3 passed, 1 skipped in 0.42s"
    assert checkout.run() == (0, ["this is check", "this is test", closing, closing], "")
    assert re.search(r"^make test +# the tests$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    targets = (ROOT / "Makefile").read_text("utf-8")
    assert {"check", "test"} <= set(re.findall(r"^(\w+): \$\(STAMP\) ##", targets, re.MULTILINE))


@pytest.mark.parametrize("target", ["check", "test"])
def test_ci_gives_nothing_of_its_own_environment_that_a_user_would_not_have(checkout: Checkout, target: str) -> None:
    checkout.run()
    lines = (checkout.home / f"{target}.env").read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    assert not set(STRAY).intersection(given)
    assert (given["HOME"], given["PIP_INDEX_URL"]) == (str(checkout.home), "there")


@pytest.mark.parametrize(
    "closing",
    [
        "1 failed, 4599 passed in 260.11s (0:04:20)",
        "======= 2 errors in 0.31s =======",
        "1 failed, 2 passed, 1 skipped, 3 deselected, 1 xfailed, 1 warning, 1 error in 1.00s",
        "no tests ran in 0.01s",
    ],
)
def test_ci_fails_with_the_tests_and_still_ends_with_their_line(checkout: Checkout, closing: str) -> None:
    checkout.does("test", f"echo '{closing}'; echo 'make: *** [Makefile:22: test] Error 1' >&2; exit 2")
    code, lines, _ = checkout.run()
    assert (code, lines[-1]) == (2, closing)
    assert lines[-2].startswith("make: ***")


def test_ci_fails_with_the_checks_and_runs_the_tests_all_the_same(checkout: Checkout) -> None:
    checkout.does("check", "exit 3")
    code, lines, _ = checkout.run()
    assert (code, lines[-1]) == (3, "3 passed, 1 skipped in 0.42s")


@pytest.mark.parametrize("code", [0, 2])
def test_ci_says_so_and_fails_when_the_tests_end_without_a_closing_line(checkout: Checkout, code: int) -> None:
    checkout.does("test", f"echo 'it takes 3 passed in 1.00s to be a line'; exit {code}")
    said = checkout.run()
    assert (said[0], said[2]) == (1, "the test run ended without its closing line\n")


def test_ci_shows_what_is_said_as_it_is_said(checkout: Checkout) -> None:
    """On a terminal, before the tests go on."""
    checkout.does("test", "read -r go <$HOME/go; echo '1 passed in 0.01s'")
    os.mkfifo(checkout.home / "go")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        checkout.command,
        env=environment(PATH=checkout.path, HOME=str(checkout.home)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with open(ours, "rb", buffering=0) as shown:  # noqa: PTH123 - a descriptor
        said = b""
        while b"this is test" not in said:
            said += shown.read(100)
        (checkout.home / "go").write_text("go\n")
        assert process.wait(60) == 0
        assert shown.read(1000).split() == [*b"1 passed in 0.01s".split()] * 2
