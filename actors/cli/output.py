"""What commands print: results on stdout, as text or as JSON; everything else on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from actors.cli.failure import one_line


def encoded(value: Any) -> str:
    """A value as one line of JSON: bytes as base64, times as ISO 8601, what JSON has no form for as its text."""
    try:
        return msgspec.json.encode(msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)).decode()
    except (TypeError, ValueError):
        return msgspec.json.encode(_bare(value)).decode()


def emit(value: Any) -> None:
    """Print one line of JSON."""
    click.echo(encoded(value))


def pretty(value: Any) -> str:
    """A value for people: text as it is, everything else as JSON."""
    return whole(value) if isinstance(value, str) else msgspec.json.format(encoded(value), indent=2)


def whole(text: str) -> str:
    """A text as it can be written: what is half a letter is a question mark."""
    return text.encode(errors="replace").decode()


def say(text: str) -> None:
    """Tell people something that is no result."""
    click.echo(text, err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, as wide as they need to be."""
    cells = [[one_line("-" if cell is None or cell == "" else str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[place]) for line in (columns, *cells)) for place in range(len(columns))]
    for line in (columns, *cells):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if line is columns else text)


def moment(unix_time: float | None) -> str:
    """A time for people, in UTC."""
    return "" if unix_time is None else datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _bare(value: Any) -> Any:
    """What msgspec does not take: keys that are neither texts nor numbers, and texts that are not UTF-8."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return {whole(key if isinstance(key, str) else str(key)): _bare(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_bare(item) for item in value]
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)
    except (TypeError, ValueError):
        return whole(str(value))
    return plain if plain is value else _bare(plain)


def _plain(value: Any) -> Any:
    model = getattr(value, "model_dump", None)
    return model(mode="json") if model is not None else str(value)
