"""What one process reaches: `python -m benchmarks.local [--case NAME] [--pairs N] [--quick]`.

One JSON line per case. `ours` is this package, `bare` the shortest asyncio program that does the same without features,
both measured in turn in one run; `ratio` is the median of the paired ratios `ours / bare`. Absolute numbers are the
machine's and move with its load, ratios much less. `judged` says which number `target` is about.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from statistics import linear_regression
from time import perf_counter
from typing import Protocol

from benchmarks import limits, system
from benchmarks.pairs import Line, Measure, compared
from benchmarks.sizes import FIELDS

IDLE = (10, 100, 1000)
MANY = (1000, 10_000)


class Workers(Protocol):
    """A number of workers that are started and stopped together."""

    async def start(self, count: int) -> None: ...

    async def stop(self) -> None: ...


class Plan:
    """How much to measure.

    Attributes:
        pairs: Pairs of measurements.
        scale: What the sizes are divided by.
    """

    def __init__(self, pairs: int, scale: int) -> None:
        self.pairs = pairs
        self.scale = scale

    def rates(
        self,
        case: str,
        unit: str,
        ours: Callable[[int], Awaitable[float]],
        bare: Callable[[int], Awaitable[float]],
        *,
        count: int,
        target: float | None,
    ) -> Line:
        count = max(count // self.scale, 1)
        return compared(
            case,
            unit,
            lambda: asyncio.run(_float(ours(count))),
            lambda: asyncio.run(_float(bare(count))),
            pairs=self.pairs,
            judged="ratio at least",
            target=target,
        )


def sequential(plan: Plan) -> Iterator[Line]:
    yield plan.rates("sequential", "jobs/s", system.sequential, limits.sequential, count=10_000, target=0.4)


def fields(plan: Plan) -> Iterator[Line]:
    """The case that people have: ten fields in a dict, entered as a block, awaited, in flight, and in a group."""
    yield plan.rates("fields_entered", "jobs/s", system.entered, limits.sequential, count=10_000, target=0.4)
    awaited = partial(system.sequential, payload=FIELDS)
    yield plan.rates("fields_awaited", "jobs/s", awaited, limits.sequential, count=10_000, target=0.4)
    flying = partial(system.in_flight, payload=FIELDS)
    yield plan.rates("fields_in_flight_1000", "jobs/s", flying, limits.in_flight, count=30_000, target=0.35)
    grouped = partial(system.groups, payload=FIELDS)
    yield plan.rates("fields_group_100", "groups/s", grouped, limits.groups, count=200, target=0.2)


def in_flight(plan: Plan) -> Iterator[Line]:
    yield plan.rates("in_flight_1000", "jobs/s", system.in_flight, limits.in_flight, count=30_000, target=0.35)
    case = "in_flight_1000_steady"  # the harder one: the requesters' own tasks are not in it
    yield plan.rates(case, "jobs/s", system.steady, limits.steady, count=30_000, target=0.35)


def idle(plan: Plan) -> Iterator[Line]:
    for workers in IDLE:
        case = f"in_flight_1000_idle_{workers}"
        yield plan.rates(case, "jobs/s", _with_idle(workers), limits.in_flight, count=30_000, target=None)
    few, many = IDLE[0], IDLE[-1]
    case = f"idle_{many}_over_idle_{few}"
    yield plan.rates(case, "jobs/s", _with_idle(many), _with_idle(few), count=30_000, target=0.9)


def group(plan: Plan) -> Iterator[Line]:
    yield plan.rates("group_100", "groups/s", system.groups, limits.groups, count=200, target=0.2)


def stream(plan: Plan) -> Iterator[Line]:
    yield plan.rates("stream_10000", "chunks/s", system.stream, limits.stream, count=10_000, target=0.5)


def workers(plan: Plan) -> Iterator[Line]:
    times: dict[int, tuple[list[float], list[float]]] = {}
    for count in MANY:
        starts, stops = times[count] = ([], [])
        line = compared(
            f"workers_{count}",
            "starts/s",
            lambda count=count, life=(starts, stops): _lives(system.Workers(), count, *life),  # type: ignore[misc]
            lambda count=count: _lives(limits.Workers(), count, [], []),  # type: ignore[misc]
            pairs=plan.pairs,
            judged="",
            target=None,
        )
        line.more = {"stops_per_second": count / sorted(stops)[len(stops) // 2]}
        yield line
    few, many = MANY
    for number, what in enumerate(("start", "stop")):
        yield compared(
            f"workers_{what}_{many}_over_{few}",
            "seconds",
            _life_of(many, number),
            _life_of(few, number),
            pairs=plan.pairs,
            judged="ratio at most",
            target=12.0,
        )


def memory(plan: Plan) -> Iterator[Line]:
    """Bytes allocated for one worker, and kept for one job that has ended."""
    count = 1000
    for case, asked in (("idle_worker_memory", False), ("idle_worker_memory_after_a_job", True)):
        yield compared(
            case,
            "bytes/worker",
            lambda asked=asked: asyncio.run(_bytes_per_worker(system.Workers(), count, asked=asked)),  # type: ignore[misc]
            lambda: asyncio.run(_bytes_per_worker(limits.Workers(), count, asked=False)),
            pairs=plan.pairs,
            judged="ours at most",
            target=None if asked else 6144.0,
        )
    jobs = 50_000 // plan.scale
    slope = asyncio.run(_bytes_per_job(jobs))
    # Nothing kept is less than a tenth of a byte: a table entry would be a hundred.
    yield Line("finished_job_memory", "bytes/job", slope, 0.0, "ours at most", 0.1, [1.0], {"jobs": jobs})


def imports(plan: Plan) -> Iterator[Line]:
    """CPU time of an interpreter that imports the package, beside one that does nothing."""

    def measure(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own interpreter and text
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000

    line = compared(
        "import_actors",
        "ms",
        lambda: measure("import actors"),
        lambda: measure("pass"),
        pairs=plan.pairs * 2,
        judged="ours at most",
        target=150.0,
    )
    line.ours -= line.bare  # what the interpreter needs to start is not the import's
    yield line


CASES: dict[str, Callable[[Plan], Iterator[Line]]] = {
    "fields": fields,
    "sequential": sequential,
    "in_flight": in_flight,
    "idle": idle,
    "group": group,
    "stream": stream,
    "workers": workers,
    "memory": memory,
    "import": imports,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local", description=__doc__.partition("\n")[0])
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be repeated")
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs of each case (default 7)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, to see that it runs")
    arguments = parser.parse_args()
    if arguments.pairs < 1:
        parser.error("--pairs must be 1 or more")
    plan = Plan(arguments.pairs, 5 if arguments.quick else 1)
    for name in arguments.case or CASES:
        for line in CASES[name](plan):
            print(line.to_json(), flush=True)


async def _float(measure: Awaitable[float]) -> float:
    return await measure


def _with_idle(workers: int) -> Callable[[int], Awaitable[float]]:
    return lambda count: system.in_flight(count, idle=workers)


def _lives(kind: Workers, count: int, starts: list[float], stops: list[float]) -> float:
    async def life() -> None:
        begin = perf_counter()
        await kind.start(count)
        started = perf_counter()
        await kind.stop()
        starts.append(started - begin)
        stops.append(perf_counter() - started)

    asyncio.run(life())
    return count / starts[-1]


def _life_of(count: int, number: int) -> Measure:
    """Seconds to start (number 0) or to stop (number 1) so many workers."""

    def measure() -> float:
        life: tuple[list[float], list[float]] = ([], [])
        _lives(system.Workers(), count, *life)
        return life[number][0]

    return measure


async def _bytes_per_worker(kind: Workers, count: int, *, asked: bool) -> float:
    await kind.start(1)  # what the first worker brings is not what one more costs
    await kind.stop()
    kind = type(kind)()
    gc.collect()
    tracemalloc.start()
    try:
        await kind.start(count)
        if asked and isinstance(kind, system.Workers):
            await kind.ask_each()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        await kind.stop()
    finally:
        tracemalloc.stop()
    return held / count


async def _bytes_per_job(jobs: int) -> float:
    """Slope of the memory held over the jobs done, after as many again as a warm-up of a tenth."""
    workers = system.Workers()
    await workers.start(1)
    await workers.ask(jobs // 10)
    tracemalloc.start()
    try:
        done: list[float] = []
        held: list[float] = []
        for step in range(11):
            gc.collect()
            held.append(float(tracemalloc.get_traced_memory()[0]))
            done.append(float(step * (jobs // 10)))
            await workers.ask(jobs // 10)
    finally:
        tracemalloc.stop()
    await workers.stop()
    return linear_regression(done, held).slope


if __name__ == "__main__":
    main()
