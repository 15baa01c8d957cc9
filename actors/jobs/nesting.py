"""Jobs inside jobs: in which job, hook or event something is asked for, and what follows from that.

A job that is asked for inside another never waits for a slot that the other holds, ends with it, and has a lineage:
the jobs around it, the outermost first, each as `job-id@worker`, and hooks as `@worker`, where `@` and `%` in an id or
a name are quoted as in a URL.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from actors.jobs.errors import JobResult, JobStateError

if TYPE_CHECKING:
    from bus import BusJobRequestMessage
    from bus.local.tasks import Tasks

MAX_DEPTH = 100
"""Jobs inside jobs inside jobs: deeper is a loop, and would end only when memory does."""


class Place(Protocol):
    """A runner, as something that has an event loop."""

    tasks: Tasks


class OuterJob(Protocol):
    """A job whose handler runs, as what is asked for inside it sees it."""

    deadline: float

    @property
    def id(self) -> str:
        """Identity of the job."""

    @property
    def worker_name(self) -> str:
        """Name of the worker that does it."""

    @property
    def lineage(self) -> tuple[str, ...]:
        """The jobs around it."""

    @property
    def remaining(self) -> float | None:
        """Seconds until its deadline; None if there is none."""

    @property
    def host(self) -> Place:
        """The runner where it is done."""

    @property
    def answered(self) -> bool:
        """Whether its requester has its outcome."""

    def asks(self, group: OpenGroup) -> None:
        """Jobs were asked for inside it."""

    def has_answers(self, group: OpenGroup) -> None:
        """They have ended."""


class OpenGroup(Protocol):
    """Jobs that were asked for and have not all ended."""

    job_id: str

    @property
    def parent(self) -> OuterJob | None:
        """The job inside which they were asked for."""

    def cancel(self, reason: str | None = None) -> None:
        """End them now."""


class OpenMember(Protocol):
    """One of those jobs."""

    name: str
    result: JobResult | None


current_job: ContextVar[OuterJob | None] = ContextVar("current_job", default=None)
"""The job whose handler the current task runs."""

current_hook: ContextVar[str | None] = ContextVar("current_hook", default=None)
"""Name of the worker whose hook the current task runs."""

current_event: ContextVar[tuple[OpenGroup, OpenMember] | None] = ContextVar("current_event", default=None)
"""Of what job the event is that the current task calls hooks for: its group, and who does it."""


def lineage_here() -> tuple[str, ...]:
    """The lineage of what the current task asks for.

    Raises:
        JobStateError: It would be deeper than `MAX_DEPTH`.
    """
    outer = current_job.get()
    if outer is not None:
        return lineage_inside(outer)
    hook = current_hook.get()
    if hook is None:
        return ()
    event = current_event.get()
    if event is None or event[1].result is not None:
        return (f"@{_quoted(hook)}",)
    # Who sent the event may have to wait for this hook, with the slot that this job will need.
    group, member = event
    around = lineage_inside(group.parent) if group.parent is not None else ()
    return (*around, _entry(group.job_id, member.name), f"@{_quoted(hook)}")


def lineage_inside(outer: OuterJob) -> tuple[str, ...]:
    """The lineage of what is asked for inside a job; raises as `lineage_here`."""
    lineage = (*outer.lineage, _entry(outer.id, outer.worker_name))
    if len(lineage) > MAX_DEPTH:
        raise JobStateError(
            f"jobs nested more than {MAX_DEPTH} deep, the outermost is {lineage[0]!r}: do they ask in a loop?"
        )
    return lineage


def _entry(job_id: str, worker_name: str) -> str:
    return f"{_quoted(job_id)}@{_quoted(worker_name)}"


def _quoted(text: str) -> str:
    """An id or a name in a lineage: the sign that parts the two is none of its own."""
    return text if "@" not in text and "%" not in text else text.replace("%", "%25").replace("@", "%40")


def _name_in(entry: str) -> str:
    return unquote(entry.rpartition("@")[2])


def takes_part(outer: OuterJob, names: set[str]) -> bool:
    """Whether one of these workers does a job, or one inside which it was asked for."""
    return outer.worker_name in names or any(_name_in(entry) in names for entry in outer.lineage)


def waits_for_hook(name: str) -> bool:
    """Whether a hook of worker `name`, if it has any, would have to wait for what the current task waits for."""
    outer = current_job.get()
    return current_hook.get() == name if outer is None else f"@{_quoted(name)}" in outer.lineage


def holders(request: BusJobRequestMessage) -> frozenset[str]:
    """Ids of the jobs of its own target inside which it was asked for.

    It must not wait for a slot that one of them holds, or both would wait for ever.
    """
    here = f"@{_quoted(request.target or '')}"
    return frozenset(unquote(entry.removesuffix(here)) for entry in request.lineage if entry.endswith(here))


def asked_inside_hook(request: BusJobRequestMessage) -> bool:
    """Whether it was asked for inside a hook of its own target, which must not wait for other hooks then."""
    return f"@{_quoted(request.target or '')}" in request.lineage


def nested(request: BusJobRequestMessage) -> bool:
    """Whether it was asked for inside a job, and not only inside a hook."""
    return any(not entry.startswith("@") for entry in request.lineage)
