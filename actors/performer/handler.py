"""Handlers: one way to do a job, and who has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from actors.jobs.policies import RetryPolicy
from bus import BusJobRequestMessage, Converter, ErrorInfo


class Shape(Enum):
    """How a handler is called."""

    COROUTINE = "async def"
    AWAITABLE = "returns an awaitable"
    GENERATOR = "async generator"
    THREAD = "def"
    THREAD_GENERATOR = "generator"


class Takes(Enum):
    """What a handler is given."""

    NOTHING = "nothing"
    MESSAGE = "the request message"
    JOB = "the job"
    PAYLOAD = "the payload"
    ARGUMENTS = "several arguments"


class GivesArguments(Protocol):
    """Gives a handler its arguments, where that is more than one by position."""

    @property
    def annotation(self) -> Any:
        """What the payload is, as one type."""

    def of(self, payload: Any) -> tuple[Any, dict[str, Any]]:
        """The payload, converted, and the arguments that it fills, by name.

        Raises:
            PayloadError: The payload does not fit.
        """

    def give(self, values: dict[str, Any], job: Any, request: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments by position and by name."""


class Handler(msgspec.Struct, frozen=True):
    """One way to do a job.

    Attributes:
        name: The job name it serves; None for `on_job_request`.
        attribute: Name of the method.
        call: The method, unbound.
        shape: How to call it.
        takes: What it is given.
        converter: What the payload is converted by; None for as it is, and where `arguments` does it.
        exact: A payload of exactly this class needs no conversion.
        arguments: Gives the arguments of one that takes several.
        limit: Jobs of this handler that may run at once in one worker; None for no limit of its own.
        plain: Whether it is called straight, with one argument: a coroutine function without retries.
        fields: Whether it takes any dict with texts as keys.
        threaded: Whether it runs in a thread.
        leaves_open: Whether it may return without an answer, which comes later: one that is given the message.
        unannotated: The parameter that is given the message because it has no annotation.
        retries: What to do when it raises.
        timeout: Seconds one job of it may run, None for no limit.
    """

    name: str | None
    attribute: str
    call: Callable[..., Any]
    shape: Shape
    takes: Takes
    converter: Converter | None = None
    limit: int | None = None
    retries: RetryPolicy | None = None
    timeout: float | None = None
    plain: bool = False
    fields: bool = False
    threaded: bool = False
    arguments: GivesArguments | None = None
    unannotated: str | None = None
    leaves_open: bool = False
    exact: type | None = None

    @property
    def type(self) -> Any:
        """What its payload is, as one type."""
        if self.arguments is not None:
            return self.arguments.annotation
        return Any if self.converter is None else self.converter.annotation

    def explained(self, error: ErrorInfo) -> ErrorInfo:
        """What it raised; with the way out, if it took the request message for the payload."""
        if self.unannotated is None or BusJobRequestMessage.__name__ not in error.message:
            return error
        what = f"{self.unannotated!r} has no annotation, so it is the request message: annotate it to get the payload"
        return msgspec.structs.replace(error, message=f"{error.message} ({what})")

    def __post_init__(self) -> None:
        """Note what makes it quick to call."""
        note = msgspec.structs.force_setattr
        one = self.takes in {Takes.MESSAGE, Takes.JOB, Takes.PAYLOAD}
        note(self, "plain", self.shape is Shape.COROUTINE and one and self.retries is None)
        note(self, "threaded", self.shape in {Shape.THREAD, Shape.THREAD_GENERATOR})
        streams = self.shape in {Shape.GENERATOR, Shape.THREAD_GENERATOR}
        note(self, "leaves_open", (self.takes is Takes.MESSAGE or self.leaves_open) and not streams)
        if self.converter is not None:
            note(self, "exact", self.converter.exact)
            note(self, "fields", self.converter.annotation == dict[str, Any])


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
