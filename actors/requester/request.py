"""Asking: everything is checked and copied first, then the requests are sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from anyio import create_task_group

from actors.jobs.errors import JobStateError, RunnerStateError
from actors.jobs.nesting import current_hook, current_job, lineage_here
from actors.observability.trace import current_trace
from actors.requester.delivery import Asker, Member
from actors.requester.group import Group
from bus import WorkerRegistry, check_name, travel

if TYPE_CHECKING:
    from actors.jobs.params import JobGroupParams
    from bus.local.mailbox import Room

Late = list[tuple[str, Any, tuple[str, ...], "Room"]]
"""Requests that found no room: to whom, with what, inside what, and the room to wait for."""


def request(asker: Asker, worker_names: tuple[str, ...], params: JobGroupParams) -> tuple[Group, Late | None]:
    """Check everything, then send what can be sent now; what cannot is returned for `request_late`.

    Raises:
        RunnerStateError: The asker has no running runner, or that is ending and this is not asked for inside a job.
        InvalidNameError: A name breaks the rule for names.
        JobStateError: The id is in use, or the job would be nested too deeply.
        EncodeError: A payload cannot travel. In all these cases nothing was sent.
    """
    host = asker.host_for("request a job")
    parent = current_job.get()
    lineage = lineage_here() if parent is not None or current_hook.get() is not None else ()
    if parent is not None and parent.answered:
        parent = None  # its lineage counts all the same: its handler may hold the slot that this job will need
    if parent is None and not host.accepting:
        raise RunnerStateError(f"runner {host.name!r} is ending: it takes no new jobs or workers")
    if params.name is not None:
        check_name("job name", params.name)
    job_id = params.job_id
    if job_id is None:
        job_id, asked = host.new_id(), None
    elif job_id in asker.groups:
        raise JobStateError(f"job id {job_id!r} is in use by {asker.groups[job_id]!r}: choose another, or wait for it")
    else:
        asked = host.new_id()
    values = _copies(host.registry, worker_names, params)
    deadline, left = math.inf, params.timeout
    if left is not None:
        deadline = host.tasks.now() + left
    if parent is not None and parent.deadline < deadline:
        deadline, left = parent.deadline, parent.remaining
    group = Group(
        asker,
        host,
        job_id,
        worker_names,
        {name: Member(name) for name in worker_names},
        len(worker_names),
        params.name,
        params.cancel_on_error,
        params.label,
        params.cancellable,
        params.delivery,
        asked,
        current_trace.get(),
        parent,
        deadline,
    )
    group.begin(left)
    late: Late | None = None
    try:
        for name, value in zip(worker_names, values, strict=True):
            if group.done:  # ended by one that refused at once: the others would work for nobody
                break
            room = group.ask(name, value, lineage, left)
            if room is not None:
                late = late or []
                late.append((name, value, lineage, room))
    except BaseException as error:
        group.cancel(f"a request could not be sent: {error!r}")
        raise
    return group, late


async def request_late(group: Group, late: Late) -> None:
    """Send what found no room before, to each member as soon as it has."""
    try:
        if len(late) == 1:
            await group.ask_later(*late[0])
            return
        async with create_task_group() as senders:
            for each in late:
                senders.start_soon(group.ask_later, *each)
    except BaseException as error:
        group.cancel(f"its requester stopped waiting: {type(error).__name__}")
        raise


def refuse_twice(worker_names: tuple[str, ...]) -> None:
    """Refuse a group that would ask a worker twice.

    Raises:
        TypeError: A name is no text.
        ValueError: A worker is named twice.
    """
    for name in worker_names:
        if not isinstance(name, str):
            raise TypeError(f"worker names are strings; got {name!r}")
    if len(set(worker_names)) != len(worker_names):
        twice = sorted({name for name in worker_names if worker_names.count(name) > 1})
        raise ValueError(f"a group asks each worker once; named twice: {', '.join(map(repr, twice))}")


def _copies(registry: WorkerRegistry, worker_names: tuple[str, ...], params: JobGroupParams) -> list[Any]:
    """The payload of each worker, once all names and payloads are found to be in order."""
    payloads = _checked(params.payloads, worker_names) if params.payloads is not None else None
    values = []
    for name in worker_names:
        if name not in registry:
            check_name("worker name", name)
        if payloads and name in payloads:
            values.append(travel(payloads[name], f"payloads[{name!r}]"))
        else:
            values.append(travel(params.payload))
    return values


def _checked(payloads: Any, worker_names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(payloads, dict):
        raise TypeError(f"payloads= is a dict of payloads by worker name, not {payloads!r:.100}")
    if not payloads.keys() <= set(worker_names):
        strangers = ", ".join(repr(name) for name in payloads if name not in worker_names)
        raise ValueError(f"payloads= names workers that are not in the group: {strangers}")
    return payloads
