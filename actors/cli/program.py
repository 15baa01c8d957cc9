"""The program `actorbus`: all its commands under one name."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from actors.cli.command import Invocation, Program
from actors.cli.commands.config import config
from actors.cli.commands.dead_letter import dead_letters
from actors.cli.commands.doctor import doctor
from actors.cli.commands.fleet import events, ps
from actors.cli.commands.interface import schema
from actors.cli.commands.job import invoke, submit
from actors.cli.commands.run import runs
from actors.cli.commands.serving import dev, serve
from actors.cli.commands.worker import worker
from actors.cli.settings import configuration, defaults

DISTRIBUTION = "actorbus"


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        try:
            click.echo(f"actorbus {version(DISTRIBUTION)}")
        except PackageNotFoundError:
            click.echo("actorbus (run from a checkout)")
        context.exit()


@click.command(cls=Program)
@click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="ACTORBUS_CONFIG",
    show_envvar=True,
    help="Configuration file. [default: ./actorbus.toml, or [tool.actorbus] in ./pyproject.toml]",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say which it is.")
@click.pass_context
def actorbus(context: click.Context, file: Path | None) -> None:
    """Run workers, ask them for jobs, and look after both, over a broker.

    Every setting may be an argument, a variable ACTORBUS_..., or a line in the configuration file; the first of these
    that says anything counts. `actorbus config show` tells which one does.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False
    invocation = context.find_object(Invocation)
    assert invocation is not None
    assert isinstance(context.command, Program)
    invocation.file, content = configuration(file)
    context.default_map = defaults(context.command, content, invocation.file)


for each in (worker, serve, dev, ps, invoke, submit, runs, events, dead_letters, doctor, schema, config):
    actorbus.add_command(each)
