"""The command line as it is typed: real processes, real brokers."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from actors.cli.failures import ExitCode
from bus import BusJobRequestMessage, Outgoing, Settlement
from bus.brokers import BROKERS, RedisBroker, free_port
from bus.redis.transport import RedisTransport
from bus.wire.codec import encode
from tests.integration.shell import DEADLINE, Shell, wait_for_ready
from tests.support.environment import ROOT


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
            asked = shell.begin("invoke", "Till", "--job", "nap", "-p", "2")
            worker.says("napping")
            worker.terminate()  # while the job runs: it ends first
            assert asked.communicate(timeout=DEADLINE)[0] == "slept\n"


def test_a_worker_is_asked_for_jobs_of_all_kinds(shell: Shell) -> None:
    with shell.worker("shop:Till", "other=shop:Till"):
        assert "\x1b" not in shell.run("ps")  # no colours where no terminal is
        assert shell.run("invoke", "other", "--job", "count", "-p", "3") == "0\n1\n2\n"
        lines = shell.run("invoke", "Till", "--job", "count", "-p", "1", "--follow", "--json").splitlines()
        assert [json.loads(line)["type"] for line in lines] == ["update", "stream_data", "answer"]
        assert "the drawer is stuck" in shell.run("invoke", "Till", "--job", "fail", code=ExitCode.FAILED)
        assert shell.json("invoke", "Till", "--job", "bill", "-p", "2") == {"total": 5.0}
        assert shell.json("invoke", "Till", "--job", "bill", "-p", "2", "--import", "shop") == {"total": 5.0}
        nobody = shell.run("invoke", "Teller", "--ready-timeout", "1", code=ExitCode.NOT_FOUND)
        assert "nobody served 'Teller'" in nobody


def test_a_second_signal_ends_a_worker_at_once_and_who_waits_is_told(shell: Shell) -> None:
    with shell.worker(ends=(ExitCode.INTERRUPTED,)) as worker:
        asked = shell.begin("invoke", "Till", "--job", "nap", "-p", "600")
        worker.says("napping")
        worker.terminate()
        assert worker.process.stderr is not None
        assert "SIGTERM: ending, waiting up to 30 s for 1 job of 'Till'" in worker.process.stderr.readline()
        worker.terminate()
        worker.says("woken")
        _, err = asked.communicate(timeout=DEADLINE)
        assert asked.returncode == ExitCode.FAILED
        assert err.count("\n") == 1


def test_signals_do_not_kill_a_worker_that_is_ending_already(shell: Shell) -> None:
    with shell.worker("shop:Till", ends=(ExitCode.OK, ExitCode.INTERRUPTED)) as worker:
        give_up = time.monotonic() + DEADLINE
        while worker.process.poll() is None and time.monotonic() < give_up:
            worker.terminate()
            with suppress(subprocess.TimeoutExpired):  # more of them would keep it from anything else
                worker.process.wait(timeout=0.01)


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


def test_events_shows_what_becomes_of_jobs(shell: Shell) -> None:
    seen = threading.Event()

    def ask() -> None:
        while not seen.is_set():  # a worker that does not know yet of who watches says nothing
            shell.run("invoke", "Till", "--job", "fail", code=ExitCode.FAILED)

    with shell.worker("--name", "first", "shop:Till"), ThreadPoolExecutor(1) as threads:
        watching = [shell.begin("events", "--json"), shell.begin("events")]
        asking = threads.submit(ask)
        try:
            as_json, as_text = (line_of(each, "job_failed") for each in watching)
        finally:
            seen.set()
            for each in watching:
                each.send_signal(signal.SIGINT)
                each.communicate(timeout=DEADLINE)
        asking.result()
    told = json.loads(as_json)["data"]
    assert (told["worker_name"], told["job_name"], told["runner"]) == ("Till", "fail", "first")
    assert told["error"]["message"] == "the drawer is stuck"
    wanted = r"job_failed +Till:fail on first, job \S+, attempt 1: RuntimeError: the drawer is stuck\n"
    assert re.fullmatch(wanted, as_text), as_text


def line_of(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if word in line)


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
            assert await transport.settle([(claims[0], Settlement.TERM)]) == [True]
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


def change_at_once(source: Path, old: str, new: str) -> None:
    """As an editor does: put a file that is whole in place of the other, within the second of the last change."""
    changed = source.with_suffix(".new")
    changed.write_text(source.read_text("utf-8").replace(old, new), "utf-8")
    then = source.stat().st_mtime_ns
    os.utime(changed, ns=(then, then))
    changed.replace(source)


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
        change_at_once(tmp_path / "shop.py", "2.5", "3.5")
        wait_for_ready(process)
        assert shell.json("invoke", "Till", "--job", "charge", "-p", "2") == 7.0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == ExitCode.OK, out + err
        assert shell.run("ps", "--connect-timeout", "1", code=ExitCode.UNREACHABLE)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_ends_well_while_its_worker_has_only_begun_to_start(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('starting', flush=True)\ntime.sleep(1000)\n", "utf-8")
    process = Shell(tmp_path, "").begin("dev", "slow:Till", "--no-server")
    try:
        assert line_of(process, "starting")
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == ExitCode.OK, out + err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_nothing_of_dev_outlives_it_when_it_is_killed(tmp_path: Path) -> None:
    process = Shell(tmp_path, "").begin("dev", "shop:Till", "--no-server", ACTORBUS_RUN_STORE="memory://")
    try:
        wait_for_ready(process)
    finally:
        process.kill()
    process.communicate(timeout=DEADLINE)  # ends when nobody can write to its pipes any more, the worker neither


def test_the_two_lines_of_the_readme_work(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```sh\n(actorbus .*?)```", readme, re.DOTALL)
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
