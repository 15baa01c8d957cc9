"""Review a source tree with a team of workers: `python -m examples.code_review [SOURCE]`; see `--help`."""

import argparse
import signal
import sys
import sysconfig
import warnings
from collections import Counter
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import anyio

from actors import WorkerRunner
from bus import BusError, open_bus
from bus.brokers import BROKERS
from examples.code_review.fleet import MOST, OPTIONS, reviewers
from examples.code_review.team import Lead

if fancy := sys.stdout.isatty() and find_spec("rich") is not None:
    from rich.progress import Progress


async def work(root: str, file: str, url: str | None, size: int, kill: bool) -> int:
    began, jobs = anyio.current_time(), Counter[str]()

    def done(worker: str) -> None:
        jobs[worker] += 1
        if bars:
            bars.update(bar_of[worker], completed=jobs[worker], total=lead.jobs_of[worker])
        elif jobs[worker] % 50 == 0:
            print(f"{worker}: {jobs[worker]} of {lead.jobs_of[worker]} jobs done", flush=True)

    runner = WorkerRunner(bus=open_bus(url, **OPTIONS) if url else None)
    async with reviewers(url, size, kill=kill) if url else nullcontext() as fleet:
        lead = Lead(root, file, done, fleet)
        bars = Progress() if fancy else None
        bar_of = {worker: bars.add_task(worker, total=None) for worker in lead.jobs_of} if bars else {}
        await runner.add_workers(lead)
        with bars or nullcontext():
            await runner.run()
    found = sum(len(review.findings) for review in lead.reviews)
    print(*lead.losses, "" if lead.finished else "\nStopped before the end. Done so far:", sep="\n")
    print(f"{'files':>8}{'findings':>10}{'jobs':>8}{'seconds':>10}")
    print(f"{len(lead.reviews):>8}{found:>10}{jobs.total():>8}{anyio.current_time() - began:>10.1f}")
    return 0 if lead.finished else 1


parser = argparse.ArgumentParser(prog="python -m examples.code_review", description="Review a source tree.")
parser.add_argument("source", nargs="?", default=sysconfig.get_path("stdlib"), help="default: Python's own library")
parser.add_argument("--report", default="code_review.md", help="the Markdown file to write (default: %(default)s)")
parser.add_argument("--bus", help="on a fleet: redis or nats for a broker of our own, or the URL of one that runs")
parser.add_argument("--workers", help=f"reviewer processes of the fleet, 1 to {MOST} (default: 3)")
parser.add_argument("--kill", action="store_true", help="kill one of them in the middle")
arguments = parser.parse_args()
for folder in Path(arguments.source), Path(arguments.report).absolute().parent:
    if not folder.is_dir():
        parser.error(f"not a directory: {folder}")
if (arguments.workers or arguments.kill) and not arguments.bus:
    parser.error("WORKERS and KILL are of a fleet: add BUS=redis or BUS=nats (--bus)")
size = arguments.workers or "3"
if not (size.isdecimal() and 1 <= int(size) <= MOST):
    parser.error(f"WORKERS (--workers) must be a number from 1 to {MOST}, not {size!r}")
scheme, is_url, _ = (arguments.bus or "").partition("://")
if arguments.bus and scheme not in ({"redis", "rediss", "nats", "tls"} if is_url else BROKERS):
    parser.error(f"BUS (--bus) must be redis, nats or the URL of a broker, redis://... or nats://..., not {scheme!r}")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end when nobody reads the output: `| head`
warnings.simplefilter("ignore")  # Python's, about the code it parses
try:
    with BROKERS[scheme]() if arguments.bus and not is_url else nullcontext() as broker:
        url = broker.url if broker else arguments.bus
        sys.exit(anyio.run(work, arguments.source, arguments.report, url, int(size), arguments.kill))
except* (BusError, ValueError) as failed:
    problem = failed.exceptions[0]
parser.error(str(problem))
