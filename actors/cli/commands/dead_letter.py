"""`actorbus dead-letters`: the jobs that were given up on."""

from __future__ import annotations

import math
from typing import Any

import click

from actors.cli.command import Command, Group, asynchronous
from actors.cli.connection import connected
from actors.cli.failures import CommandError, ExitCode, usage
from actors.cli.output import emit, moment, pretty, say, table
from actors.cli.settings import ABOVE_ZERO, CONNECTION, settings
from bus import DeadLetters

letter_argument = click.argument("letter_id", metavar="LETTER")
worker_option = click.option("--worker", "worker_name", help="Only those for this worker.")


@click.command("dead-letters", cls=Group)
def dead_letters() -> None:
    """Look after the jobs that were given up on."""


@dead_letters.command("list", cls=Command, example="actorbus dead-letters list --worker Till")
@worker_option
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@click.option("--after", default="", help="Only those that follow the letter of this id: how to read on.")
@settings(*CONNECTION, "json")
@asynchronous
async def list_letters(*, worker_name: str | None, limit: int, after: str, json: bool, **connection: Any) -> None:
    """List dead letters, the oldest first."""
    async with connected(**connection) as client:
        try:
            found = await client.dead_letters.oldest(worker_name=worker_name, most=limit, after=after)
        except ValueError as error:
            raise usage(str(error)) from None
    if json:
        emit(found)
        return
    table(
        ("LETTER", "WORKER", "JOB", "ATTEMPTS", "DIED", "PROBLEM"),
        [
            (each.id, each.worker_name, each.job_name, each.attempts, moment(each.died_at), each.problem)
            for each in found
        ],
    )


@dead_letters.command("show", cls=Command, example="actorbus dead-letters show 1763640000000-0")
@letter_argument
@settings(*CONNECTION, "json")
@asynchronous
async def show_letter(*, letter_id: str, json: bool, **connection: Any) -> None:
    """Show a dead letter with its payload and how its claims ended."""
    async with connected(**connection) as client:
        letter = await client.dead_letters.get(letter_id)
    if letter is None:
        raise none_of_that_id(letter_id)
    if json:
        emit(letter)
    else:
        click.echo(pretty(letter))


@dead_letters.command("requeue", cls=Command, example="actorbus dead-letters requeue 1763640000000-0 --timeout 60")
@letter_argument
@click.option("--timeout", type=ABOVE_ZERO, help="Seconds the new job may take. [default: no limit]")
@settings(*CONNECTION, "json")
@asynchronous
async def requeue_letter(*, letter_id: str, timeout: float | None, json: bool, **connection: Any) -> None:
    """Do a job that was given up on again, wait, and print its answer. The letter goes when the job has completed."""
    async with connected(**connection) as client:
        if await client.dead_letters.get(letter_id) is None:
            raise none_of_that_id(letter_id)
        try:
            answer = await client.requeue(letter_id, timeout=timeout)
        except ValueError as error:
            raise CommandError(str(error), ExitCode.FAILED) from None
    if json:
        emit(answer)
    else:
        click.echo(pretty(answer))


@dead_letters.command("purge", cls=Command, example="actorbus dead-letters purge --worker Till --yes")
@click.argument("letter_id", metavar="[LETTER]", required=False)
@worker_option
@click.option("--yes", is_flag=True, help="Do it: without, only say how many there are.")
@settings(*CONNECTION, "json")
@asynchronous
async def purge_letters(
    *, letter_id: str | None, worker_name: str | None, yes: bool, json: bool, **connection: Any
) -> None:
    """Throw dead letters away: one, all for one worker, or all. This cannot be undone."""
    if letter_id is not None and worker_name is not None:
        raise usage("name a letter, or a worker with --worker, not both")
    async with connected(**connection) as client:
        count = await _purged(client.dead_letters, letter_id, worker_name, really=yes)
    if json:
        emit({"letters": count, "purged": yes})
    elif yes:
        say(f"{count} thrown away")
    else:
        say(f"{count} would be thrown away: say --yes to do it")


async def _purged(letters: DeadLetters, letter_id: str | None, worker_name: str | None, *, really: bool) -> int:
    if letter_id is not None:
        there = await letters.discard(letter_id) if really else await letters.get(letter_id) is not None
        if not there:
            raise none_of_that_id(letter_id)
        return 1
    if really:
        return await letters.purge(worker_name=worker_name)
    return len(await letters.oldest(worker_name=worker_name, most=math.inf))


def none_of_that_id(letter_id: str) -> CommandError:
    """There is no such letter."""
    return CommandError(
        f"there is no dead letter {letter_id!r}: `actorbus dead-letters list` shows those that there are",
        ExitCode.NOT_FOUND,
    )
