"""`python -m tests.simulation --seeds 1000` looks for a seed that fails; `--seed n` replays one exactly."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import Outcome, Tally, simulate
from tests.support.environment import leave_a_users_environment


def main() -> int:
    """Run the simulation; 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to try")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay this one, with its trace")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    logging.getLogger("actorbus").setLevel(logging.CRITICAL)
    if arguments.seed is not None:
        return _replay(arguments.seed)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    failed: list[Outcome] = []
    done = Tally()
    with ProcessPoolExecutor(arguments.processes) as pool:
        for outcome in pool.map(simulate, seeds, chunksize=4):
            done.add(outcome)
            if outcome.problems:
                failed.append(outcome)
                print(
                    f"seed {outcome.seed} failed: {outcome.problems[0]}  (make simulate SEED={outcome.seed})",
                    flush=True,
                )
    print(f"{len(seeds)} seeds, {done}, {len(failed)} failed")
    if done.says_little:
        print("too few jobs completed, or too few of those in another process: these runs say little")
    return 1 if failed or done.says_little else 0


def _replay(seed: int) -> int:
    outcome = simulate(seed)
    sys.stdout.write("\n".join(outcome.trace) + "\n")
    print(f"seed {seed}: {outcome.summary}; trace {outcome.digest}")
    for problem in outcome.problems:
        print(f"  {problem}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    leave_a_users_environment()
    sys.exit(main())
