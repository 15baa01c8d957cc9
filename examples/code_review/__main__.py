"""Review a source tree with a team of workers: `python -m examples.code_review [SOURCE] [--report FILE]`."""

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

from actors import JobRecord, WorkerRunner
from examples.code_review.team import Lead

if fancy := sys.stdout.isatty() and find_spec("rich") is not None:
    from rich.progress import Progress


async def work(root: str, file: str) -> int:
    began, jobs, runner, lead = anyio.current_time(), Counter[str](), WorkerRunner(), Lead(root, file)
    bars = Progress() if fancy else None
    bar_of = {worker: bars.add_task(worker, total=None) for worker in lead.jobs_of} if bars else {}

    @runner.event_handler("on_job_complete")
    @runner.event_handler("on_job_error")
    def show(_runner: WorkerRunner, record: JobRecord) -> None:
        worker = record.worker_name
        jobs[worker] += 1
        if bars:
            bars.update(bar_of[worker], completed=jobs[worker], total=lead.jobs_of[worker])
        elif jobs[worker] % 50 == 0:
            print(f"{worker}: {jobs[worker]} of {lead.jobs_of[worker]} jobs done", flush=True)
        if record.error:
            print(f"{worker}: {record.error}")

    await runner.add_workers(lead)
    with bars or nullcontext():
        await runner.run()
    found = sum(len(review.findings) for review in lead.reviews)
    print("" if lead.finished else "\nStopped before the end. Done so far:")
    print(f"{'files':>8}{'findings':>10}{'jobs':>8}{'seconds':>10}")
    print(f"{len(lead.reviews):>8}{found:>10}{jobs.total():>8}{anyio.current_time() - began:>10.1f}")
    return 0 if lead.finished else 1


parser = argparse.ArgumentParser(prog="python -m examples.code_review", description="Review a source tree.")
parser.add_argument("source", nargs="?", default=sysconfig.get_path("stdlib"), help="default: Python's own library")
parser.add_argument("--report", default="code_review.md", help="the Markdown file to write (default: %(default)s)")
arguments = parser.parse_args()
for folder in Path(arguments.source), Path(arguments.report).absolute().parent:
    if not folder.is_dir():
        parser.error(f"not a directory: {folder}")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end when nobody reads the output: `| head`
warnings.simplefilter("ignore")  # Python's, about the code it parses
sys.exit(anyio.run(work, arguments.source, arguments.report))
