"""Has the checkers of users look at the program, as `make check` does: mypy, and pyright in two of its modes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.environment import ROOT, environment

PROGRAM = ROOT / "tests" / "typed" / "program.py"
WRONG = "# wrong"

MYPY = ("mypy", "--config-file=", "--strict", "--no-error-summary", "--no-pretty", "--hide-error-context")


def lines_that_are_wrong() -> set[int]:
    """Lines that every checker must refuse."""
    return {number for number, line in enumerate(PROGRAM.read_text("utf-8").splitlines(), 1) if line.endswith(WRONG)}


def by_mypy(said: str) -> Iterator[tuple[int, str]]:
    """The lines it refuses, with the reason."""
    for line in said.splitlines():
        place, error, reason = line.partition(": error: ")
        if error:
            yield int(place.split(":")[-1]), reason


def by_pyright(said: str) -> Iterator[tuple[int, str]]:
    """The lines it refuses, with the reason."""
    for each in json.loads(said)["generalDiagnostics"]:
        if each["severity"] == "error":
            yield each["range"]["start"]["line"] + 1, each["message"]


def run(*command: str) -> str:
    """What a checker says."""
    ended = subprocess.run(
        (sys.executable, "-m", *command),
        cwd=ROOT,
        env=environment(PYRIGHT_PYTHON_IGNORE_WARNINGS="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode not in {0, 1}:
        raise SystemExit(f"{command[0]} did not run: {ended.stderr or ended.stdout}")
    return ended.stdout


def problems() -> Iterator[str]:
    """What is wrong with what the checkers say."""
    wrong = lines_that_are_wrong()
    with tempfile.TemporaryDirectory() as directory:
        answers = {"mypy --strict": dict(by_mypy(run(*MYPY, str(PROGRAM))))}
        for mode in ("basic", "strict"):
            config = Path(directory) / f"{mode}.json"
            config.write_text(json.dumps({"extraPaths": [str(ROOT)], "typeCheckingMode": mode}))
            said = run(
                "pyright", "--project", str(config), "--pythonpath", sys.executable, "--outputjson", str(PROGRAM)
            )
            answers[f"pyright, {mode}"] = dict(by_pyright(said))
    for checker, told in answers.items():
        for line in sorted(told.keys() - wrong):
            yield f"{PROGRAM.relative_to(ROOT)}:{line}: {checker} refuses it: {told[line]}"
        for line in sorted(wrong - told.keys() - only_strict(checker)):
            yield f"{PROGRAM.relative_to(ROOT)}:{line}: {checker} takes what is wrong"


def only_strict(checker: str) -> set[int]:
    """Lines that only a strict checker refuses: a comparison that is never true is no error to the others."""
    if checker != "pyright, basic":
        return set()
    lines = PROGRAM.read_text("utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.lstrip().startswith("elif ")}


if __name__ == "__main__":
    found = list(problems())
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
