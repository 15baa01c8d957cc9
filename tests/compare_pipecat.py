"""The examples in Pipecat's style on Pipecat and here, and whether they print the same: `make compare-pipecat`.

Pipecat is installed in an environment of its own in `build/`, once; that takes the package index. It is no part of the
tests, which run the same programs here alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from itertools import zip_longest

from bus.brokers import RedisBroker
from tests.support.environment import ROOT, environment

PIPECAT = ("pipecat-ai==1.14.*", "redis")
PLACE = ROOT / "build" / "pipecat"
PROGRAMS = sorted(path.stem for path in (ROOT / "examples" / "from_pipecat").glob("*.py") if path.stem != "__init__")
ROLES = {"hand_over": ("host", "expert")}
"""The programs that are several processes, which meet at a Redis server, and what each is called."""

DEADLINE = 60.0


def main() -> int:
    theirs = environment_of_pipecat()
    return 1 if sum(not compare(program, theirs) for program in PROGRAMS) else 0


def environment_of_pipecat() -> str:
    """The Python of an environment that has Pipecat, which is made if it is not there yet."""
    python, done = PLACE / "bin" / "python", PLACE / "installed"
    if not done.exists() or done.read_text() != str(PIPECAT):
        print(f"installing {', '.join(PIPECAT)} in {PLACE}, once", file=sys.stderr)
        venv.create(PLACE, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PIPECAT]
        subprocess.run(install, env=environment(**ways_to_the_index()), check=True)
        done.write_text(str(PIPECAT))
    return str(python)


def ways_to_the_index() -> dict[str, str]:
    """What pip may need from this environment to reach a package index."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_CERT_")) or name.endswith("_CA_BUNDLE") or name.lower().endswith("_proxy")
    }


def compare(program: str, theirs: str) -> bool:
    """Run one of the programs on both, and show what it printed, side by side."""
    ours, their = play(program, sys.executable), play(program, theirs, LIBRARY="pipecat")
    width = max(map(len, ["actorbus", *ours]))
    print(f"\n{program}: {'the same' if ours == their else 'NOT THE SAME'}\n  {'actorbus':{width}}   Pipecat")
    for here, there in zip_longest(ours, their, fillvalue=""):
        print(f"{' ' if here == there else '!'} {here:{width}} | {there}")
    return ours == their


def play(program: str, python: str, **variables: str) -> list[str]:
    """What a program prints, line by line: of several processes first all of the first one.

    Raises:
        RuntimeError: When one of its processes failed.
        subprocess.TimeoutExpired: When one did not end.
    """
    command = [python, "-m", f"examples.from_pipecat.{program}"]
    if program not in ROLES:
        return lines_of([start(command, variables)])
    with RedisBroker() as broker:
        return lines_of([start([*command, role, broker.url], variables) for role in ROLES[program]])


def start(command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment(**variables), stdout=pipe, stderr=pipe, text=True)


def lines_of(processes: list[subprocess.Popen[str]]) -> list[str]:
    lines = []
    try:
        for process in processes:
            out, errors = process.communicate(timeout=DEADLINE)
            if process.returncode or "Traceback" in errors:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{out}{errors}")
            lines += out.splitlines()
    finally:
        for process in processes:
            process.kill()
    return lines


if __name__ == "__main__":
    sys.exit(main())
