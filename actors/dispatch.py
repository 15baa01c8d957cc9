"""What a worker does with each type of message, at the moment it is delivered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.executor import Executor
from actors.lifecycle import WorkerState
from bus import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
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
    BusMessage,
    BusTopicMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    WorkerErrorData,
)
from bus.mailbox import Room

if TYPE_CHECKING:
    from actors.worker import BaseWorker

Deliver = Callable[["BaseWorker", Any, bool], Room | None]


def room_of(worker: BaseWorker) -> Room:
    """The room of a worker, made when it is first needed."""
    if worker._room is None:
        host = worker.worker_runner
        worker._room = Room(worker.name, worker.mailbox_size, host.tasks, refuses=worker.when_full == "refuse")
    return worker._room


def executor_of(worker: BaseWorker) -> Executor:
    """The executor of a worker, made when it is first needed."""
    executor = worker._executor
    if executor is None:
        executor = worker._executor = Executor(worker, worker.worker_runner, room_of(worker))
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
    if group is None or not group.receive(message):
        worker.worker_runner.late_answer(worker, message, known=group is not None)


def _credit(worker: BaseWorker, message: BusJobStreamCreditMessage, _force: bool) -> None:
    job = worker._executor.jobs.get(message.job_id) if worker._executor is not None else None
    if job is not None and job.attempt == message.attempt:
        job.grant(message.limit)


def _cancel(worker: BaseWorker, message: BusJobCancelMessage, _force: bool) -> None:
    executor = worker._executor
    job = executor.jobs.get(message.job_id) if executor is not None else None
    if executor is None or job is None or job.requester != message.source:
        return
    if executor.cancel(message.job_id, message.reason) is not None:
        worker._queue_hook("on_job_cancelled", message)


def _update_request(worker: BaseWorker, message: BusJobUpdateRequestMessage, _force: bool) -> None:
    if worker._executor is not None and message.job_id in worker._executor.jobs:
        worker._queue_hook("on_job_update_requested", message)


def _activate(worker: BaseWorker, message: BusActivateWorkerMessage, _force: bool) -> None:
    worker._lanes().put((None, set_active, worker, True, message.args))


def _deactivate(worker: BaseWorker, _message: BusDeactivateWorkerMessage, _force: bool) -> None:
    worker._lanes().put((None, set_active, worker, False, None))


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
    if group is None or not group.still_running(message):
        worker.worker_runner.late_answer(worker, message, known=group is not None)


def deliver_other(worker: BaseWorker, message: BusMessage, force: bool) -> Room | None:
    """Deliver a message of a type that users define, to `on_bus_message`."""
    item = (None, worker._call_hook, "on_bus_message", message, None, None)
    if message.urgent:
        worker._lanes().put_urgent(item)
        return None
    return _queue(worker, item, force)


def _queue(worker: BaseWorker, item: tuple[Any, ...], force: bool) -> Room | None:
    """Put a message of others in line: it takes a place until it is handled, and waits while the worker is inactive."""
    room = room_of(worker)
    if not room.take():
        if not force:
            return room
        room.taken += 1
    if worker._active:
        worker._lanes().put((None, _taken, room, item))
    else:
        if worker._held is None:
            worker._held = []
        worker._held.append((None, _taken, room, item))
    return None


async def _taken(room: Room, item: tuple[Any, ...]) -> None:
    room.give()
    await item[1](*item[2:])


async def set_active(worker: BaseWorker, active: bool, args: dict[str, Any] | None) -> None:
    """Make a worker active or inactive, in line with its other hooks, and start what waited for it."""
    if worker._state not in {WorkerState.READY, WorkerState.STARTING, WorkerState.ATTACHED}:
        return
    worker._active = active
    worker._activation_args = args if active else None
    ready = worker._state is WorkerState.READY
    if worker._executor is not None:
        worker._executor.serve(active and ready)
    elif ready:
        worker.bus.capacity_changed(worker.name)
    if active and worker._held is not None:
        held, worker._held = worker._held, None
        for item in held:
            worker._lanes().put(item)
    if ready:
        await worker.worker_runner.announce(worker)
        await worker._call_hook("on_activated" if active else "on_deactivated", args, None, None)


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
    BusActivateWorkerMessage: _activate,
    BusDeactivateWorkerMessage: _deactivate,
    BusEndWorkerMessage: _end,
    BusCancelWorkerMessage: _stop,
    BusWorkerErrorMessage: _child_error,
    BusWorkerLocalErrorMessage: _child_error,
    BusTopicMessage: _topic,
}
"""How each built-in type of message is delivered to a worker."""
