"""Log lines of workers: on stderr, for people or for programs."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from actors.cli.output import encoded

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
