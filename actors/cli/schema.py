"""`actorbus schema`: what the handlers of workers take and give."""

from __future__ import annotations

from pathlib import Path

import click

from actors.cli.command import Command
from actors.cli.interface import asyncapi, json_schema, operations
from actors.cli.output import emit, pretty
from actors.cli.setting import settings
from actors.cli.target import targets


@click.command(cls=Command, example="actorbus schema shop:Till --asyncapi > till.json")
@click.argument("workers", nargs=-1, metavar="[NAME=]MODULE:CLASS...")
@click.option(
    "--all-from", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Every worker in DIR."
)
@click.option("--asyncapi", "as_asyncapi", is_flag=True, help="An AsyncAPI 3.0 document instead of JSON Schema.")
@click.option("--title", default="actorbus", show_default=True, help="Title of the AsyncAPI document.")
@click.option("--version", default="1", show_default=True, help="Version of the AsyncAPI document.")
@settings("json")
def schema(
    *, workers: tuple[str, ...], folder: Path | None, as_asyncapi: bool, title: str, version: str, json: bool
) -> None:
    """Print the JSON Schema of the handlers of workers. The workers are made, but not run."""
    found = [operation for target in targets(workers, folder) for operation in operations(target)]
    document = asyncapi(found, title, version) if as_asyncapi else json_schema(found)
    if json:
        emit(document)
    else:
        click.echo(pretty(document))
