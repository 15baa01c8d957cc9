"""`actorbus worker`: processes that do jobs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sized
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import anyio
import click

from actors.cli.command import Command, Group, Invocation, asynchronous
from actors.cli.connection import broker_url, bus_options, store_url
from actors.cli.failures import CommandError, ExitCode, ends_by_itself, text_of, understood
from actors.cli.health import Health, served
from actors.cli.output import emit, log_to_stderr, say
from actors.cli.process import end_with_parent, reloaded, tethered_option
from actors.cli.settings import settings
from actors.cli.target import Target, targets
from actors.jobs.errors import SupervisionError
from actors.runner.runner import WorkerRunner, core_of_runner
from actors.runs.errors import RunStoreError
from actors.runs.owner import RunOwner
from actors.runs.store import RunStore
from actors.runs.url import open_run_store
from bus import Backoff
from bus.log import log
from bus.transport.server import redacted

BACKOFF = Backoff(first=0.1, limit=2.0, jitter=0.5)
"""The waits between two attempts to open the run store."""

SERVERS = ("redis", "rediss", "nats", "tls")
"""The schemes of run stores that another process keeps, which may begin after this one."""

BUS_SETTINGS = ("prefetch", "consumer_id")
"""Settings that `open_bus` knows by the same name."""

WORKER_SETTINGS = (
    "bus",
    "namespace",
    "signing_key_env",
    "concurrency",
    "prefetch",
    "consumer_id",
    "reclaim_min_idle_ms",
    "heartbeat_seconds",
    "drain_timeout",
    "run_store",
    "health_port",
    "log_level",
    "log_format",
    "reload",
    "reload_dir",
    "json",
)


@click.command(cls=Group)
def worker() -> None:
    """Run workers."""


@worker.command(
    "start",
    cls=Command,
    example="actorbus worker start shop:Till refunds=shop:Till --bus redis://127.0.0.1:6379 --health-port 8081",
)
@click.argument("workers", nargs=-1, envvar="ACTORBUS_WORKERS", metavar="[NAME=]MODULE:CLASS...")
@click.option(
    "--all-from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run every worker and function that the modules in DIR define.",
)
@click.option("--name", help="Name of this runner, unique in the fleet. [default: one is made up]")
@settings(*WORKER_SETTINGS)
@tethered_option
@click.pass_context
def start(context: click.Context, /, workers: tuple[str, ...], folder: Path | None, **values: Any) -> int:
    """Run workers until a signal.

    The first SIGTERM or Ctrl-C lets running jobs end, for --drain-timeout seconds; the second does not. A worker whose
    start() or run() raises is made again, up to three times in a minute. With --run-store, or a broker that can keep
    runs, it does runs as well. A worker without a name is asked under that of its class.
    """
    if values["reload"]:
        invocation = context.find_object(Invocation)
        assert invocation is not None
        watched = Path(values["reload_dir"] or folder or ".")
        return anyio.run(reloaded, [*invocation.arguments, "--no-reload"], watched)
    if values["tethered"]:
        end_with_parent()
    url = broker_url(values["bus"])
    log_to_stderr(values["log_level"], values["log_format"])
    return run_workers(url, targets(workers, folder), **values)


@asynchronous
async def run_workers(url: str, found: list[Target], **values: Any) -> int:
    """Run workers, and say how that ended."""
    async with ends_by_itself() as signals, AsyncExitStack() as stack:
        with understood():
            runner = WorkerRunner(
                values["name"],
                url,
                concurrency=values["concurrency"],
                drain_timeout=values["drain_timeout"],
                **_bus_options(values),
            )
        health = Health()
        if values["health_port"] is not None:
            values["health_port"] = stack.enter_context(served(health, values["health_port"]))
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(health.beat)
        where = store_url(values["run_store"], url)
        if where is not None:
            store = await _opened(where, values["namespace"], stack, signals)
            if store is None:
                return ExitCode.OK
            await runner.add_workers(RunOwner(store))
        await runner.supervise(*(each.make for each in found))

        @runner.event_handler("on_ready")
        def ready(_runner: WorkerRunner) -> None:
            health.ready = True
            _banner(runner, url, found, values)

        try:
            await runner.run(auto_end=False)
        except SupervisionError as error:
            raise CommandError(f"{text_of(error)}; the log says more", ExitCode.FAILED) from error
        return ExitCode.INTERRUPTED if core_of_runner(runner).cancelling else ExitCode.OK


async def _opened(url: str, namespace: str, stack: AsyncExitStack, signals: Sized) -> RunStore | None:
    """Open a run store. A server that is not there yet is waited for, as the bus waits for its broker.

    None if a signal came first: until its runner runs, nobody else does anything about it.
    """
    failures = 0
    while True:
        with understood():
            store = open_run_store(url, namespace=namespace)
        try:
            await stack.enter_async_context(store)
        except RunStoreError as error:
            if urlsplit(url).scheme not in SERVERS:
                raise
            failures += 1
            if failures == 1:
                log().warning("the run store does not answer; trying again", store=redacted(url), error=str(error))
            await anyio.sleep(BACKOFF.delay(failures, Random()))
        else:
            return None if signals else store
        if signals:
            return None


def _bus_options(values: dict[str, Any]) -> dict[str, Any]:
    idle = values["reclaim_min_idle_ms"]
    return bus_options(
        values["namespace"],
        values["signing_key_env"],
        heartbeat=values["heartbeat_seconds"],
        ack_wait=idle / 1000 if idle is not None else None,
        **{name: values[name] for name in BUS_SETTINGS},
    )


def _banner(runner: WorkerRunner, url: str, found: list[Target], values: dict[str, Any]) -> None:
    told = {
        "runner": runner.name,
        "bus": redacted(url),
        "workers": {each.name: each.text for each in found},
        "run_store": redacted(store_url(values["run_store"], url) or ""),
        "health_port": values["health_port"],
        "pid": os.getpid(),
        "python": platform.python_version(),
    }
    if values["json"]:
        emit(told)
        return
    say(f"actorbus worker {runner.name}, process {told['pid']}, Python {told['python']}")
    say(f"  bus      {told['bus']}")
    say(f"  runs     {told['run_store']}")
    for each in found:
        say(f"  worker   {each.name}  ({each.text})")
    if values["health_port"] is not None:
        say(f"  health   http://127.0.0.1:{values['health_port']}/readyz")
    say("ready; Ctrl-C ends it when its jobs have ended, once more at once")
