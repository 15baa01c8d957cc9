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

    A traceback that no file could take, because of its length or of a letter that is none, is written here.
    """
    fields = event["extra"]
    text = " ".join(f"{key}={value!r}" for key, value in fields.items())
    extra = {f"{key}_" if key in _OF_RECORDS else key: value for key, value in fields.items()}
    shown = {**event, "msg": f"{event['msg']} {text}".rstrip(), "extra": extra}
    error = event.get("exc_info")
    if isinstance(error, BaseException):
        trace = traceback_of(error)
        if not _is_whole(trace):
            shown["msg"] += f"\n{said(trace, LONGEST_TRACEBACK)}"
            shown["exc_info"] = None
    return shown


def _is_whole(text: str) -> bool:
    try:
        return len(text.encode()) <= 4 * LONGEST_TRACEBACK
    except UnicodeError:
        return False


_OF_RECORDS = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})


LONGEST_TEXT = 1000
"""Characters of a text of a user's (an error's, a reason) that are told: more of it helps nobody."""

LONGEST_TRACEBACK = 50_000
"""Characters: that of a recursion has 60,000, and says the same all along."""


def said(text: object, longest: int = LONGEST_TEXT) -> str:
    """What a user's object says, as a text that can be told everywhere: its `str()`, cut, and of letters that are some.

    Never raises, whatever the object does. What comes out is left as it is by this.
    """
    try:
        made = str.encode(str(text), errors="backslashreplace").decode()
    except BaseException as error:  # noqa: BLE001 - who only wants to tell something must not fail by it
        return f"(its text could not be made: {type(error).__name__})"
    if len(made) <= longest:
        return made
    note = f"... ({len(made)} characters)"
    return made[: longest - len(note)] + note


def reason_of(reason: object, otherwise: str) -> str:
    """A reason that a user may have given, as `said`; what to say `otherwise`."""
    return (said(reason) if reason is not None else "") or otherwise


def text_of(value: object) -> str:
    """What `repr` says of something, as `said`; its type if that itself fails."""
    try:
        return said(repr(value))
    except BaseException as error:  # noqa: BLE001 - as in `said`
        return f"{type(value).__name__} (its text could not be made: {type(error).__name__})"


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception; its type if that itself fails."""
    try:
        return "".join(format_exception(error))
    except BaseException as second:  # noqa: BLE001 - as in `said`
        return f"{type(error).__name__} (its traceback could not be made: {type(second).__name__})"
