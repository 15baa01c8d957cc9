"""Fields of log lines: which job, attempt, worker and run a line is about."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, Any

from bus.log import log

if TYPE_CHECKING:
    from bus import BusJobRequestMessage, ErrorInfo


RUN_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""The id of a run, as it travels with jobs."""


def run_of(request: BusJobRequestMessage) -> str | None:
    """The run that a request is part of. What is no id is left out: it must not keep a job from being done."""
    run: object = request.run
    return run if isinstance(run, str) and RUN_ID.fullmatch(run) else None


def log_fields(request: BusJobRequestMessage) -> dict[str, Any]:
    """What a log line says about a job that a worker does."""
    fields: dict[str, Any] = {"worker": request.target, "job": request.job_id, "attempt": request.attempt}
    run = run_of(request)
    if run is not None:
        fields["run"] = run
    return fields


def log_raised(
    request: BusJobRequestMessage, error: BaseException, info: ErrorInfo, what: str, *, told: bool = False
) -> None:
    """Log what a handler raised: with its traceback, as a warning unless it is `told` where somebody waits for it."""
    note = log().debug if told else log().warning
    note(what, **log_fields(request), error=str(info), exc_info=error)


def bind_log_fields(request: BusJobRequestMessage) -> list[tuple[Callable[[Any], object], Any]]:
    """Let what the current task logs with structlog carry the fields of a job; returns what takes that back.

    Nobody has logged with it before it is imported, and until then this costs nothing. It may be another thread that
    imports it now: that is not waited for, as an `import` would.
    """
    if not hasattr(sys.modules.get("structlog"), "contextvars"):
        return []
    bound: list[tuple[Callable[[Any], object], Any]] = []
    for key, value in log_fields(request).items():
        variable = _variable(key)
        bound.append((variable.reset, variable.set(value)))
    return bound


@cache
def _variable(key: str) -> ContextVar[Any]:
    """The context variable in which structlog keeps a key: setting that costs a tenth of what its own function does."""
    bind = sys.modules["structlog.contextvars"].bind_contextvars
    context = copy_context()
    context.run(bind, **{key: None})
    return next(variable for variable in context if variable.name == f"structlog_{key}")
