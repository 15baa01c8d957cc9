"""What a runner does with the messages that are meant for it, and not for one of its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    NetworkBus,
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
        _give_up_stored_jobs(runner)
    elif isinstance(message, BusAddWorkerMessage):
        if message.target == runner.name or _is_ours(runner, message):
            await runner.add_workers(message.worker)
    elif isinstance(message, BusWorkerErrorMessage):
        runner.tell_error(WorkerErrorData(worker_name=message.source, error=message.error))


def _give_up_stored_jobs(runner: WorkerRunner) -> None:
    """End what others were asked for: the requests, or their answers, may be among what was lost."""
    bus = runner.bus
    # What runs at most once is stored nowhere, and what waits here to be sent will be.
    safe = frozenset((*bus._direct.asked(), *bus._outbox.jobs())) if isinstance(bus, NetworkBus) else frozenset()
    for group in tuple(runner.open_groups):
        for name in group.worker_names:
            stored = (name, group._owner.name, group.job_id) not in safe
            if group.awaits(name) and stored and not _stays_here(runner, name, group.job_id):
                group.fail_member(name, JobStatus.FAILED, lost(name))


def _stays_here(runner: WorkerRunner, name: str, job_id: str) -> bool:
    """Whether a worker of this process has a job that was never on the network."""
    worker = runner.get_worker(name)
    job = worker._executor.jobs.get(job_id) if worker is not None and worker._executor is not None else None
    return job is not None and not job.request.origin


def _is_ours(runner: WorkerRunner, message: BusMessage) -> bool:
    """Whether a message to all runners comes from a worker of this one."""
    return not message.origin and runner.get_worker(message.source) is not None
