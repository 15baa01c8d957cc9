"""Events: named hooks with many handlers, and the log, which is the hook everybody has."""

from __future__ import annotations

import logging
from functools import cache
from traceback import format_exception
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@cache
def log() -> FilteringBoundLogger:
    """The project's structured logger, on top of the standard library's logger `actorbus`.

    An application configures it like any other (`logging.basicConfig()` is enough). structlog is imported at the first
    line that is logged: most programs never log one, and it is the slowest import of all.
    """
    import structlog  # noqa: PLC0415

    processors: list[Any] = [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.render_to_log_kwargs,
        _event_with_fields,
    ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        logging.getLogger("actorbus"), processors=processors, wrapper_class=structlog.stdlib.BoundLogger
    )
    return logger


def _event_with_fields(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Show the fields behind the text too. A name that records use themselves gets an underscore.

    A traceback that no file could take, because of a letter that is none in what the exception says, is written here.
    """
    fields = event["extra"]
    text = " ".join(f"{key}={value!r}" for key, value in fields.items())
    extra = {f"{key}_" if key in _OF_RECORDS else key: value for key, value in fields.items()}
    shown = {**event, "msg": f"{event['msg']} {text}".rstrip(), "extra": extra}
    error = event.get("exc_info")
    if isinstance(error, BaseException) and not _can_be_told(error):
        shown["msg"] += "\n" + said("".join(format_exception(error)), LONGEST_TRACEBACK)
        shown["exc_info"] = None
    return shown


def _can_be_told(error: BaseException) -> bool:
    try:
        str(error).encode()
    except BaseException:  # noqa: BLE001 - as in `said`
        return False
    return True


_OF_RECORDS = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})


LONGEST_TEXT = 1000
"""Characters of a text of a user's (an error's, a reason) that are told: more of it helps nobody."""

LONGEST_TRACEBACK = 50_000
"""Characters: that of a recursion has 60,000, and says the same all along."""


def said(text: object, longest: int = LONGEST_TEXT) -> str:
    """What a user's object says, as a text that can be told everywhere: its `str()`, cut, and of letters that are some.

    Never raises, whatever the object does.
    """
    try:
        made = str.encode(str(text), errors="backslashreplace").decode()
    except BaseException as error:  # noqa: BLE001 - who only wants to tell something must not fail by it
        return f"(its text could not be made: {type(error).__name__})"
    return made if len(made) <= longest else f"{made[:longest]}... ({len(made)} characters)"


def text_of(value: object) -> str:
    """What `repr` says of something, or its type if that itself fails."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - an error that cannot be shown must not hide in another one
        return f"{type(value).__name__} (its text could not be made: {type(error).__name__})"
