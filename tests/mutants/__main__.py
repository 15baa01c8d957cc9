"""`python -m tests.mutants` plants each fault in a copy of the code, and fails if one is not caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants import MUTANTS, Mutant
from tests.support.environment import ROOT, environment

TIMEOUT = 300


def plant(mutant: Mutant, tree: Path) -> None:
    """Put a fault into a copy of the code."""
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new))


def copy_tree(to: Path) -> None:
    """Copy what the checks need."""
    for name in ("actors", "bus", "docs", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)


def check(tree: Path, arguments: tuple[str, ...]) -> tuple[bool, str]:
    """Run a check in a tree. Whether it passed, and the end of what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tree,
            env=environment(PYTHONPATH=str(tree)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, "it did not end"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode == 0, next((line for line in reversed(lines) if "failed" in line or "rror" in line), "")


def try_mutant(mutant: Mutant) -> tuple[bool, str]:
    """Whether a mutant is caught, and by what."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        plant(mutant, tree)
        passed, said = check(tree, mutant.check)
        return not passed, said


def main(names: list[str]) -> int:
    """Run mutants; 0 if all are caught."""
    mutants = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for arguments in dict.fromkeys(mutant.check for mutant in mutants):
            passed, said = check(Path(folder), arguments)
            if not passed:
                print(f"the code itself fails {' '.join(arguments)}: {said}")
                return 1
    missed = 0
    with ThreadPoolExecutor(2) as pool:
        for mutant, (caught, said) in zip(mutants, pool.map(try_mutant, mutants), strict=True):
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {mutant.name}  {said[:110]}", flush=True)
    print(f"{len(mutants)} mutants, {len(mutants) - missed} caught, {missed} missed")
    return 1 if missed or not mutants else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
