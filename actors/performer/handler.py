"""Handlers: the decorators that mark methods, and the table a class's methods make."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from actors.jobs.policies import RetryPolicy


class Shape(Enum):
    """How a handler is called."""

    COROUTINE = "async def"
    GENERATOR = "async generator"
    THREAD = "def"


class Takes(Enum):
    """What a handler is given."""

    NOTHING = "nothing"
    MESSAGE = "the request message"
    JOB = "the job"
    PAYLOAD = "the payload"


class Handler(msgspec.Struct, frozen=True):
    """One way to do a job.

    Attributes:
        name: The job name it serves; None for `on_job_request`.
        attribute: Name of the method.
        call: The method, unbound.
        shape: How to call it.
        takes: What it is given.
        type: What the payload is converted to; None for as it is.
        limit: Jobs of this handler that may run at once in one worker; None for no limit of its own.
        plain: Whether it is called straight, with one argument: a coroutine function without retries.
        retries: What to do when it raises.
        timeout: Seconds one job of it may run, None for no limit.
    """

    name: str | None
    attribute: str
    call: Callable[..., Any]
    shape: Shape
    takes: Takes
    type: Any = None
    limit: int | None = None
    retries: RetryPolicy | None = None
    timeout: float | None = None
    plain: bool = False

    def __post_init__(self) -> None:
        """Note whether it is plain."""
        plain = self.shape is Shape.COROUTINE and self.takes is not Takes.NOTHING and self.retries is None
        msgspec.structs.force_setattr(self, "plain", plain)
