"""What two processes reach over a network: `python -m benchmarks.network [--broker B] [--case NAME] [--pairs N]`.

One JSON line per case and broker, as `benchmarks.local` prints them: `ours` is this package, `bare` the shortest honest
program with the ordinary client that keeps the same on the broker's disk. The requester is this process, workers are
processes of their own, and the broker is a third; each case has a new one. Ours and the bare program are measured in
turn over the same broker, while the workers of the other wait.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

from benchmarks import bare_nats, bare_redis, fleet
from benchmarks.pairs import Line, compared
from benchmarks.sizes import CHUNKS
from bus.brokers import BROKERS

ROOT = Path(__file__).resolve().parents[1]

DELIVERIES = ("at_least_once", "at_most_once")

SIDES = {"ours": fleet, "redis": bare_redis, "nats": bare_nats}

COUNTS = {"sequential": 1000, "in_flight": 10_000, "stream": CHUNKS, "shared": 5000}
"""Jobs, or chunks, of one measurement."""

WORKERS = {"shared": 2}
"""Worker processes of a case; one in the others."""

TARGETS = {
    ("redis", "at_least_once"): {"sequential": 0.7, "in_flight": 0.6, "stream": 0.6, "shared": 0.3},
    ("nats", "at_least_once"): {"sequential": 0.7, "in_flight": 0.7, "stream": 0.6, "shared": 0.6},
    ("nats", "at_most_once"): {"sequential": 0.8, "in_flight": 0.8},
}


def measured(broker: str, case: str, delivery: str, *, pairs: int, scale: int) -> Line:
    """Measure one case over a broker of its own."""
    count = max(COUNTS[case] // scale, 100)
    with ExitStack() as stack:
        url = stack.enter_context(BROKERS[broker]()).url
        for side in ("ours", broker):
            for _ in range(WORKERS.get(case, 1)):
                stack.enter_context(_worker(side, url, delivery))

        def measure(side: ModuleType) -> Callable[[], float]:
            return lambda: asyncio.run(getattr(side, case)(url, count, delivery))

        return compared(
            f"{broker}_{delivery}_{case}",
            "chunks/s" if case == "stream" else "jobs/s",
            measure(fleet),
            measure(SIDES[broker]),
            pairs=pairs,
            judged="ratio at least",
            target=TARGETS.get((broker, delivery), {}).get(case),
        )


def lines(broker: str, cases: list[str], *, pairs: int, scale: int) -> Iterator[Line]:
    """Each case with each way to deliver."""
    for delivery in DELIVERIES:
        for case in cases:
            if delivery == "at_least_once" or case in {"sequential", "in_flight"}:
                yield measured(broker, case, delivery, pairs=pairs, scale=scale)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__.partition("\n")[0])
    parser.add_argument("--broker", action="append", choices=list(BROKERS), help="only this one; may be repeated")
    parser.add_argument("--case", action="append", choices=list(COUNTS), help="only this one; may be repeated")
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs of each case (default 7)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, to see that it runs")
    parser.add_argument("--serve", nargs=3, metavar=("SIDE", "URL", "DELIVERY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        side, url, delivery = arguments.serve
        asyncio.run(SIDES[side].serve(url, delivery))
    if arguments.pairs < 1:
        parser.error("--pairs must be 1 or more")
    for broker in arguments.broker or BROKERS:
        for line in lines(
            broker, arguments.case or list(COUNTS), pairs=arguments.pairs, scale=5 if arguments.quick else 1
        ):
            print(line.to_json(), flush=True)


@contextmanager
def _worker(side: str, url: str, delivery: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.network", "--serve", side, url, delivery]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a worker did not start: {command}")
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    main()
