"""Signals of the operating system, sent to real programs: G30."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.environment import ROOT, environment

PROGRAM = Path(__file__).with_name("programs") / "stopped.py"

Start = Callable[..., "Program"]


class Program:
    """A program under test, in a process of its own."""

    def __init__(self, backend: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, backend, *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, line: str) -> list[str]:
        assert self._process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != line:
            got = self._process.stdout.readline()
            assert got, f"ended without {line!r}: {lines}"
            lines.append(got.rstrip("\n"))
        return lines

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def rest(self) -> tuple[list[str], int]:
        output, _ = self._process.communicate(timeout=30)
        return output.splitlines(), self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=["asyncio", "trio"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    programs: list[Program] = []

    def start_program(*arguments: str) -> Program:
        programs.append(Program(request.param, *arguments))
        return programs[-1]

    yield start_program
    for program in programs:
        program.kill()


STOPS = [signal.SIGINT, signal.SIGTERM]
any_stop = pytest.mark.parametrize("stop", STOPS, ids=lambda number: number.name)


@any_stop
def test_g30_the_first_signal_lets_running_jobs_finish(start: Start, stop: signal.Signals) -> None:
    program = start("one_runner", "work", "60")
    program.read_until("begun")
    program.send(stop)
    program.send(signal.SIGUSR1)
    lines, code = program.rest()
    assert code == 0
    again = "Ctrl-C" if stop is signal.SIGINT else stop.name
    waits = f"{stop.name}: ending, waiting up to 60 s for 1 job of 'performer'; {again} once more stops at once"
    assert lines[0] == waits
    assert sorted(lines[1:3]) == ["outcome done", "stop asker"]
    assert lines[3:] == ["runner ended", "end"]


@any_stop
def test_g30_the_second_signal_cancels_at_once(start: Start, stop: signal.Signals) -> None:
    program = start("one_runner", "fleeing", "3600")
    program.read_until("begun")
    program.send(stop)
    program.send(signal.SIGTERM if stop is signal.SIGINT else signal.SIGINT)
    lines, code = program.rest()
    assert code == 0
    assert "cleaned up" in lines
    assert "outcome cancelled" in lines
    assert lines[-2:] == ["runner ended", "end"]


def test_g30_a_drain_that_takes_too_long_is_cut(start: Start) -> None:
    program = start("one_runner", "work", "0.1")
    program.read_until("begun")
    program.send(signal.SIGTERM)
    lines, code = program.rest()
    assert code == 0
    assert "outcome cancelled" in lines


def test_g30_the_second_signal_does_not_wait_for_a_handler_in_a_thread(start: Start) -> None:
    program = start("one_runner", "thread", "3600")
    program.read_until("begun")
    program.send(signal.SIGTERM)
    program.send(signal.SIGINT)
    lines = program.read_until("end")
    assert "outcome cancelled" in lines


@any_stop
def test_g51_a_process_ends_though_threads_of_its_handlers_never_do(start: Start, stop: signal.Signals) -> None:
    program = start("stuck_threads", "stuck", "3600")
    assert program.read_until("threads 40 40")
    program.send(stop)
    lines, code = program.rest()
    assert code == 0
    assert any("threads left behind" in line for line in lines)
    assert lines[-2:] == ["runner ended", "end"]


def test_g51_a_drain_that_is_cut_leaves_its_threads_behind(start: Start) -> None:
    program = start("one_runner", "thread", "0.1")
    program.read_until("begun")
    program.send(signal.SIGTERM)
    lines, code = program.rest()
    assert code == 0
    assert "outcome cancelled" in lines
    assert lines[-2:] == ["runner ended", "end"]


@any_stop
def test_g53_a_signal_cancels_the_body_of_a_script_and_the_job_it_waits_for(start: Start, stop: signal.Signals) -> None:
    program = start("script", "fleeing", "0.1")
    program.read_until("begun")
    program.send(stop)
    lines, code = program.rest()
    assert code == 0
    assert lines[1:] == ["cleaned up", "runner ended", "end"]


@any_stop
def test_g30_a_signal_ends_every_runner_of_the_process(start: Start, stop: signal.Signals) -> None:
    program = start("two_runners", "work", "0.1")
    program.read_until("begun")
    program.send(stop)
    lines, code = program.rest()
    assert code == 0
    assert "outcome cancelled" in lines
    assert lines.count("runner ended") == 2


@any_stop
def test_g30_a_runner_gets_its_signals_when_the_one_that_shared_them_has_ended(
    start: Start, stop: signal.Signals
) -> None:
    program = start("handed_over", "fleeing", "0.1")
    program.read_until("the first is gone")
    program.send(stop)
    lines, code = program.rest()
    assert code == 0
    assert lines[-2:] == ["runner ended", "end"]


@pytest.mark.parametrize("start", ["asyncio"], indirect=True)
def test_g31_a_signal_that_the_runner_does_not_handle_cleans_up_all_the_same(start: Start) -> None:
    """Not on trio: there it is raised inside whatever runs at that moment, which may be a handler."""
    program = start("one_runner", "fleeing", "3600", "handle_sigint")
    program.read_until("begun")
    program.send(signal.SIGINT)
    lines, code = program.rest()
    assert code == 0
    assert "cleaned up" in lines
    assert "stop asker" in lines
    assert lines[-2:] == ["KeyboardInterrupt", "end"]
