"""The configuration file: what is taken where neither an argument nor the environment says anything."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from actors.cli.failure import usage
from actors.cli.setting import SETTINGS
from bus import nearest

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
