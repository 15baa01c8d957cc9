"""`python -m tests.chaos` does to a fleet of real processes, over real brokers, what happens to fleets."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec

from tests.chaos.checker import Verdict, check
from tests.chaos.scenarios import SCENARIOS, Scenario, Size
from tests.chaos.stage import KINDS, Kind, Stage


def main() -> int:
    """Run the scenarios; 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--bus", choices=KINDS, help="only over this broker")
    parser.add_argument("--seed", type=int, help="where all chance comes from")
    parser.add_argument("--rounds", type=int, default=1, help="how often to do it all")
    parser.add_argument("--only", help="scenarios whose name contains this")
    parser.add_argument("--quick", action="store_true", help="in the sizes of the tests")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else Random().getrandbits(32)
    print(f"seed {seed}", flush=True)
    verdicts: dict[Kind, list[Verdict]] = {kind: [] for kind in KINDS}
    for number in range(arguments.rounds):
        for scenario in SCENARIOS:
            if arguments.only and arguments.only not in scenario.name:
                continue
            size = scenario.quick if arguments.quick else scenario.full
            for kind in (arguments.bus,) if arguments.bus else KINDS:
                if size is not None:
                    verdicts[kind].append(played(scenario, kind, size, seed + number))
    closing_table(verdicts)
    return int(any(verdict.violations for each in verdicts.values() for verdict in each))


def played(scenario: Scenario, kind: Kind, size: Size, seed: int) -> Verdict:
    """Play one and print what came of it."""
    begin = time.monotonic()
    verdict, notes, logs = play(scenario, kind, size, seed)
    print(
        f"{kind:6}{scenario.name:18}{time.monotonic() - begin:6.1f} s  {verdict.jobs:5} jobs {verdict.kills:3} kills"
        f"  lost {verdict.lost}  {verdict.executions:5} executions  stale refused {verdict.refused}"
        f"{times('  detect', verdict.detect)}{times('  recover', verdict.recover)}{times('  wake', verdict.wake)}",
        flush=True,
    )
    for note in notes:
        print(f"        {note}")
    for violation in verdict.violations:
        print(f"  VIOLATION: {violation}  (--bus {kind} --seed {seed} --only '{scenario.name}')", flush=True)
    if verdict.violations and logs:
        print(logs, flush=True)
    return verdict


def play(scenario: Scenario, kind: Kind, size: Size, seed: int) -> tuple[Verdict, list[str], str]:
    """Play one scenario; what it did not get to is a violation too."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        failure: list[str] = []
        limits = None
        with Stage(kind, Path(directory), Random(f"{seed} {scenario.name} {kind}")) as stage:
            try:
                limits = scenario.play(stage, size)
                stage.finish()
            except (AssertionError, TimeoutError) as error:
                failure.append(f"{type(error).__name__}: {error}")
            verdict = check(stage.lines, limits)
            notes = [line.detail for line in stage.of("up") if line.node == "stage"]
            logs = stage.logs()
        if failure:
            verdict = msgspec.structs.replace(verdict, violations=(*failure, *verdict.violations[:5]))
        return verdict, notes, logs


def closing_table(verdicts: dict[Kind, list[Verdict]]) -> None:
    """Print the sums."""
    print()
    print("| broker | jobs | kills | lost | executions | stale refused | time to detect | time to recover |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, each in verdicts.items():
        if each:
            detect = [seconds for verdict in each for seconds in verdict.detect]
            recover = [seconds for verdict in each for seconds in verdict.recover]
            print(
                f"| {kind} | {sum(verdict.jobs for verdict in each)} | {sum(verdict.kills for verdict in each)} "
                f"| {sum(verdict.lost for verdict in each)} | {sum(verdict.executions for verdict in each)} "
                f"| {sum(verdict.refused for verdict in each)} |{times('', detect)} |{times('', recover)} |"
            )


def times(what: str, seconds: Sequence[float]) -> str:
    """Middle and worst of some durations."""
    if not seconds:
        return "" if what else " -"
    return f"{what} {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"


if __name__ == "__main__":
    sys.exit(main())
