"""Plays scenarios, on both brokers at once: most of the time everybody waits for a lease to end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import msgspec

from tests.chaos.checker import Verdict, check
from tests.chaos.scenarios import Scenario, Size
from tests.chaos.stage import Kind, Stage


class Played(msgspec.Struct, frozen=True):
    """What came of one scenario on one broker: the verdict, and what was measured and said besides."""

    kind: Kind
    verdict: Verdict
    seconds: float
    notes: Sequence[str]
    logs: str


def play_on(kinds: Sequence[Kind], scenario: Scenario, size: Size, seed: int) -> Iterable[Played]:
    """Play a scenario on several brokers."""
    with ThreadPoolExecutor(len(kinds)) as pool:
        yield from pool.map(lambda kind: play(scenario, kind, size, seed), kinds)


def play(scenario: Scenario, kind: Kind, size: Size, seed: int) -> Played:
    """Play a scenario; what it did not get to is a violation too."""
    begin = time.monotonic()
    failures: list[str] = []
    limits = None
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        with Stage(kind, Path(directory), Random(f"{seed} {scenario.name} {kind}")) as stage:
            try:
                limits = scenario.play(stage, size)
                stage.finish()
            except (AssertionError, TimeoutError) as error:
                failures.append(f"{type(error).__name__}: {error}")
            notes = [line.detail for line in stage.of("up") if line.node == "stage"]
            logs = stage.logs()
        verdict = check(stage.lines, limits)
    if failures:  # the rest may be no more than its consequences
        verdict = msgspec.structs.replace(verdict, violations=(*failures, *verdict.violations[:5]))
    return Played(kind, verdict, time.monotonic() - begin, notes, logs)
