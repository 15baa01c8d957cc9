"""What a worker does with each type of message, at the moment it is delivered."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from actors.jobs.lifecycle import WorkerState
from actors.jobs.nesting import asked_inside_hook
from actors.jobs.outcome import cancelled
from actors.performer.execution import Execution
from actors.requester.group import Group
from actors.requester.request import request_by_hand
from actors.worker.core import WorkerCore
from bus import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobLostMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobRunningMessage,
    BusJobStreamCreditMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusJobWantedMessage,
    BusMessage,
    BusTopicMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    ErrorInfo,
    JobStatus,
    WorkerErrorData,
)
from bus.local.mailbox import Room

EVENT_MESSAGES = (BusJobUpdateMessage, BusJobStreamStartMessage, BusJobStreamDataMessage, BusJobStreamEndMessage)
"""What a job sends before it has ended, or to end its stream; its requester pays for each with credit."""

_OF_JOBS = (BusJobResponseMessage, *EVENT_MESSAGES)

Deliver = Callable[[WorkerCore, Any, bool], Room | None]


def deliver(core: WorkerCore, message: BusMessage, *, force: bool = False) -> Room | None:
    """Deliver a message to a worker. Returns the room to wait for if there is none."""
    if core.guarded and not _accepted(core, message):
        _refuse(core, message)
        return None
    by_type = DISPATCH.get(type(message))
    if by_type is None:
        return _other(core, message, force)
    room = by_type(core, message, force)
    if core.wants_messages and room is None and by_type is not _job_event:
        core.queue_hook("on_bus_message", message)
    return room


def _accepted(core: WorkerCore, message: BusMessage) -> bool:
    """Whether a worker takes a message. It is not asked about those that keep its jobs going."""
    if isinstance(message, (BusJobStreamCreditMessage, BusJobRunningMessage, BusJobLostMessage)):
        return True
    try:
        accepted = core.instance.accepts_bus_message(message)
        return accepted is True or (bool(accepted) and not inspect.isawaitable(accepted))
    except BaseException as error:  # noqa: BLE001 - it is a user's, and who sends has done nothing
        core.hosted.report(core, "accepts_bus_message failed", error)
        return False


def _refuse(core: WorkerCore, message: BusMessage) -> None:
    """Do what there is to do for a message that its worker does not take: who waits for it must not wait for ever."""
    core.hosted.bus.undelivered(core.name, 1, "the worker does not accept a message")
    if isinstance(message, BusJobRequestMessage):
        if core.admission is None or message.job_id not in core.admission.executions:
            text = f"worker {core.name!r} does not accept it: its accepts_bus_message says so"
            core.hosted.refuse(message, JobStatus.FAILED, "JobRefused", text)
        return
    group = core.groups.get(message.job_id) if isinstance(message, _OF_JOBS) else None
    if group is None or not _is_of(group, message):
        return
    if not isinstance(message, (BusJobResponseMessage, BusJobStreamEndMessage)):
        group.skip(message)
    elif group.awaits(message.source):
        text = f"worker {core.name!r} does not accept the answer: its accepts_bus_message says so"
        group.fail_member(message.source, JobStatus.FAILED, ErrorInfo(type="JobRefused", message=text))


def takes_place(message: BusMessage) -> bool:
    """Whether a message to a worker waits in line with the messages of others, and is bounded with them."""
    return not message.urgent and DISPATCH.get(type(message)) in {None, _topic, _update_request}


def _request(core: WorkerCore, message: BusJobRequestMessage, force: bool) -> Room | None:
    if not force and (crowd := core.crowded()) is not None and not asked_inside_hook(message):
        return crowd  # each would end by a hook
    room = core.request(message, force=force)
    if room is None and core.listens("on_job_request") and not core.served_by_events(message.job_name):
        core.open_mailbox().put((core.emit, "on_job_request", message), message.job_id)
    return room


def _job_event(core: WorkerCore, message: Any, _force: bool) -> None:
    group = core.groups.get(message.job_id)
    taken = group is not None and _is_of(group, message) and group.receive(message)
    if not taken:
        core.hosted.late_answer(core, message, known=group is not None)
    if core.wants_messages and not (taken and isinstance(message, EVENT_MESSAGES)):
        core.queue_hook("on_bus_message", message)


def _is_of(group: Group, message: Any) -> bool:
    """Whether a message is not of what was asked for under the same id before."""
    return message.asked is None or message.asked == group.asked


def _job_of(core: WorkerCore, message: Any) -> Execution | None:
    """The job of this worker that a message of its requester is about; None if it comes from anybody else."""
    execution = core.admission.executions.get(message.job_id) if core.admission is not None else None
    if execution is None or execution.request.source != message.source:
        return None
    asked, says, here = execution.request.origin, message.origin, core.hosted.bus.address
    return execution if asked == says or (asked or here) == (says or here) else None


def _credit(core: WorkerCore, message: BusJobStreamCreditMessage, _force: bool) -> None:
    execution = _job_of(core, message)
    if execution is not None and execution.request.attempt == message.attempt:
        execution.grant(message.limit)


def _cancel(core: WorkerCore, message: BusJobCancelMessage, _force: bool) -> None:
    execution = _job_of(core, message)
    if execution is None:
        core.hosted.bus.unpark(message)  # it may have been handed back, and must not wait for the next of this name
    elif execution.stop(cancelled(message.reason)):
        core.queue_hook("on_job_cancelled", message)


def _update_request(core: WorkerCore, message: BusJobUpdateRequestMessage, force: bool) -> Room | None:
    hook = "on_job_update_requested"
    if core.admission is None or message.job_id not in core.admission.executions or hook not in core.wanted:
        return None
    return _queue(core, (core.call_hook, hook, message), force, job_id=message.job_id)


def _activate(core: WorkerCore, message: BusActivateWorkerMessage, _force: bool) -> None:
    _set_active(core, active=True, args=message.args)


def _deactivate(core: WorkerCore, _message: BusDeactivateWorkerMessage, _force: bool) -> None:
    _set_active(core, active=False, args=None)


def _end(core: WorkerCore, message: BusEndWorkerMessage, _force: bool) -> None:
    core.hosted.end(core, message.reason or "it was ended")


def _stop(core: WorkerCore, message: BusCancelWorkerMessage, _force: bool) -> None:
    core.hosted.end(core, message.reason or "it was cancelled", drain=False)


def _child_error(core: WorkerCore, message: BusWorkerErrorMessage | BusWorkerLocalErrorMessage, _force: bool) -> None:
    core.queue_hook("on_worker_failed", WorkerErrorData(worker_name=message.source, error=message.error))


def _topic(core: WorkerCore, message: BusTopicMessage, force: bool) -> Room | None:
    method = getattr(core.instance, core.definition.topics[message.topic])
    return _queue(core, (core.hosted.guarded, core, message.topic, method, message.data), force)


def _running(core: WorkerCore, message: BusJobRunningMessage, _force: bool) -> None:
    host = core.hosted
    group = core.groups.get(message.job_id)
    if group is not None and not _is_of(group, message):
        return  # it was told to stop before this was asked for
    if group is None or not group.awaits(message.source):  # also in a group that goes on without this member
        host.late_answer(core, message, known=False)
    elif not group.still_running(message):
        # Another has the job, as far as we know: this one may be given it again, and then has to do it.
        host.late_answer(core, message, known=True)
    elif not message.begun:
        left = max(group.deadline - host.tasks.now(), 0.0)
        host.bus.post(
            BusJobWantedMessage(
                source=core.name,
                target=message.source,
                destination=message.origin,
                job_id=message.job_id,
                attempt=message.attempt,
                timeout=left if left < math.inf else None,
                listed=any(each.address == message.origin for each in host.registry.remote_replicas(message.source)),
            )
        )


def _lost(core: WorkerCore, message: BusJobLostMessage, _force: bool) -> None:
    group = core.groups.get(message.job_id)
    if group is not None and group.awaits(message.source):
        group.fail_member(message.source, JobStatus.FAILED, message.error)


def _other(core: WorkerCore, message: BusMessage, force: bool) -> Room | None:
    """A message of a type that users define goes to `on_bus_message`."""
    item = (core.call_hook, "on_bus_message", message)
    if message.urgent:
        core.open_mailbox().put_urgent(item)
        return None
    return _queue(core, item, force)


def _queue(core: WorkerCore, item: tuple[Any, ...], force: bool, *, job_id: str | None = None) -> Room | None:
    """Put a message of others in line: it takes a place until it is handled.

    While the worker is inactive it waits, unless it is about a job that the worker does.
    """
    room = core.room
    if room is None:
        room = core.room = core.new_room()
    if not room.take():
        if not force:
            return room
        room.taken += 1
    if core.active or job_id is not None:
        core.open_mailbox().put((_taken, room, item), job_id)
    else:
        if core.held is None:
            core.held = []
        core.held.append((_taken, room, item))
    return None


async def say(core: WorkerCore, message: BusMessage) -> bool:
    """Do what a worker's verb would do, for a message about a job that the worker has made by hand.

    What it says of a job that it does comes in order and once; a job that it asks for ends.

    Returns:
        Whether the message was one.

    Raises:
        JobStateError: The job was answered while this waited for room at its requester.
        EncodeError: A field cannot travel; of an answer, the requester was told ERROR.
    """
    if isinstance(message, BusJobRequestMessage) and message.target is not None:
        return await request_by_hand(core, message)
    if core.admission is None or not isinstance(message, (BusJobResponseMessage, *EVENT_MESSAGES)):
        return False
    execution = core.admission.executions.get(message.job_id)
    if execution is None or execution.request.source != message.target:
        return False
    if isinstance(message, BusJobResponseMessage):
        execution.respond(message.response, JobStatus(message.status), message.error, urgent=message.urgent)
    elif isinstance(message, BusJobStreamEndMessage):
        execution.respond(message.data, JobStatus.COMPLETED, stream_end=True)
    elif isinstance(message, BusJobUpdateMessage):
        await execution.event(type(message), update=message.update)
    else:
        execution.streaming = True
        await execution.event(type(message), data=message.data)
    return True


async def _taken(room: Room, item: tuple[Any, ...]) -> None:
    room.give()
    await item[0](*item[1:])


def _set_active(core: WorkerCore, *, active: bool, args: dict[str, Any] | None) -> None:
    """Make a worker active or inactive at once, so that what is sent after this finds it so; its hook comes in line."""
    if core.state not in {WorkerState.READY, WorkerState.STARTING, WorkerState.ATTACHED}:
        return
    core.active = active
    core.activation_args = args if active else None
    if core.state is WorkerState.READY:
        if core.admission is not None:
            core.admission.serve(active)
        else:
            core.hosted.bus.capacity_changed(core.name)
        core.open_mailbox().put((_tell_active, core, "on_activated" if active else "on_deactivated", args))
    if active and core.held is not None:
        held, core.held = core.held, None
        for item in held:
            core.open_mailbox().put(item)


async def _tell_active(core: WorkerCore, hook: str, args: dict[str, Any] | None) -> None:
    if core.state is WorkerState.READY:
        await core.hosted.announce(core)
        await core.call_hook(hook, args)


DISPATCH: dict[type[BusMessage], Deliver] = {
    BusJobRequestMessage: _request,
    BusJobResponseMessage: _job_event,
    BusJobResponseUrgentMessage: _job_event,
    BusJobUpdateMessage: _job_event,
    BusJobUpdateUrgentMessage: _job_event,
    BusJobStreamStartMessage: _job_event,
    BusJobStreamDataMessage: _job_event,
    BusJobStreamEndMessage: _job_event,
    BusJobStreamCreditMessage: _credit,
    BusJobCancelMessage: _cancel,
    BusJobUpdateRequestMessage: _update_request,
    BusJobRunningMessage: _running,
    BusJobLostMessage: _lost,
    BusActivateWorkerMessage: _activate,
    BusDeactivateWorkerMessage: _deactivate,
    BusEndWorkerMessage: _end,
    BusCancelWorkerMessage: _stop,
    BusWorkerErrorMessage: _child_error,
    BusWorkerLocalErrorMessage: _child_error,
    BusTopicMessage: _topic,
}
"""How each built-in type of message is delivered to a worker."""
