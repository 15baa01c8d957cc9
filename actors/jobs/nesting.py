"""The verbs of whoever asks for jobs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from actors.jobs.errors import JobStateError
from actors.performer.admission import Lane
from actors.performer.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.requester.delivery import Member
    from actors.requester.group import JobGroup
    from bus import BusJobRequestMessage


current_job: ContextVar[Job[Any] | None] = ContextVar("current_job", default=None)
"""The job whose handler the current task runs."""

current_hook: ContextVar[str | None] = ContextVar("current_hook", default=None)
"""Name of the worker whose hook the current task runs."""

current_event: ContextVar[tuple[JobGroup, Member] | None] = ContextVar("current_event", default=None)
"""Of what job the event is that the current task calls hooks for: its group, and who does it."""


def inside(job: Job[Any], lanes: Iterable[Lane]) -> bool:
    """Whether it was asked for inside a job that holds a slot of these lanes of its worker.

    It must not wait for that slot, or both would for ever.
    """
    if not job.request.lineage:
        return False
    here = f"@{job.worker_name}"
    ancestors = {entry.removesuffix(here) for entry in job.request.lineage if entry.endswith(here)}
    return bool(ancestors) and any(running.id in ancestors for lane in lanes for running in lane.running)


def nested(request: BusJobRequestMessage) -> bool:
    """Whether it was asked for inside a job, and not only inside a hook."""
    return any(not entry.startswith("@") for entry in request.lineage)


MAX_DEPTH = 100
"""Jobs inside jobs inside jobs: deeper is a loop, and would end only when memory does."""


def _position() -> tuple[Job[Any] | None, tuple[str, ...]]:
    """The job this is asked for inside of, if that is open, and the lineage of what is asked for."""
    parent = current_job.get()
    if parent is None:
        return None, _lineage_of_hook()
    # Also when it has answered: its handler may hold the slot that this job will need.
    return None if parent.ended else parent, _lineage_inside(parent)


def _lineage_of_hook() -> tuple[str, ...]:
    hook = current_hook.get()
    if hook is None:
        return ()
    event = current_event.get()
    if event is None or event[1].result is not None:
        return (f"@{hook}",)
    # Who sent the event may have to wait for this hook, with the slot that this job will need.
    group, member = event
    outer = _lineage_inside(group.parent) if group.parent is not None else ()
    return (*outer, f"{group.job_id}@{member.name}", f"@{hook}")


def _lineage_inside(parent: Job[Any]) -> tuple[str, ...]:
    lineage = (*parent.request.lineage, f"{parent.id}@{parent.worker_name}")
    if len(lineage) > MAX_DEPTH:
        raise JobStateError(
            f"jobs nested more than {MAX_DEPTH} deep, the outermost is {lineage[0]!r}: do they ask in a loop?"
        )
    return lineage
