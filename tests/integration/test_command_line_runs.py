"""Runs from a shell: submitted, followed, cancelled, found again."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from actors.cli.failures import ExitCode
from bus.brokers import BROKERS, RedisBroker
from tests.integration.shell import DEADLINE, Shell


@pytest.mark.parametrize(("scheme", "store"), [("redis", "{bus}"), ("nats", "{bus}"), ("redis", "sqlite:///runs.db")])
def test_a_run_is_submitted_done_and_found_again(tmp_path: Path, scheme: str, store: str) -> None:
    with BROKERS[scheme]() as broker:
        shell = Shell(tmp_path, broker.url)
        where = ("--run-store", store.format(bus=broker.url))
        run = shell.json("submit", "Till", "--job", "charge", "-p", "2", "--key", "order-1", *where)["run_id"]
        assert shell.json("runs", "show", run, *where)["state"] == "pending"  # nobody does it yet
        assert shell.run("runs", "show", run, "--result", *where, code=ExitCode.FAILED).endswith("it has no result\n")
        with shell.worker("shop:Till", *where):
            events = [json.loads(line) for line in shell.run("runs", "tail", run, "--json", *where).splitlines()]
            assert [event["type"] for event in events] == ["agent_started", "agent_completed", "group_completed"]
        assert shell.json("runs", "show", run, "--result", *where) == 5.0  # also when nobody serves any more


def test_runs_are_listed_and_followed_from_anywhere_and_one_key_is_one_run(shell: Shell) -> None:
    with shell.worker("shop:Till", "--run-store", shell.bus):
        run = shell.json("submit", "Till", "--job", "charge", "-p", "2", "--key", "order-1")["run_id"]
        events = tailed(shell, run)[1]
        rest = shell.run("runs", "tail", run, "--after", str(events[0]["offset"]), "--json")
        assert [json.loads(line) for line in rest.splitlines()] == events[1:]
        again = shell.json("submit", "Till", "--job", "charge", "-p", "2", "--key", "order-1")
        assert again["run_id"] == run
        other = shell.run("submit", "Till", "-p", "3", "--key", "order-1", code=ExitCode.USAGE)
        assert "use one key for one request" in other
        failing = shell.run("submit", "Till", "--job", "fail", "--wait", code=ExitCode.FAILED)
        assert "the drawer is stuck" in failing
        (failed,) = shell.json("runs", "list", "--state", "failed")
        assert shell.json("runs", "list", "--after", failed["run_id"])[0]["run_id"] == run


def test_a_run_is_cancelled_and_what_it_did_has_stopped(shell: Shell) -> None:
    with shell.worker("shop:Till", "--run-store", shell.bus) as worker:
        run = shell.json("submit", "Till", "--job", "nap", "-p", "600")["run_id"]
        worker.says("napping")
        told = shell.json("runs", "cancel", run, "--reason", "ordered twice", "--wait")
        assert (told["state"], told["error"]["message"]) == ("cancelled", "ordered twice")
        worker.says("woken")
        assert shell.json("runs", "cancel", run)["state"] == "cancelled"  # it stays so
        code, lines = tailed(shell, run)
        assert (code, lines[-1]["type"]) == (ExitCode.FAILED, "run_cancelled")
        done = shell.json("submit", "Till", "--job", "charge", "-p", "1")["run_id"]
        assert tailed(shell, done)[0] == ExitCode.OK
        process = shell.begin("runs", "cancel", done)
        assert process.communicate(timeout=DEADLINE) == ("", f"run {done} is completed\n")
        assert process.returncode == ExitCode.FAILED


def test_who_waits_for_a_run_may_go_and_the_run_goes_on(shell: Shell) -> None:
    with shell.worker("shop:Till", "--run-store", shell.bus) as worker:
        waiting = shell.begin("submit", "Till", "--job", "nap", "-p", "3", "--wait")
        worker.says("napping")
        assert waiting.stdout is not None
        run = waiting.stdout.readline().strip()
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=DEADLINE)
        assert waiting.returncode == ExitCode.INTERRUPTED
        assert tailed(shell, run)[0] == ExitCode.OK
        late = shell.begin("submit", "Till", "--job", "nap", "-p", "600", "--wait", "--wait-timeout", "1")
        out, err = late.communicate(timeout=DEADLINE)
        assert late.returncode == ExitCode.TIMED_OUT
        assert f"actorbus runs tail {out.strip()}" in err
        shell.run("runs", "cancel", out.strip(), "--wait")


def tailed(shell: Shell, run: str) -> tuple[int, list[dict[str, object]]]:
    process = shell.begin("runs", "tail", run, "--json")
    out, _ = process.communicate(timeout=DEADLINE)
    return process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def shell(tmp_path: Path, redis_broker: RedisBroker) -> Shell:
    return Shell(tmp_path, redis_broker.url)
