"""`actorbus ps` and `actorbus events`: who is there, and who comes and goes."""

from __future__ import annotations

import math
import time
from typing import Any

import anyio
import click

from actors.cli.command import Command, asynchronous
from actors.cli.connection import connected
from actors.cli.failures import one_line
from actors.cli.output import emit, moment, table
from actors.cli.settings import ABOVE_ZERO, CONNECTION, settings
from actors.client.client import runner_of
from actors.client.job_follower import follow_jobs
from actors.observability.job_events import JobNews
from bus import WorkerLostData, WorkerReadyData

UNSEEN = ("_Requester-", "_Follower-", "RunOwner-", "RunTails-")
"""How the names of workers begin that no program has named: the inner ones of clients and of runs."""


@click.command(cls=Command, example="actorbus ps --bus redis://127.0.0.1:6379")
@click.option(
    "--listen", type=ABOVE_ZERO, default=1.0, show_default=True, help="Seconds to listen for answers of the runners."
)
@click.option("--all", "everything", is_flag=True, help="Also the inner workers of clients and of runs.")
@settings(*CONNECTION, "json")
@asynchronous
async def ps(*, listen: float, everything: bool, json: bool, **connection: Any) -> None:
    """List the workers of the fleet.

    Each runner is asked when this command appears, and answers at once; one that is busy for longer than --listen is
    missing.
    """
    async with connected(**connection) as client:
        await anyio.sleep(listen)
        found = [each for each in client.workers() if everything or not each.worker_name.startswith(UNSEEN)]
    found.sort(key=lambda each: (each.worker_name, each.runner))
    if json:
        emit(found)
        return
    table(
        ("WORKER", "RUNNER", "ACTIVE", "PARENT", "READY SINCE"),
        [
            (each.worker_name, each.runner, "yes" if each.active else "no", each.parent, moment(each.started_at))
            for each in found
        ],
    )


@click.command(cls=Command, example="""actorbus events --json | jq 'select(.type == "job_failed")'""")
@click.option("--for", "seconds", type=ABOVE_ZERO, help="Seconds to listen. [default: until Ctrl-C]")
@click.option("--all", "everything", is_flag=True, help="Also of the inner workers of clients and of runs.")
@settings(*CONNECTION, "json")
@asynchronous
async def events(*, seconds: float | None, everything: bool, json: bool, **connection: Any) -> None:
    """Print what happens in the fleet as it happens: workers that come and go, jobs that begin and end.

    The workers that are there already come first.
    """

    def show(change: WorkerReadyData | WorkerLostData | JobNews) -> None:
        if isinstance(change, JobNews):
            _show_job(change, json)
            return
        if not everything and change.worker_name.startswith(UNSEEN):
            return
        kind = "worker_ready" if isinstance(change, WorkerReadyData) else "worker_lost"
        if json:
            emit({"type": kind, "at": time.time(), "data": change})
            return
        reason = f": {one_line(change.reason)}" if isinstance(change, WorkerLostData) and change.reason else ""
        if isinstance(change, WorkerReadyData) and not change.active:
            reason = ", not active"
        click.echo(f"{kind:<13}  {change.worker_name}  on {change.runner}{reason}")

    async with connected(**connection) as client:
        runner = runner_of(client)
        registry = runner.registry
        changes, news = anyio.create_memory_object_stream[WorkerReadyData | WorkerLostData | JobNews](math.inf)
        for known in client.workers():
            changes.send_nowait(known)
        registry.listen(changes.send_nowait)
        try:
            async with follow_jobs(runner, changes.send_nowait):
                with anyio.move_on_after(seconds):
                    async for change in news:
                        show(change)
        finally:
            registry.unlisten(changes.send_nowait)
            changes.close()
            news.close()


def _show_job(news: JobNews, json: bool) -> None:
    if json:
        emit({"type": news.type, "at": news.at, "data": news.details()})
        return
    record = news.record
    if record is None:
        text = f"{news.count} events on {news.runner}"
    else:
        name = f":{record.job_name}" if record.job_name else ""
        run = f", run {record.run}" if record.run else ""
        text = f"{record.worker_name}{name} on {news.runner}, job {record.job_id}, attempt {record.attempt}{run}"
        if record.error is not None:
            text += f": {record.error.type}: {record.error.message}"
    click.echo(f"{news.type:<13}  {one_line(text)}")
