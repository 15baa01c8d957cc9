"""`python -m tests.chaos` does to a fleet of real processes, over real brokers, what happens to fleets."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from random import Random

from tests.chaos.checker import Verdict
from tests.chaos.play import Played, play_on
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import KINDS, Kind
from tests.support.environment import leave_a_users_environment


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
            kinds = (arguments.bus,) if arguments.bus else KINDS
            for played in play_on(kinds, scenario, size, seed + number) if size is not None else ():
                show(scenario, played, seed + number)
                verdicts[played.kind].append(played.verdict)
    closing_table(verdicts)
    return int(any(verdict.violations for each in verdicts.values() for verdict in each))


def show(scenario: Scenario, played: Played, seed: int) -> None:
    """Print what came of one scenario."""
    kind, verdict = played.kind, played.verdict
    print(
        f"{kind:6}{scenario.name:18}{played.seconds:6.1f} s  {verdict.jobs:5} jobs {verdict.kills:3} kills"
        f"  lost {verdict.lost}  {verdict.executions:5} executions  stale refused {verdict.refused}"
        f"{times('  detect', verdict.detect)}{times('  recover', verdict.recover)}{times('  wake', verdict.wake)}",
        flush=True,
    )
    for note in played.notes:
        print(f"        {note}")
    for violation in verdict.violations:
        print(f"  VIOLATION: {violation}  (--bus {kind} --seed {seed} --only '{scenario.name}')", flush=True)
    if verdict.violations and played.logs:
        print(played.logs, flush=True)


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
    leave_a_users_environment()
    sys.exit(main())
