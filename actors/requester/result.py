"""What an answer is to be, where its requester said so with `result=`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from actors.jobs.outcome import MISMATCH
from bus import ErrorInfo, PayloadError, converter_of
from bus.wire.known import know

Fit = Callable[[Any], Any]
"""Makes of an answer what its requester wants; raises `PayloadError`, which names the part that does not fit."""


def fit_for(wanted: Any, what: str = "answer") -> Fit | None:
    """How to make what a requester wants of what it gets; None if it takes anything.

    From now on this process knows the classes that the annotation names, also those in their fields.

    Args:
        wanted: A class or another annotation; None wants nothing particular, `type(None)` wants None.
        what: What the value is called in errors.

    Raises:
        AnnotationError: No value can become that.
    """
    if wanted is None or wanted is Any:
        return None
    know(wanted)
    return partial(converter_of(wanted), path=what)


def mismatch(worker_name: str, error: PayloadError) -> ErrorInfo:
    """A worker answered something else than its requester wanted."""
    return ErrorInfo(type=MISMATCH, message=f"{worker_name!r} answered something else than result= says: {error}")
