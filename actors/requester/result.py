"""What an answer is to be, where its requester said so with `result=`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from actors.jobs.outcome import MISMATCH
from bus import ErrorInfo, PayloadError, convert
from bus.wire.shapes import register_annotated

Fit = Callable[[Any], Any]
"""Makes of an answer what its requester wants; raises `PayloadError`, which names the part that does not fit."""


def fit_for(wanted: Any, what: str = "answer") -> Fit | None:
    """How to make what a requester wants of what it gets; None if it takes anything.

    From now on this process knows the classes that the annotation names, also those in their fields.

    Args:
        wanted: A class or another annotation; None wants nothing particular, `type(None)` wants None.
        what: What the value is called in errors.
    """
    if wanted is None or wanted is Any:
        return None
    register_annotated(wanted)
    return partial(_converted, wanted, what)


def _converted(wanted: Any, what: str, value: Any) -> Any:
    return convert(value, wanted, what)


def mismatch(wanted_of: str, error: PayloadError) -> ErrorInfo:
    """A worker answered something else than its requester wanted."""
    return ErrorInfo(type=MISMATCH, message=f"{wanted_of!r} answered something else than result= says: {error}")
