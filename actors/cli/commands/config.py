"""`actorbus config`: which settings count, and where each comes from."""

from __future__ import annotations

import click
from click.core import ParameterSource

from actors.cli.command import Command, Group, Invocation
from actors.cli.output import emit, table
from actors.cli.settings import SETTINGS, settings, shown


@click.command(cls=Group)
def config() -> None:
    """Look at the configuration."""


@config.command("show", cls=Command, imports=False, example="ACTORBUS_BUS=redis://broker:6379 actorbus config show")
@settings(*SETTINGS)
@click.pass_context
def show(context: click.Context, /, **values: object) -> None:
    """Print each setting, its value and where that comes from. Secrets are not shown."""
    rows = [(name, shown(name, values[name]), _origin(context, name)) for name in SETTINGS]
    if values["json"]:
        emit([{"setting": name, "value": value, "origin": origin} for name, value, origin in rows])
    else:
        table(("SETTING", "VALUE", "ORIGIN"), rows)


def _origin(context: click.Context, name: str) -> str:
    invocation = context.find_object(Invocation)
    match context.get_parameter_source(name):
        case ParameterSource.COMMANDLINE:
            return "argument"
        case ParameterSource.ENVIRONMENT:
            return f"environment ACTORBUS_{name.upper()}"
        case ParameterSource.DEFAULT_MAP if invocation is not None:
            return f"file {invocation.file}"
    return "default"
