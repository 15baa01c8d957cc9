"""The command line as it is typed: real processes, real brokers."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.cli.exit_code import ExitCode
from bus import BusJobRequestMessage, Outgoing, Settlement
from bus.brokers import BROKERS, RedisBroker, free_port
from bus.codec import encode
from bus.transports.redis_streams import RedisTransport

ROOT = Path(__file__).parents[2]
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

    def begin(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `actorbus`."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ACTORBUS_")}
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "actors.cli", *arguments],
            cwd=self.folder,
            env={**clean, "PYTHONPATH": str(ROOT), "ACTORBUS_BUS": self.bus, **environment},
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


@pytest.fixture
def shell(tmp_path: Path, redis_broker: RedisBroker) -> Shell:
    return Shell(tmp_path, redis_broker.url)


@pytest.mark.parametrize("scheme", list(BROKERS))
def test_a_worker_is_started_seen_asked_and_drained(tmp_path: Path, scheme: str) -> None:
    with BROKERS[scheme]() as broker:
        shell = Shell(tmp_path, broker.url)
        with shell.worker("shop:Till", "other=shop:Till", "--name", "shop-1") as worker:
            assert worker.told["workers"] == {"Till": "shop:Till", "other": "shop:Till"}
            (till, other) = sorted(shell.json("ps"), key=lambda each: str(each["worker_name"]))
            assert (till["worker_name"], till["runner"], till["active"]) == ("Till", "shop-1", True)
            assert other["worker_name"] == "other"
            with urllib.request.urlopen(f"http://127.0.0.1:{worker.told['health_port']}/readyz", timeout=30) as answer:
                assert json.load(answer)["ready"] is True
            assert shell.json("invoke", "Till", "--job", "charge", "-p", "2") == 5.0
            assert shell.run("invoke", "other", "--job", "count", "-p", "3") == "0\n1\n2\n"
            lines = shell.run("invoke", "Till", "--job", "count", "-p", "1", "--follow", "--json").splitlines()
            assert [json.loads(line)["type"] for line in lines] == ["update", "stream_data", "answer"]
            assert "the drawer is stuck" in shell.run("invoke", "Till", "--job", "fail", code=ExitCode.FAILED)
            unknown = shell.run("invoke", "Till", "--job", "bill", "-p", "2", code=ExitCode.FAILED)
            assert unknown.endswith("name the module that has it with --import\n")
            assert shell.json("invoke", "Till", "--job", "bill", "-p", "2", "--import", "shop") == {"total": 5.0}
            nobody = shell.run("invoke", "Teller", "--ready-timeout", "1", code=ExitCode.NOT_FOUND)
            assert "nobody served 'Teller'" in nobody
            asked = shell.begin("invoke", "Till", "--job", "nap", "-p", "2")
            worker.says("napping")
            worker.terminate()  # while the job runs: it ends first
            assert asked.communicate(timeout=DEADLINE)[0] == "slept\n"


def test_a_second_signal_ends_a_worker_at_once_and_who_waits_is_told(shell: Shell) -> None:
    with shell.worker(ends=(ExitCode.INTERRUPTED,)) as worker:
        asked = shell.begin("invoke", "Till", "--job", "nap", "-p", "600")
        worker.says("napping")
        worker.terminate()
        assert worker.process.stderr is not None
        assert "ending gracefully" in worker.process.stderr.readline()
        worker.terminate()
        worker.says("woken")
        _, err = asked.communicate(timeout=DEADLINE)
        assert asked.returncode == ExitCode.FAILED
        assert err.count("\n") == 1


def test_ctrl_c_cancels_the_job_that_was_invoked(shell: Shell) -> None:
    with shell.worker() as worker:
        asked = shell.begin("invoke", "Till", "--job", "nap", "-p", "600")
        worker.says("napping")
        asked.send_signal(signal.SIGINT)
        assert asked.communicate(timeout=DEADLINE) == ("", "actorbus: interrupted\n")
        assert asked.returncode == ExitCode.INTERRUPTED
        worker.says("woken")


def test_a_worker_that_cannot_start_is_a_failure(shell: Shell) -> None:
    process = shell.begin("worker", "start", "shop:Stillborn", "--run-store", "memory://", "--log-format", "json")
    _, err = process.communicate(timeout=DEADLINE)
    *logged, last = err.splitlines()
    assert process.returncode == ExitCode.FAILED
    assert last.startswith("actorbus: ")
    assert "Stillborn" in last
    assert any("never" in json.loads(line).get("error", "") for line in logged if line.startswith("{"))


def test_events_shows_workers_that_come_and_go(shell: Shell) -> None:
    with shell.worker("--name", "first", "shop:Till"):
        watching = shell.begin("events", "--json")
        assert watching.stdout is not None
        ready = json.loads(watching.stdout.readline())
        assert (ready["type"], ready["data"]["runner"]) == ("worker_ready", "first")
        with shell.worker("--name", "second", "shop:Till"):
            ready = json.loads(watching.stdout.readline())
            assert (ready["type"], ready["data"]["runner"]) == ("worker_ready", "second")
        inactive = json.loads(watching.stdout.readline())
        assert (inactive["data"]["runner"], inactive["data"]["active"]) == ("second", False)
        lost = json.loads(watching.stdout.readline())
        assert (lost["type"], lost["data"]["runner"]) == ("worker_lost", "second")
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=DEADLINE)
        assert watching.returncode == ExitCode.INTERRUPTED


async def give_up(url: str, count: int) -> None:
    transport = RedisTransport(url)
    await transport.open("quitter#1")
    try:
        for number in range(count):
            request = BusJobRequestMessage(
                source="somebody", target="Till", job_id=f"job-{number}", job_name="charge", payload=number
            )
            await transport.send(
                [Outgoing("queue", "Till", f"id-{number}", encode(request, id="1", origin="quitter#1"))]
            )
            transport.demand("Till", 1)
            with anyio.fail_after(60):
                while not (claims := await transport.receive()):
                    pass
            assert await transport.settle(claims[0], Settlement.TERM)
    finally:
        await transport.close()


def test_dead_letters_are_listed_shown_done_again_and_thrown_away(shell: Shell) -> None:
    anyio.run(give_up, shell.bus, 3)
    letters = shell.json("dead-letters", "list", "--worker", "Till")
    assert [letter["payload"] for letter in letters] == [0, 1, 2]
    assert shell.json("dead-letters", "list", "--after", letters[1]["id"]) == letters[2:]
    assert shell.json("dead-letters", "show", letters[1]["id"]) == letters[1]
    with shell.worker():
        assert shell.json("dead-letters", "requeue", letters[1]["id"]) == 2.5
    assert "there is no dead letter" in shell.run("dead-letters", "show", letters[1]["id"], code=ExitCode.NOT_FOUND)
    assert "there is no dead letter" in shell.run("dead-letters", "requeue", letters[1]["id"], code=ExitCode.NOT_FOUND)
    assert shell.json("dead-letters", "purge") == {"letters": 2, "purged": False}
    assert shell.json("dead-letters", "purge", letters[0]["id"], "--yes") == {"letters": 1, "purged": True}
    assert shell.json("dead-letters", "purge", "--worker", "Till", "--yes") == {"letters": 1, "purged": True}
    assert shell.json("dead-letters", "list") == []


@pytest.mark.parametrize("scheme", list(BROKERS))
def test_the_doctor_looks_at_the_broker(tmp_path: Path, scheme: str) -> None:
    with BROKERS[scheme]() as broker:
        found = doctors_view(Shell(tmp_path, broker.url))
    assert [found[check][0] for check in ("broker", "version", "persistence", "rights", "clock", "fleet")] == ["ok"] * 6
    assert found["keys"][0] == "warning"


def test_the_doctor_warns_of_a_broker_that_forgets(tmp_path: Path) -> None:
    with RedisBroker("maxmemory 100mb\nmaxmemory-policy allkeys-lru", persistent=False) as broker:
        found = doctors_view(Shell(tmp_path, broker.url))
    assert found["persistence"][0] == found["memory"][0] == "warning"
    assert "set appendonly yes" in found["persistence"][1]


def test_the_doctor_names_rights_that_are_missing(tmp_path: Path) -> None:
    with RedisBroker("user worker on >secret ~actorbus:* +@all -xclaim -time") as broker:
        found = doctors_view(Shell(tmp_path, f"redis://worker:secret@127.0.0.1:{broker.port}"))
    assert found["rights"][0] == "failed"
    assert found["rights"][1].startswith("xclaim refused")
    assert found["clock"][0] == "warning"
    assert "fleet" not in found


def test_the_doctor_names_a_nats_server_without_jetstream_rights(tmp_path: Path) -> None:
    settings = (
        'authorization { users = [{ user: w, password: s, permissions: { publish: ["$JS.API.>", "_INBOX.>"] } }] }'
    )
    with BROKERS["nats"](settings) as broker:
        found = doctors_view(Shell(tmp_path, f"nats://w:s@127.0.0.1:{broker.port}"))
    assert found["rights"][0] == "failed"
    assert "publish" in found["rights"][1].lower()


def test_the_doctor_finds_no_broker_where_there_is_none(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "redis://127.0.0.1:1")
    process = shell.begin("doctor")
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (ExitCode.UNREACHABLE, "")
    assert "FAILED   broker" in out


def doctors_view(shell: Shell) -> dict[str, tuple[str, str]]:
    process = shell.begin("doctor", "--json")
    out, err = process.communicate(timeout=DEADLINE)
    assert not err
    return {each["check"]: (each["state"], each["text"]) for each in json.loads(out)}


def test_dev_brings_a_broker_and_starts_the_worker_again_when_its_file_changes(tmp_path: Path) -> None:
    shell = Shell(tmp_path, "")
    arguments = ("dev", "shop:Till", "--no-server", "--json")
    process = shell.begin(*arguments, ACTORBUS_RUN_STORE="memory://")
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        shell.bus = json.loads(process.stdout.readline())["bus"]
        wait_for_ready(process)
        assert shell.json("invoke", "Till", "--job", "charge", "-p", "2") == 5.0
        source = tmp_path / "shop.py"
        source.write_text(source.read_text("utf-8").replace("2.5", "3.5"), "utf-8")
        wait_for_ready(process)
        assert shell.json("invoke", "Till", "--job", "charge", "-p", "2") == 7.0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == ExitCode.OK, out + err
        assert shell.run("ps", "--connect-timeout", "1", code=ExitCode.UNREACHABLE)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


def test_the_two_lines_of_the_readme_work(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    block = readme.partition("<!-- shell -->")[2].partition("<!-- /shell -->")[0]
    port = str(free_port())  # that of the README may be taken here
    developing, asking = (
        shlex.split(line.replace("6400", port)) for line in block.splitlines() if line.startswith("actorbus")
    )
    shell = Shell(tmp_path, "")
    process = shell.begin(*developing[1:], ACTORBUS_RUN_STORE="memory://")
    try:
        wait_for_ready(process)
        assert shell.run(*asking[1:]) == "Hello, world!\n"
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)
    assert process.returncode == ExitCode.OK


def wait_for_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ready"):
            return
    raise AssertionError("it has ended")
