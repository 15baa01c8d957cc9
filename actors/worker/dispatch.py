"""What a worker does with each type of message, at the moment it is delivered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.jobs.lifecycle import WorkerState
from actors.performer.execution import Executor
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
    JobStatus,
    WorkerErrorData,
)
from bus.local.mailbox import Room

if TYPE_CHECKING:
    from actors.performer.job import Job
    from actors.requester.group import JobGroup
    from actors.worker.worker import BaseWorker


EVENT_MESSAGES = (BusJobUpdateMessage, BusJobStreamStartMessage, BusJobStreamDataMessage, BusJobStreamEndMessage)
"""What a job sends before it has ended, or to end its stream; its requester pays for each with credit."""

Deliver = Callable[["BaseWorker", Any, bool], Room | None]


def new_room(worker: BaseWorker) -> Room:
    """Room for what waits for a worker.

    One is made for jobs and one for messages: a hook that waits for a job must not keep it out by the messages that
    wait for the hook.
    """
    return Room(worker.name, worker.mailbox_size, worker.worker_runner.tasks, refuses=worker.when_full == "refuse")


def executor_of(worker: BaseWorker) -> Executor:
    """The executor of a worker, made when it is first needed."""
    executor = worker._executor
    if executor is None:
        executor = worker._executor = Executor(worker, worker.worker_runner, new_room(worker))
        serving = worker._started_at is not None and worker._state in {WorkerState.READY, WorkerState.DRAINING}
        executor.paused = not (worker._active and serving)
        executor.draining = worker._state in {WorkerState.DRAINING, WorkerState.STOPPING}
    return executor


def _request(worker: BaseWorker, message: BusJobRequestMessage, force: bool) -> Room | None:
    room = executor_of(worker).accept(message, force=force)
    if room is None and worker._listens("on_job_request"):
        worker._lanes().put((None, worker._emit, "on_job_request", message), message.job_id)
    return room


def _job_event(worker: BaseWorker, message: Any, _force: bool) -> None:
    group = worker._groups.get(message.job_id)
    taken = group is not None and _is_of(group, message) and group.receive(message)
    if not taken:
        worker.worker_runner.late_answer(worker, message, known=group is not None)
    if worker._hears and not (taken and isinstance(message, EVENT_MESSAGES)):
        worker._queue_hook("on_bus_message", message)


def _is_of(group: JobGroup, message: Any) -> bool:
    """Whether a message is not of what was asked for under the same id before."""
    return message.asked is None or message.asked == group.asked


def _credit(worker: BaseWorker, message: BusJobStreamCreditMessage, _force: bool) -> None:
    job = worker._executor.jobs.get(message.job_id) if worker._executor is not None else None
    if job is not None and job.attempt == message.attempt and _is_requester(worker, job, message):
        job.grant(message.limit)


def _cancel(worker: BaseWorker, message: BusJobCancelMessage, _force: bool) -> None:
    executor = worker._executor
    job = executor.jobs.get(message.job_id) if executor is not None else None
    if executor is None or job is None or not _is_requester(worker, job, message):
        worker.bus.unpark(message)  # it may have been handed back, and must not wait for the next of this name
        return
    if executor.cancel(message.job_id, message.reason) is not None:
        worker._queue_hook("on_job_cancelled", message)


def _is_requester(worker: BaseWorker, job: Job[Any], message: BusMessage) -> bool:
    """Whether a message comes from who asked for a job, and not from another of that name on another runner."""
    if job.requester != message.source:
        return False
    asked, says = job.request.origin, message.origin
    return asked == says or (asked or worker.bus.address) == (says or worker.bus.address)


def _update_request(worker: BaseWorker, message: BusJobUpdateRequestMessage, force: bool) -> Room | None:
    hook = "on_job_update_requested"
    if worker._executor is None or message.job_id not in worker._executor.jobs or hook not in worker._wanted:
        return None
    return _queue(worker, (None, worker._call_hook, hook, message, None, None), force, job_id=message.job_id)


def _activate(worker: BaseWorker, message: BusActivateWorkerMessage, _force: bool) -> None:
    set_active(worker, active=True, args=message.args)


def _deactivate(worker: BaseWorker, _message: BusDeactivateWorkerMessage, _force: bool) -> None:
    set_active(worker, active=False, args=None)


def _end(worker: BaseWorker, message: BusEndWorkerMessage, _force: bool) -> None:
    worker.worker_runner._roster.end(worker, message.reason or "it was ended")


def _stop(worker: BaseWorker, message: BusCancelWorkerMessage, _force: bool) -> None:
    worker.worker_runner._roster.end(worker, message.reason or "it was cancelled", drain=False)


def _child_error(worker: BaseWorker, message: BusWorkerErrorMessage | BusWorkerLocalErrorMessage, _force: bool) -> None:
    worker._queue_hook("on_worker_failed", WorkerErrorData(worker_name=message.source, error=message.error))


def _topic(worker: BaseWorker, message: BusTopicMessage, force: bool) -> Room | None:
    method = getattr(worker, worker._table.topics[message.topic])
    return _queue(worker, (None, worker.worker_runner.guarded, worker, message.topic, method, message.data), force)


def _running(worker: BaseWorker, message: BusJobRunningMessage, _force: bool) -> None:
    group = worker._groups.get(message.job_id)
    if group is not None and not _is_of(group, message):
        return  # it was told to stop before this was asked for
    if group is None or not group.awaits(message.source):  # also in a group that goes on without this member
        worker.worker_runner.late_answer(worker, message, known=False)
    elif not group.still_running(message):
        # Another has the job, as far as we know: this one may be given it again, and then has to do it.
        worker.worker_runner.late_answer(worker, message, known=True)
    elif not message.begun:
        host = worker.worker_runner
        left = max(group.deadline - host.tasks.now(), 0.0)
        worker.bus.post(
            BusJobWantedMessage(
                source=worker.name,
                target=message.source,
                destination=message.origin,
                job_id=message.job_id,
                attempt=message.attempt,
                timeout=left if left < math.inf else None,
                listed=any(each.address == message.origin for each in host.registry.remote_replicas(message.source)),
            )
        )


def _lost(worker: BaseWorker, message: BusJobLostMessage, _force: bool) -> None:
    group = worker._groups.get(message.job_id)
    if group is not None and group.awaits(message.source):
        group.fail_member(message.source, JobStatus.FAILED, message.error)


def deliver_other(worker: BaseWorker, message: BusMessage, force: bool) -> Room | None:
    """Deliver a message of a type that users define, to `on_bus_message`."""
    item = (None, worker._call_hook, "on_bus_message", message, None, None)
    if message.urgent:
        worker._lanes().put_urgent(item)
        return None
    return _queue(worker, item, force)


def takes_place(message: BusMessage) -> bool:
    """Whether a message to a worker waits in line with the messages of others, and is bounded with them."""
    return not message.urgent and DISPATCH.get(type(message)) in {None, _topic, _update_request}


def _queue(worker: BaseWorker, item: tuple[Any, ...], force: bool, *, job_id: str | None = None) -> Room | None:
    """Put a message of others in line: it takes a place until it is handled.

    While the worker is inactive it waits, unless it is about a job that the worker does.
    """
    room = worker._room
    if room is None:
        room = worker._room = new_room(worker)
    if not room.take():
        if not force:
            return room
        room.taken += 1
    if worker._active or job_id is not None:
        worker._lanes().put((None, _taken, room, item), job_id)
    else:
        if worker._held is None:
            worker._held = []
        worker._held.append((None, _taken, room, item))
    return None


async def _taken(room: Room, item: tuple[Any, ...]) -> None:
    room.give()
    await item[1](*item[2:])


def set_active(worker: BaseWorker, *, active: bool, args: dict[str, Any] | None) -> None:
    """Make a worker active or inactive at once, so that what is sent after this finds it so; its hook comes in line."""
    if worker._state not in {WorkerState.READY, WorkerState.STARTING, WorkerState.ATTACHED}:
        return
    worker._active = active
    worker._activation_args = args if active else None
    if worker._state is WorkerState.READY:
        if worker._executor is not None:
            worker._executor.serve(active)
        else:
            worker.bus.capacity_changed(worker.name)
        worker._lanes().put((None, _tell_active, worker, "on_activated" if active else "on_deactivated", args))
    if active and worker._held is not None:
        held, worker._held = worker._held, None
        for item in held:
            worker._lanes().put(item)


async def _tell_active(worker: BaseWorker, hook: str, args: dict[str, Any] | None) -> None:
    if worker._state is WorkerState.READY:
        await worker.worker_runner.announce(worker)
        await worker._call_hook(hook, args, None, None)


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
