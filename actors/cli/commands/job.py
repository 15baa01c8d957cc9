"""`actorbus invoke` and `actorbus submit`: jobs from a shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec

from actors.cli.command import Command, asynchronous
from actors.cli.connection import broker_url, connected, opened_store
from actors.cli.failures import CommandError, ExitCode, understood, usage
from actors.cli.output import emit, encoded, pretty
from actors.cli.settings import ABOVE_ZERO, CONNECTION, settings
from actors.jobs.events import JobEvent
from actors.runs.errors import RunConflictError

KEPT = 7 * 86_400.0
"""Seconds a run is kept after its end, unless said otherwise."""

NOTHING: tuple[Any, ...] = (None, {})
"""Answers that say nothing: those of a stream, and of a handler that returns nothing."""

job_option = click.option("--job", "-j", "job_name", help="Which of its jobs. [default: the one without a name]")
payload_option = click.option(
    "--payload", "-p", help="What the job is given: JSON, @FILE with JSON, or - for JSON on stdin. [default: nothing]"
)
text_option = click.option("--text", "-t", help="Give the job this text, as it is.")


def payload_of(payload: str | None, text: str | None) -> Any:
    """What a job is to be given.

    Raises:
        CommandError: It is no JSON, or was said twice.
    """
    if text is not None and payload is not None:
        raise usage("give either --payload or --text")
    if payload is None:
        return text
    try:
        if payload.startswith("@"):
            payload = Path(payload[1:]).read_text("utf-8")
        return msgspec.json.decode(sys.stdin.read() if payload == "-" else payload)
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"the payload cannot be read: {error}") from error
    except msgspec.DecodeError as error:
        raise usage(
            f"the payload is no JSON: {error}; put a text into --text, or into quotes: '\"like this\"'"
        ) from None


@click.command(cls=Command, example="""actorbus invoke Till --job charge --payload '{"item": "tea"}'""")
@click.argument("worker_name", metavar="WORKER")
@job_option
@payload_option
@text_option
@click.option("--timeout", type=ABOVE_ZERO, help="Seconds the job may take. [default: no limit]")
@click.option(
    "--ready-timeout",
    type=ABOVE_ZERO,
    default=5.0,
    show_default=True,
    help="Seconds to wait for somebody of that name.",
)
@click.option("--follow", is_flag=True, help="Print updates too; with --json, say of each line what it is.")
@settings(*CONNECTION, "json")
@asynchronous
async def invoke(
    *,
    worker_name: str,
    job_name: str | None,
    payload: str | None,
    text: str | None,
    timeout: float | None,
    ready_timeout: float,
    follow: bool,
    json: bool,
    **connection: Any,
) -> None:
    """Ask a worker for a job, wait, and print its answer; of a stream, each chunk as it comes.

    Ctrl-C cancels the job. A job that must outlive this command is submitted instead: see `actorbus submit`.
    """
    given = payload_of(payload, text)

    def show(kind: str, data: Any) -> None:
        if json:
            emit({"type": kind, "data": data} if follow else data)
        else:
            click.echo(pretty(data) if kind != JobEvent.UPDATE else f"update: {encoded(data)}")

    async with connected(**connection, ready_timeout=ready_timeout) as client:
        with understood():
            asked = client.job(worker_name, name=job_name, payload=given, timeout=timeout)
        streamed = False
        async with asked as job:
            async for event in job:
                if event.type == JobEvent.STREAM_DATA:
                    streamed = True
                    show(event.type, event.data)
                elif event.type == JobEvent.UPDATE and follow:
                    show(event.type, event.data)
        if not (streamed and job.response in NOTHING and not follow):
            show("answer", job.response)


@click.command(
    cls=Command, example="""actorbus submit Till --job charge --payload '{"item": "tea"}' --key order-17 --wait"""
)
@click.argument("worker_names", metavar="WORKER...", nargs=-1, required=True)
@job_option
@payload_option
@text_option
@click.option("--timeout", type=ABOVE_ZERO, help="Seconds one attempt may take. [default: no limit]")
@click.option("--keep-going", is_flag=True, help="Of several workers, one that fails does not end the run.")
@click.option("--key", "idempotency_key", help="Idempotency key: the same key gives the same run.")
@click.option("--label", help="A text for people.")
@click.option("--ttl", type=ABOVE_ZERO, default=KEPT, show_default=True, help="Seconds the run is kept after its end.")
@click.option("--wait", is_flag=True, help="Wait for its end and print the result; Ctrl-C does not cancel it.")
@click.option("--wait-timeout", type=ABOVE_ZERO, help="Seconds to wait at most. [default: no limit]")
@settings(*CONNECTION, "run_store", "json")
@asynchronous
async def submit(
    *,
    worker_names: tuple[str, ...],
    job_name: str | None,
    payload: str | None,
    text: str | None,
    timeout: float | None,
    keep_going: bool,
    idempotency_key: str | None,
    label: str | None,
    ttl: float,
    wait: bool,
    wait_timeout: float | None,
    run_store: str | None,
    json: bool,
    **connection: Any,
) -> None:
    """Enter a run: a job, or a job for each of several workers, that outlives this command. Prints its id."""
    given = payload_of(payload, text)
    async with (
        opened_store(
            run_store, broker_url(connection["bus"]), connection["namespace"], connection["connect_timeout"]
        ) as store,
        connected(**connection, run_store=store) as client,
    ):
        try:
            with understood(), anyio.fail_after(connection["connect_timeout"]):
                run = await client.submit(
                    *worker_names,
                    name=job_name,
                    payload=given,
                    timeout=timeout,
                    cancel_on_error=not keep_going,
                    idempotency_key=idempotency_key,
                    label=label,
                    ttl=ttl,
                )
        except TimeoutError:
            raise CommandError(
                "the run store does not answer; the run may be entered: submit it again under the same --key",
                ExitCode.UNREACHABLE,
            ) from None
        except RunConflictError as error:
            raise usage(str(error)) from None
        if json:
            emit({"run_id": run.run_id})
        else:
            click.echo(run.run_id)
        if not wait:
            return
        try:
            result = await run.result(wait_timeout)
        except TimeoutError:
            raise CommandError(
                f"run {run.run_id} goes on after {wait_timeout:g} s: follow it with `actorbus runs tail {run.run_id}`",
                ExitCode.TIMED_OUT,
            ) from None
        if json:
            emit({"run_id": run.run_id, "result": result})
        else:
            click.echo(pretty(result))
