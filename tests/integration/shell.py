"""The program `actorbus` run as a user runs it, in a folder with a module of workers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.cli.failures import ExitCode
from tests.support.environment import environment

DEADLINE = 90.0

SHOP = """
    from collections.abc import AsyncIterator
    from dataclasses import dataclass
    import anyio
    from actors import BaseWorker, Job, job

    @dataclass
    class Bill:
        total: float

    class Till(BaseWorker):
        @job
        async def bill(self, count: int) -> Bill:
            return Bill(2.5 * count)

        @job
        async def charge(self, count: int) -> float:
            return 2.5 * count

        @job
        async def count(self, job: Job[int]) -> AsyncIterator[int]:
            await job.update("from 0")
            for number in range(job.payload):
                yield number

        @job
        async def fail(self) -> None:
            raise RuntimeError("the drawer is stuck")

        @job
        async def nap(self, seconds: float) -> str:
            print("napping", flush=True)
            try:
                await anyio.sleep(seconds)
            except BaseException:
                print("woken", flush=True)
                raise
            return "slept"

    class Stillborn(BaseWorker):
        async def start(self):
            raise RuntimeError("never")
"""


class Shell:
    """A folder with a module, and a broker."""

    def __init__(self, folder: Path, bus: str) -> None:
        self.folder = folder
        self.bus = bus
        (folder / "shop.py").write_text(textwrap.dedent(SHOP), "utf-8")

    def begin(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start `actorbus`."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "actors.cli", *arguments],
            cwd=self.folder,
            env=environment(**{"ACTORBUS_BUS": self.bus, **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: ExitCode = ExitCode.OK) -> str:
        """Run `actorbus` to its end, and return what it printed: on stdout, or on stderr if it was to fail."""
        process = self.begin(*arguments)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == code, out + err
        if code is ExitCode.OK:
            return out
        assert err.count("\n") == 1, err
        return err

    def json(self, *arguments: str, code: ExitCode = ExitCode.OK) -> Any:
        """The same with `--json`, decoded."""
        return json.loads(self.run(*arguments, "--json", code=code))

    @contextmanager
    def worker(self, *arguments: str, ends: Sequence[int] = (0,)) -> Iterator[Started]:
        """A worker that serves; it is sent SIGTERM at the end, and must end like that."""
        store = [] if "--run-store" in arguments else ["--run-store", "memory://"]
        process = self.begin("worker", "start", *(arguments or ["shop:Till"]), *store, "--json", "--health-port", "0")
        started = Started(process)
        try:
            yield started
            if not started.ending:
                started.terminate()
            out, err = process.communicate(timeout=DEADLINE)
            assert process.returncode in ends, out + err
        finally:
            process.kill()
            process.communicate()


class Started:
    """A worker process that is ready, and what it says of itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        self.told = json.loads(line)
        self.ending = False

    def terminate(self) -> None:
        self.ending = True
        self.process.terminate()

    def says(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{line}\n"


def wait_for_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ready"):
            return
    raise AssertionError("it has ended")
