"""A file or package of the user's that hides one of ours is named, in one line, by whoever imports us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import environment
from tests.support.processes import run


@pytest.mark.parametrize("where", ["bus.py", "bus/__init__.py", "bus/notes.txt"])
def test_what_hides_the_bus_is_named(where: str, tmp_path: Path) -> None:
    hiding = tmp_path / where
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("")
    ended = run("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import actors", cwd=tmp_path)
    if where == "bus/notes.txt":  # a folder without __init__.py hides nothing that is a package
        assert ended.returncode == 0, ended.stderr
        return
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert "needs its own package 'bus'" in last
    assert str(hiding) in last
    assert "rename it" in last


def test_a_project_with_a_bus_of_its_own_has_its_tests_run(tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text("seats = 50\n")
    (tmp_path / "test_seats.py").write_text("import bus\n\ndef test_seats(): assert bus.seats == 50\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
