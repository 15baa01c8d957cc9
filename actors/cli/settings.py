"""Settings: what can be said by argument, environment or file, under one name each."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from actors.cli.failures import usage
from bus import nearest
from bus.transport.server import redacted

OWN_FILE = Path("actorbus.toml")
SHARED_FILE = Path("pyproject.toml")


def configuration(path: Path | None) -> tuple[Path | None, dict[str, Any]]:
    """Read the configuration file.

    Args:
        path: Which; None is `actorbus.toml` of this folder, or else `[tool.actorbus]` in its `pyproject.toml`.

    Returns:
        Which file it was, None if there is none; and what it says.

    Raises:
        CommandError: It cannot be read.
    """
    for candidate in (path,) if path is not None else (OWN_FILE, SHARED_FILE):
        if path is None and not candidate.is_file():
            continue
        try:
            content = tomllib.loads(candidate.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise usage(f"{candidate} cannot be read: {error}") from error
        if candidate.name == SHARED_FILE.name:
            content = content.get("tool", {}).get("actorbus", {})
            if not content and path is None:
                continue
        if not isinstance(content, dict):
            raise usage(f"{candidate}: [tool.actorbus] must be a table")
        return candidate, content
    return None, {}


def defaults(group: click.Group, content: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """What a file says to each command: settings for all of them, and tables such as `[worker.start]` for one.

    Raises:
        CommandError: It names something that does not exist.
    """
    return _defaults(group, {key.replace("-", "_"): value for key, value in content.items()}, {}, str(file), "")


def _defaults(
    group: click.Group, content: dict[str, Any], inherited: dict[str, Any], file: str, where: str
) -> dict[str, Any]:
    flat = {**inherited, **{key: value for key, value in content.items() if not isinstance(value, dict)}}
    tables = {key.replace("_", "-"): value for key, value in content.items() if isinstance(value, dict)}
    _refuse_unknown(flat, SETTINGS, f"{file}: {where}", "setting")
    _refuse_unknown(tables, group.commands, f"{file}: {where}", "table")
    result: dict[str, Any] = {}
    for name, command in group.commands.items():
        table = {key.replace("-", "_"): value for key, value in tables.get(name, {}).items()}
        path = f"[{where.strip('[] ')}.{name}] ".replace("[.", "[")
        if isinstance(command, click.Group):
            result[name] = _defaults(command, table, flat, file, path)
            continue
        known = {parameter.name: parameter for parameter in command.params if parameter.name}
        _refuse_unknown(table, known, f"{file}: {path}", "setting")
        result[name] = {key: value for key, value in {**flat, **table}.items() if key in known}
    return result


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], where: str, what: str) -> None:
    for key in given:
        if key not in known:
            names = nearest(key, known) or sorted(known)
            raise usage(f"{where}there is no {what} {key!r}: use {', '.join(names)}")


CommandT = TypeVar("CommandT", bound=Callable[..., Any])

PREFIX = "ACTORBUS"

BUS_HELP = "URL of the broker: redis://host:6379, rediss://, nats://host:4222 or tls://."


class Setting(NamedTuple):
    """One setting. Its option is `--its-name`, its variable `ACTORBUS_ITS_NAME`, its key in a file `its_name`."""

    help: str
    type: Any = str
    default: Any = None
    secret: bool = False
    flags: str = ""
    multiple: bool = False


class _Seconds(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


PORT = click.IntRange(0, 65535)
ABOVE_ZERO = _Seconds(min=0, min_open=True)

SETTINGS: dict[str, Setting] = {
    "bus": Setting(BUS_HELP, secret=True),
    "namespace": Setting(
        "How all keys at the broker begin; fleets of other namespaces are not seen.", default="actorbus"
    ),
    "signing_key_env": Setting("Name of the environment variable that holds the signing keys, in hexadecimal."),
    "connect_timeout": Setting("Seconds to try to reach the broker.", ABOVE_ZERO, 5.0),
    "imports": Setting(
        "Module whose types may come back, as it has them in its handlers' signatures; may be repeated.",
        default=(),
        flags="--import",
        multiple=True,
    ),
    "run_store": Setting(
        "URL of the run store: sqlite:///runs.db, rocksdb:///folder, redis://, nats://. [default: the broker]",
        secret=True,
    ),
    "concurrency": Setting("Jobs that each worker may run at once. [default: as the worker says]", click.IntRange(1)),
    "prefetch": Setting("Jobs claimed ahead of those that run. [default: as the bus says]", click.IntRange(1)),
    "consumer_id": Setting("Name of this process at the broker that stays over restarts."),
    "reclaim_min_idle_ms": Setting(
        "Milliseconds after which the job of a silent process goes to another. [default: 30000]", click.IntRange(1)
    ),
    "heartbeat_seconds": Setting("Seconds between two signs of life. [default: as the bus says]", ABOVE_ZERO),
    "drain_timeout": Setting("Seconds running jobs may take when it ends.", click.FloatRange(min=0), 30.0),
    "health_port": Setting("Port of this machine for /livez and /readyz; 0 takes a free one. [default: none]", PORT),
    "log_level": Setting("The least that is logged.", click.Choice(["debug", "info", "warning", "error"]), "info"),
    "log_format": Setting("How lines are logged.", click.Choice(["text", "json"]), "text"),
    "reload": Setting("Start again when a file changes.", bool, default=False, flags="--reload/--no-reload"),
    "reload_dir": Setting("Folder to watch with --reload. [default: .]", click.Path(exists=True, file_okay=False)),
    "host": Setting("Address to listen at.", default="127.0.0.1"),
    "port": Setting("Port to listen at; 0 takes a free one.", PORT, 8000),
    "token": Setting(
        "What callers of the server show to operate it: better set as ACTORBUS_TOKEN, as everybody on this machine "
        "sees arguments. [default: none, at 127.0.0.1 only]",
        secret=True,
    ),
    "read_token": Setting(
        "What callers of the server show who may only look: better set as ACTORBUS_READ_TOKEN.", secret=True
    ),
    "json": Setting(
        "Print JSON on stdout: one document, or one per line for what goes on.", bool, default=False, flags="--json"
    ),
}
"""All settings, by name."""

URLS = ("bus", "run_store")
"""The settings that are URLs."""

CONNECTION = ("bus", "namespace", "signing_key_env", "connect_timeout", "imports")
"""The settings of every command that speaks to the broker."""


def settings(*names: str) -> Callable[[CommandT], CommandT]:
    """Give a command the options of these settings, in this order."""

    def decorate(command: CommandT) -> CommandT:
        for name in reversed(names):
            command = _option(name)(command)
        return command

    return decorate


def _option(name: str) -> Callable[[CommandT], CommandT]:
    each = SETTINGS[name]
    return click.option(
        each.flags or f"--{name.replace('_', '-')}",
        name,
        type=each.type,
        default=each.default,
        is_flag=True if each.type is bool else None,
        multiple=each.multiple,
        show_default=each.default is not None and not each.flags,
        envvar=f"{PREFIX}_{name.upper()}",
        show_envvar=True,
        help=each.help,
    )


def shown(name: str, value: object) -> object:
    """The value of a setting, to be shown: of a URL the address alone, of another secret nothing."""
    if not SETTINGS[name].secret or not isinstance(value, str):
        return value
    return redacted(value) if name in URLS else "***"
