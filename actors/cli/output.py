"""What commands print: results on stdout, as text or as JSON; everything else on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from actors.cli.failures import one_line


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
    return model(mode="json", by_alias=True) if model is not None else str(value)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def log_to_stderr(level: str, form: str) -> None:
    """Log from now on.

    Args:
        level: The least that is logged.
        form: `text` or `json`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def formatter(form: str) -> logging.Formatter:
    """How lines look, in `text` or `json`."""
    return _Json() if form == "json" else _Text()


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{_moment(record)} {record.levelname.lower():7} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        # The project's lines repeat their fields in the text, for formatters that know nothing of them.
        repeated = " ".join(f"{key}={value!r}" for key, value in fields.items())
        event = record.getMessage().removesuffix(repeated).rstrip()
        line = {"at": _moment(record), "level": record.levelname.lower(), "logger": record.name, "event": event}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return encoded({**fields, **line})


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
