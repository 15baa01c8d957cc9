"""The benchmarks run, and say what they measured; what they measure is the machine's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.environment import environment


@pytest.mark.parametrize("case", ["sequential", "group", "stream", "import"])
def test_each_line_of_a_benchmark_holds_both_sides_and_the_judgement(case: str) -> None:
    assert_lines(1, "benchmarks.local", "--case", case)


@pytest.mark.parametrize(("case", "deliveries"), [("sequential", 2), ("in_flight", 2), ("stream", 1), ("shared", 1)])
@pytest.mark.parametrize("broker", ["redis", "nats"])
def test_the_benchmarks_over_a_network_measure_both_sides_in_processes_of_their_own(
    broker: str, case: str, deliveries: int
) -> None:
    assert_lines(deliveries, "benchmarks.network", "--broker", broker, "--case", case)


def assert_lines(count: int, module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, "--quick", "--pairs", "1", *arguments]
    printed = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True, timeout=100).stdout
    for line in map(json.loads, printed.splitlines()):
        assert line["ours"] > 0
        assert line["bare"] > 0
        assert line["ratio_min"] <= line["ratio"] <= line["ratio_max"]
        assert line["met"] in {True, False} or line["target"] is None
    assert len(printed.splitlines()) == count


def test_an_unknown_case_is_refused_with_those_that_exist() -> None:
    command = [sys.executable, "-m", "benchmarks.local", "--case", "nothing"]
    refused = subprocess.run(command, env=environment(), check=False, capture_output=True, text=True, timeout=100)
    assert refused.returncode == 2
    assert "'in_flight'" in refused.stderr
