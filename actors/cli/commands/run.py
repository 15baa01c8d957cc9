"""`actorbus runs`: what was submitted, and what became of it."""

from __future__ import annotations

import anyio
import click

from actors.cli.command import Command, Group, asynchronous
from actors.cli.connection import opened_store
from actors.cli.failures import CommandError, ExitCode, understood
from actors.cli.output import emit, encoded, moment, pretty, say, table
from actors.cli.settings import ABOVE_ZERO, settings
from actors.runs.errors import RunStoreError
from actors.runs.run import RunState, RunStatus

STORE = ("run_store", "bus", "namespace", "connect_timeout", "imports", "json")

run_argument = click.argument("run_id", metavar="RUN")


@click.command(cls=Group)
def runs() -> None:
    """Look after runs: the jobs that were submitted."""


@runs.command("list", cls=Command, example="actorbus runs list --state running")
@click.option("--state", type=click.Choice([state.value for state in RunState]), help="Only those in this state.")
@click.option("--worker", "worker_name", help="Only those that ask this worker.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@click.option("--after", help="Only those that come after the run of this id: how to read on.")
@settings(*STORE)
@asynchronous
async def list_runs(
    *,
    state: str | None,
    worker_name: str | None,
    limit: int,
    after: str | None,
    run_store: str | None,
    bus: str | None,
    namespace: str,
    connect_timeout: float,
    json: bool,
) -> None:
    """List runs, the latest first."""
    async with opened_store(run_store, bus, namespace, connect_timeout) as store:
        with understood():
            found = await store.find(
                state=RunState(state) if state else None, worker_name=worker_name, limit=limit, after=after
            )
    if json:
        emit(found)
        return
    table(
        ("RUN", "STATE", "WORKERS", "JOB", "DONE", "CREATED", "LABEL"),
        [
            (
                each.run_id,
                each.state.value,
                ",".join(each.worker_names),
                each.job_name,
                f"{each.progress.completed}/{len(each.worker_names)}",
                moment(each.created_at),
                each.label,
            )
            for each in found
        ],
    )


@runs.command("show", cls=Command, example="actorbus runs show 01a0c3b7e1f-4f2a9c01de --result")
@run_argument
@click.option("--result", is_flag=True, help="Print its result alone; exit 1 if it has none.")
@settings(*STORE)
@asynchronous
async def show_run(
    *,
    run_id: str,
    result: bool,
    run_store: str | None,
    bus: str | None,
    namespace: str,
    connect_timeout: float,
    json: bool,
) -> None:
    """Show what is known of a run."""
    async with opened_store(run_store, bus, namespace, connect_timeout) as store:
        status = await store.get(run_id)
        if result and status.state is not RunState.COMPLETED:
            raise CommandError(f"{_ending(status)}: it has no result", ExitCode.FAILED)
        value = await store.result(run_id) if result else status
    if json:
        emit(value)
    elif result:
        click.echo(pretty(value))
    else:
        _show(status)


@runs.command(
    "cancel", cls=Command, example="actorbus runs cancel 01a0c3b7e1f-4f2a9c01de --reason 'ordered twice' --wait"
)
@run_argument
@click.option("--reason", help="A text for people.")
@click.option("--wait", is_flag=True, help="Wait until what it did has stopped.")
@click.option("--wait-timeout", type=ABOVE_ZERO, help="Seconds to wait at most. [default: no limit]")
@settings(*STORE)
@asynchronous
async def cancel_run(
    *,
    run_id: str,
    reason: str | None,
    wait: bool,
    wait_timeout: float | None,
    run_store: str | None,
    bus: str | None,
    namespace: str,
    connect_timeout: float,
    json: bool,
) -> int:
    """Cancel a run: its workers are told to stop. Exits 1 if it had ended otherwise before."""
    async with opened_store(run_store, bus, namespace, connect_timeout) as store:
        status = await store.cancel(run_id, reason)
        if wait:
            try:
                with anyio.fail_after(wait_timeout):
                    async for _ in store.stream(run_id):
                        pass
            except TimeoutError:
                message = f"run {run_id} has not stopped within {wait_timeout:g} s; it will not complete any more"
                raise CommandError(message, ExitCode.TIMED_OUT) from None
            status = await store.get(run_id)
    if json:
        emit(status)
    else:
        say(_ending(status))
    return ExitCode.OK if status.state is RunState.CANCELLED or not status.state.terminal else ExitCode.FAILED


@runs.command("tail", cls=Command, example="actorbus runs tail 01a0c3b7e1f-4f2a9c01de --json")
@run_argument
@click.option("--after", type=click.IntRange(-1), default=-1, show_default=True, help="Only events after this offset.")
@settings(*STORE)
@asynchronous
async def tail_run(
    *,
    run_id: str,
    after: int,
    run_store: str | None,
    bus: str | None,
    namespace: str,
    connect_timeout: float,
    json: bool,
) -> int:
    """Print what happens in a run until it has ended: first what has happened, then the rest as it comes.

    Exits 1 if the run fails or is cancelled.
    """
    async with opened_store(run_store, bus, namespace, connect_timeout) as store:
        try:
            async for event in store.stream(run_id, after):
                after = event.offset
                if json:
                    emit(event)
                    continue
                data = "" if event.data is None else encoded(event.data)
                where = moment(event.at)
                click.echo(
                    f"{event.offset:>5}  {where}  {event.type.value:<15}  {event.worker_name or '-'}  {data}".rstrip()
                )
        except RunStoreError as error:
            raise CommandError(f"{error}; go on with --after {after}", ExitCode.UNREACHABLE) from error
        status = await store.get(run_id)
    return ExitCode.OK if status.state is RunState.COMPLETED else ExitCode.FAILED


def _ending(status: RunStatus) -> str:
    why = f": {status.error.message}" if status.error is not None else ""
    going = ", and will be cancelled" if status.cancel_requested_at is not None and not status.state.terminal else ""
    return f"run {status.run_id} is {status.state.value}{going}{why}"


def _show(status: RunStatus) -> None:
    progress = status.progress
    shown = {
        "run": status.run_id,
        "state": status.state.value,
        "workers": ", ".join(status.worker_names),
        "job": status.job_name,
        "label": status.label,
        "progress": f"{progress.completed} completed, {progress.failed} failed, {progress.running} running",
        "owner": status.owner,
        "attempts": status.attempts,
        "created": moment(status.created_at),
        "started": moment(status.started_at),
        "cancel asked": moment(status.cancel_requested_at),
        "finished": moment(status.finished_at),
        "key": status.idempotency_key,
        "error": status.error,
    }
    table(("RUN", status.run_id), [(name, value) for name, value in shown.items() if value and name != "run"])
