"""Asking: everything is checked and copied first, then the requests are sent."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, create_task_group

from actors.jobs.errors import JobStateError, RunnerStateError, describe
from actors.jobs.nesting import OuterJob, current_hook, current_job, lineage_here
from actors.jobs.outcome import refused
from actors.jobs.params import JobGroupParams, resolve
from actors.observability.trace import current_trace, send_traced, watching
from actors.requester.flow import WINDOW, Asker, Member
from actors.requester.group import Group
from actors.requester.result import Fit
from bus import BusJobRequestMessage, JobStatus, WorkerRegistry, check_name, travel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.host import AskingHost
    from bus.local.mailbox import Room

Late = list[tuple[BusJobRequestMessage, "Room"]]
"""Requests that found no room, each with the room to wait for."""


def request(
    asker: Asker,
    worker_names: tuple[str, ...],
    params: JobGroupParams,
    fit: Fit | None = None,
    *,
    by_hand: bool = False,
    unheard: bool = False,
) -> tuple[Group, Late | None]:
    """Check everything, then send what can be sent now; what cannot is returned for `request_late`.

    Raises:
        RunnerStateError: The asker has no running runner, or that is ending and this is not asked for inside a job.
        InvalidNameError: A name breaks the rule for names.
        JobStateError: The id is in use, or the job would be nested too deeply.
        EncodeError: A payload cannot travel. In all these cases nothing was sent.
    """
    host = asker.asking
    if host is None or not host.running:
        host = asker.host_for("request a job")
    parent: OuterJob | None = None
    lineage: tuple[str, ...] = ()
    left = params.timeout
    if current_job.get() is not None or current_hook.get() is not None or not host.accepting:
        parent, lineage = _position(host)
    if params.name not in _checked_names:
        _check_job_name(params.name)
    job_id, asked = (host.new_id(), None) if params.job_id is None else _chosen(asker, host, worker_names, params)
    serving = host.registry.serving
    if len(worker_names) == 1 and params.payloads is None and worker_names[0] in serving:
        values = [travel(params.payload)]
    else:
        values = _copies(host.registry, worker_names, params)
    limited = parent is not None or left is not None
    deadline, left = _deadline(host, left, parent) if limited else (math.inf, None)
    group = Group(
        asker,
        host,
        job_id,
        worker_names,
        dict(zip(worker_names, map(Member, worker_names), strict=True)),
        len(worker_names),
        params.name,
        params.cancel_on_error,
        params.label,
        params.cancellable,
        asked,
        current_trace.get(),
        parent,
        deadline,
        by_hand,
        fit,
        unheard,
    )
    asker.groups.setdefault(job_id, group)
    host.open_groups[group] = group
    if limited or not worker_names:
        group.begin(left)
    late: Late | None = None
    crowd = asker.crowded() if asker.wanted else None
    if crowd is not None and asker.waits_inside_hook():
        crowd = None
    send = host.bus.post if group.trace is None and not watching else partial(send_traced, host)
    try:
        asking = zip(worker_names, values, strict=True)
        for name, value in asking if asked is None else _not_known(group, asking):
            if group.done:  # ended by one that refused at once: the others would work for nobody
                break
            message = BusJobRequestMessage(
                source=asker.name,
                target=name,
                job_id=job_id,
                job_name=params.name,
                payload=value,
                timeout=left,
                window=WINDOW,
                lineage=lineage,
                delivery=params.delivery,
                asked=asked,
            )
            room = send(message) if crowd is None else crowd
            if room is not None:
                late = [*(late or ()), (message, room)]
            elif name not in serving:
                group.await_ready(name)
    except BaseException as error:
        group.cancel(f"a request could not be sent: {describe(error)}")
        raise
    return group, late


async def request_by_hand(asker: Asker, message: BusJobRequestMessage) -> bool:
    """Ask for the job that a message of the asker's own making asks for; those of one id make a group.

    Every answer, also one of the system's, comes to `on_job_response`.

    Returns:
        Whether it was asked for. A message that repeats a request, or of a job asked for by a verb, travels as it is.

    Raises:
        As `request`.
    """
    assert message.target is not None
    group = asker.groups.get(message.job_id)
    if group is None:
        params = resolve(
            None,
            JobGroupParams,
            name=message.job_name,
            payload=message.payload,
            timeout=message.timeout,
            cancel_on_error=False,
            job_id=message.job_id,
            delivery=message.delivery,
        )
        group, late = request(asker, (message.target,), params, by_hand=True, unheard=True)
        if late is not None:
            await request_late(group, late)
        return True
    if not group.by_hand or message.target in group.members:
        return False
    group.join(message.target)
    message.asked = group.asked
    await _send_late(group, message, _send_again(group, message))
    return True


def _position(host: AskingHost) -> tuple[OuterJob | None, tuple[str, ...]]:
    """The job inside which the current task asks, if that is not answered, and the lineage of what it asks for."""
    parent = current_job.get()
    lineage = lineage_here()
    if parent is not None and (parent.answered or parent.host.tasks.loop is not host.tasks.loop):
        # Its lineage counts all the same: its handler may hold the slot that this job will need. But from another event
        # loop, as of a plain handler that runs one of its own, nothing here can be ended.
        parent = None
    if parent is None and not host.accepting:
        raise RunnerStateError(f"runner {host.name!r} is ending: it takes no new jobs or workers")
    return parent, lineage


def _deadline(host: AskingHost, left: float | None, parent: OuterJob | None) -> tuple[float, float | None]:
    """When a job ends at the latest, and how long that is from now: never after the job around it."""
    deadline = math.inf if left is None else host.tasks.now() + left
    if parent is not None and parent.deadline < deadline:
        return parent.deadline, parent.remaining
    return deadline, left


async def request_late(group: Group, late: Late) -> None:
    """Send what found no room before, to each member as soon as it has."""
    try:
        if len(late) == 1:
            await _send_late(group, *late[0])
            return
        async with create_task_group() as senders:
            for message, room in late:
                senders.start_soon(_send_late, group, message, room)
    except BaseException as error:
        group.cancel(f"its requester stopped waiting: {type(error).__name__}")
        raise


async def _send_late(group: Group, message: BusJobRequestMessage, room: Room | None) -> None:
    """Send a request to a member that had no room, as soon as it has; give up when the group has ended."""
    host, name = group.host, message.target or ""
    with CancelScope() as scope:
        group.until_done(scope)
        while room is not None and not group.done:
            if room.refuses:
                group.fail_member(name, JobStatus.FAILED, refused(room.refusal()))
                break
            await room.wait()
            waited, room = room, _send_again(group, message)
            waited.pass_on()
        if room is None and name not in host.registry.serving and group.awaits(name):
            group.await_ready(name)


def _send_again(group: Group, message: BusJobRequestMessage) -> Room | None:
    if group.done:
        return None
    if group.deadline != math.inf:
        message.timeout = max(group.deadline - group.host.tasks.now(), 0.0)
    traced = watching or group.trace is not None
    return send_traced(group.host, message) if traced else group.host.bus.post(message)


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


_checked_names: dict[str | None, None] = {None: None}
"""Job names that were found to be in order: programs ask for the same few again and again."""

_MOST_NAMES = 1024


def _check_job_name(name: str | None) -> None:
    check_name("job name", name)
    if len(_checked_names) >= _MOST_NAMES:
        _checked_names.clear()
        _checked_names[None] = None
    _checked_names[name] = None


def _chosen(asker: Asker, host: AskingHost, worker_names: tuple[str, ...], params: JobGroupParams) -> tuple[str, str]:
    """An id that the caller chose, and what tells this use of it from others.

    Raises:
        JobStateError: It names other jobs.
    """
    job_id = params.job_id or ""
    running = asker.groups.get(job_id)
    if running is not None and not running.is_same(worker_names, params.name):
        raise JobStateError(f"job id {job_id!r} is in use by {running!r}: choose another, or wait for it")
    for name in worker_names:
        outcome = host.outcomes.get((asker.name, name, job_id))
        if outcome is not None and outcome.name != params.name:
            known = f"job {outcome.name!r} of worker {name!r}"
            raise JobStateError(f"job id {job_id!r} names {known}, which was done a while ago: choose another")
    return job_id, host.new_id()


def _not_known(group: Group, asking: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Whom a group with an id of the caller's has to ask: not those who were asked under it before."""
    first = group.asker.groups.get(group.job_id, group)
    if first is not group:
        group.join_running(first)
        return []
    outcomes, asker, job_id = group.host.outcomes, group.asker.name, group.job_id
    unknown = []
    for name, value in asking:
        outcome = outcomes.get((asker, name, job_id))
        if outcome is None:
            unknown.append((name, value))
        else:
            group.recall(name, outcome)
    return unknown


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
