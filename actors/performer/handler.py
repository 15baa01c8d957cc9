"""Handlers: one way to do a job, and who has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ParamSpec, Protocol, TypeVar

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
        fields: Whether it takes any dict with texts as keys.
        threaded: Whether it runs in a thread.
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
    fields: bool = False
    threaded: bool = False

    def __post_init__(self) -> None:
        """Note what makes it quick to call."""
        plain = self.shape is Shape.COROUTINE and self.takes is not Takes.NOTHING and self.retries is None
        msgspec.structs.force_setattr(self, "plain", plain)
        msgspec.structs.force_setattr(self, "threaded", self.threaded or self.shape is Shape.THREAD)
        msgspec.structs.force_setattr(self, "fields", self.type == dict[str, Any])


class Doer(Protocol):
    """Who does jobs, as its admission and its executions need it: a worker's core."""

    name: str
    instance: Any
    """The user's object: what handlers are called on."""
    leaving: bool
    """Whether somebody waits for its last jobs."""

    @property
    def definition(self) -> Serves:
        """What it serves."""

    @property
    def max_concurrency(self) -> int:
        """Jobs that may run at once."""

    @property
    def by_events(self) -> Handler | None:
        """What does the jobs that no handler of its class does: the handlers of an event."""

    @property
    def was_ready(self) -> bool:
        """Whether it has ever taken jobs."""

    def job_left(self) -> None:
        """A job has ended or was handed back: who waits for that may look again."""


class Serves(Protocol):
    """Which jobs a worker does, and how."""

    @property
    def jobs(self) -> Mapping[str | None, Handler]:
        """Handlers by job name; none of them by None."""

    @property
    def default(self) -> Handler | None:
        """What does the jobs that none of them serves."""

    def missing(self, job_name: str | None, worker_name: str) -> str:
        """Say that no handler serves a job name, and which names there are."""


ArgumentsP = ParamSpec("ArgumentsP")
ReturnT_co = TypeVar("ReturnT_co", covariant=True)


class FunctionReference(Protocol[ArgumentsP, ReturnT_co]):
    """A function marked with `@function`, as what it serves is named by it."""

    name: str

    def __call__(self, *args: ArgumentsP.args, **kwargs: ArgumentsP.kwargs) -> ReturnT_co:
        """Call the function itself."""

    def worker(self, name: str | None = None) -> object:
        """A worker that serves it."""
