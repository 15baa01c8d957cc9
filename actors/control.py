"""What a runner does with the messages that are meant for it, and not for one of its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.member import holds
from actors.outcome import lost
from bus import (
    BusAddWorkerMessage,
    BusCancelMessage,
    BusDataLostMessage,
    BusEndMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobStatus,
    WorkerErrorData,
    WorkerReadyData,
)

if TYPE_CHECKING:
    from actors.runner import WorkerRunner


def hear_end(runner: WorkerRunner, message: BusEndMessage | BusCancelMessage) -> None:
    """Begin to end, if the message is for this session."""
    if message.session == runner.session if message.session is not None else _is_ours(runner, message):
        runner.finish(
            message.reason or f"worker {message.source!r} ended the session",
            at_once=isinstance(message, BusCancelMessage),
        )


async def obey(runner: WorkerRunner, message: BusMessage) -> None:
    """Do what any other message to `runner` asks for."""
    if isinstance(message, BusWorkerReadyMessage):
        await runner.registry.register(
            WorkerReadyData(
                worker_name=message.worker_name,
                runner=message.runner,
                parent=message.parent,
                active=message.active,
                started_at=message.started_at,
                address=message.origin,
            )
        )
    elif isinstance(message, BusWorkerLostMessage):
        await runner.registry.unregister(message.worker_name, message.runner, reason=message.reason)
    elif isinstance(message, BusWorkerRegistryMessage):
        await runner.registry.replace_runner(message.runner, message.origin, message.workers)
    elif isinstance(message, BusDataLostMessage):
        _give_up_distant_jobs(runner)
    elif isinstance(message, BusAddWorkerMessage):
        if message.target == runner.name or _is_ours(runner, message):
            await runner.add_workers(message.worker)
    elif isinstance(message, BusWorkerErrorMessage):
        runner.tell_error(WorkerErrorData(worker_name=message.source, error=message.error))


def _give_up_distant_jobs(runner: WorkerRunner) -> None:
    """End what others were asked for: the requests, or their answers, may be among what was lost."""
    for group in tuple(runner.open_groups):
        for name in group.worker_names:
            if group.awaits(name) and not holds(runner, name, group.job_id):
                group.fail_member(name, JobStatus.FAILED, lost(name))


def _is_ours(runner: WorkerRunner, message: BusMessage) -> bool:
    """Whether a message to all runners comes from a worker of this one."""
    return not message.origin and runner.get_worker(message.source) is not None
