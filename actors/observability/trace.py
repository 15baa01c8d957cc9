"""What a job is part of: a run, and a trace. It travels with the job, and with those asked for inside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from actors.observability.log_fields import RUN_ID, bind_log_fields, run_of

if TYPE_CHECKING:
    from actors.host import Host, WatchedJob
    from bus import BusJobRequestMessage, ErrorInfo, JobStatus
    from bus.local.mailbox import Room


Exit = tuple[Callable[[Any], object], Any]
"""What takes a change of the context back: a function and its argument."""

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_STATE = re.compile(r"[\x20-\x7e]{1,512}")


class Trace(msgspec.Struct, frozen=True):
    """What a job is part of, as it travels.

    Attributes:
        parent: Trace context, W3C `traceparent`: 55 characters.
        state: What belongs to that, W3C `tracestate`: 512 printable characters of ASCII at most.
        run: Id of a run: 128 printable characters of ASCII at most, without blanks.
    """

    parent: str | None = None
    state: str | None = None
    run: str | None = None

    @classmethod
    def of(cls, request: BusJobRequestMessage) -> Self | None:
        """What a request says; what is not as it must be is left out, for it must not keep a job from being done."""
        parent = _fit(_PARENT, request.trace)
        run = run_of(request)
        if parent is None and run is None:
            return None
        return cls(parent, _fit(_STATE, request.trace_state) if parent is not None else None, run)

    def stamp(self, request: BusJobRequestMessage) -> None:
        """Write it on a request."""
        request.trace = self.parent
        request.trace_state = self.state
        request.run = self.run


class Telemetry(Protocol):
    """Who watches all jobs of this process; see `install_telemetry`."""

    def send(self, host: Host, request: BusJobRequestMessage) -> Room | None:
        """Send a request for a job, as `WorkerBus.post` does."""

    def started(self, job: WatchedJob) -> None:
        """The handler of a job begins."""

    def enter(self, job: WatchedJob) -> Exit | None:
        """Change the context of the task that runs the handler of a job."""

    def ended(self, job: WatchedJob, status: JobStatus, error: ErrorInfo | None) -> None:
        """A job has been answered."""

    def current(self) -> Trace | None:
        """The span that the current task is in; None if it is in none."""


current_trace: ContextVar[Trace | None] = ContextVar("current_trace", default=None)
"""What is asked for in the current task is part of this."""

watching: list[Telemetry] = []
"""The one that is installed, if one is."""


@contextmanager
def tracing(traceparent: str | None = None, tracestate: str | None = None, *, run: str | None = None) -> Iterator[None]:
    """Let every job that is asked for in this block, and inside such jobs on any runner, be part of a trace or a run.

    What is not given stays as it is outside of the block. OpenTelemetry is not needed; where it is installed and has
    a current span, that counts.

    Args:
        traceparent: Trace context as W3C has it: `00-`, 32 hexadecimal digits, `-`, 16, `-`, 2.
        tracestate: What belongs to that, 512 printable characters of ASCII at most.
        run: Id of a run, 128 printable characters of ASCII at most, without blanks. Log lines show it.

    Raises:
        ValueError: One of them is not as it must be, or there is a `tracestate` alone.
    """
    outer = current_trace.get() or Trace()
    if traceparent is None:
        if tracestate is not None:
            raise ValueError("tracestate= belongs to a traceparent=: give both")
        traceparent, tracestate = outer.parent, outer.state
    for name, value, pattern, wanted in (
        ("traceparent", traceparent, _PARENT, "00-, 32 hexadecimal digits, -, 16, -, 2: in lower case, and not all 0"),
        ("tracestate", tracestate, _STATE, "1 to 512 printable characters of ASCII"),
        ("run", run, RUN_ID, "1 to 128 printable characters of ASCII without blanks"),
    ):
        if value is not None and _fit(pattern, value) is None:
            raise ValueError(f"{name} must be {wanted}; got {value!r:.100}")
    token = current_trace.set(Trace(traceparent, tracestate, outer.run if run is None else run))
    try:
        yield
    finally:
        current_trace.reset(token)


def received(traceparent: str | None, tracestate: str | None) -> AbstractContextManager[None]:
    """As `tracing`, for what comes from outside: what is not as it must be is left out."""
    parent = _fit(_PARENT, traceparent)
    return tracing(parent, _fit(_STATE, tracestate)) if parent is not None else nullcontext()


def trace_here() -> Trace | None:
    """What that is part of which is asked for in the current task."""
    return (watching[0].current() if watching else None) or current_trace.get()


def send_traced(host: Host, request: BusJobRequestMessage) -> Room | None:
    """Send a request with what it is part of. Returns the room to wait for if there is none."""
    trace = current_trace.get()
    if trace is not None:
        trace.stamp(request)
    if watching:
        return watching[0].send(host, request)
    return host.bus.post(request)


def enter(job: WatchedJob) -> list[Exit]:
    """Show the context of a job to the handler that the current task is about to run; `leave` takes that back."""
    request = job.request
    exits = bind_log_fields(request)
    if request.trace is not None or request.run is not None:
        exits.append((current_trace.reset, current_trace.set(Trace.of(request))))
    if watching:
        change = watching[0].enter(job)
        if change is not None:
            exits.append(change)
    return exits


def leave(exits: Sequence[Exit]) -> None:
    """Take back what `enter` has done."""
    for undo, argument in reversed(exits):
        with suppress(ValueError):  # a task that is closed from outside ends in another context
            undo(argument)


def _fit(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
