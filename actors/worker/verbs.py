"""The verbs of a worker for asking and answering; they keep its core, and hand it on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import msgspec

from actors.jobs.errors import JobStateError
from actors.jobs.params import GroupKeywords, JobGroupParams, PayloadKeywords, resolve
from actors.performer.job import Job
from actors.requester.contexts import JobGroup
from actors.requester.group import Group
from actors.requester.request import refuse_twice, request, request_late
from actors.worker.asking import Asking
from actors.worker.core import WorkerCore
from actors.worker.dispatch import takes_place
from bus import BusJobRequestMessage, BusJobUpdateRequestMessage, BusMessage, JobStatus, travel

CORE = "__actorbus__"


class Verbs(Asking):
    """Asks for jobs, and answers those that are asked of it.

    Every job that is asked for ends with one outcome: the requester is never left waiting for a dead worker. What is
    sent for a job arrives in the order sent, none lost, all before its answer.
    """

    # --- asking ---

    @property
    def job_groups(self) -> dict[str, JobGroup]:
        """Groups asked for and not ended, by job id."""
        return {job_id: JobGroup(group) for job_id, group in self.__actorbus__.groups.items()}

    async def request_job(self, worker_name: str, **keywords: Unpack[PayloadKeywords]) -> str:
        """Ask one worker for a job and go on; arguments as for `job`.

        The outcome comes to `on_job_completed` or `on_job_error`, the answer to `on_job_response` before that. Before
        the runner runs, this notes the request, and it is sent then.

        Returns:
            The job's id.
        """
        return await _ask_and_go_on(self.__actorbus__, (worker_name,), _resolved(keywords))

    async def request_job_group(self, *worker_names: str, **keywords: Unpack[GroupKeywords]) -> str:
        """Ask several workers for a job and go on; arguments as for `job_group`, outcomes as for `request_job`."""
        return await _ask_and_go_on(self.__actorbus__, worker_names, _resolved(keywords))

    async def create_job_group_and_request_job(
        self, worker_names: Iterable[str], **keywords: Unpack[GroupKeywords]
    ) -> JobGroup:
        """As `request_job_group`, and returns the group, whose `wait()` waits for it."""
        if isinstance(worker_names, str):
            raise TypeError(f"give a list of worker names, not the text {worker_names!r}")
        group = await _ask(self.__actorbus__, tuple(worker_names), _resolved(keywords), unheard=False)
        return JobGroup(group, held=True)

    async def cancel_job_group(self, job_id: str, *, reason: str | None = None) -> None:
        """Cancel a job or group: it ends now, its members are told to stop. Does nothing if it has ended."""
        group = self.__actorbus__.groups.get(job_id)
        if group is not None:
            group.cancel(reason)

    async def request_cancel_job_group(self, job_id: str, *, reason: str | None = None) -> bool:
        """Cancel a job or group on behalf of somebody outside. False if it is over, or was made `cancellable=False`."""
        group = self.__actorbus__.groups.get(job_id)
        if group is None or not group.cancellable:
            return False
        group.cancel(reason)
        return True

    async def request_job_update(self, job_id: str, worker_name: str) -> None:
        """Ask a performer for an update: its `on_job_update_requested` is called. Raises as `WorkerBus.send`."""
        message = BusJobUpdateRequestMessage(source=self.__actorbus__.name, target=worker_name, job_id=job_id)
        await send(self.__actorbus__, message)

    # --- answering ---

    @property
    def active_jobs(self) -> dict[str, BusJobRequestMessage]:
        """Requests this worker has accepted and not answered, by job id: copies of them."""
        admission = self.__actorbus__.admission
        if admission is None:
            return {}
        return {
            job_id: msgspec.structs.replace(execution.request) for job_id, execution in admission.executions.items()
        }

    async def send_job_response(
        self, job_id: str, response: Any = None, *, status: JobStatus = JobStatus.COMPLETED, urgent: bool = False
    ) -> None:
        """Answer a job.

        Args:
            job_id: Which job.
            response: Anything that can travel.
            status: How it ended; anything but COMPLETED makes the requester's `job()` raise.
            urgent: Overtake what is queued at the requester for other jobs.

        Raises:
            JobStateError: There is no such active job: it was answered, cancelled, or never given to this worker.
            EncodeError: The response cannot travel; the requester was told ERROR.
        """
        await _active(self.__actorbus__, job_id, "answer").respond(response, status=JobStatus(status), urgent=urgent)

    async def send_job_update(self, job_id: str, update: Any = None, *, urgent: bool = False) -> None:
        """Tell the requester about progress; see `Job.update`.

        Raises:
            JobStateError: There is no such active job.
            EncodeError: The update cannot travel; the job goes on.
        """
        await _active(self.__actorbus__, job_id, "update").update(update, urgent=urgent)

    async def send_job_stream_start(self, job_id: str, data: Any = None) -> None:
        """Open a job's stream; raises as `send_job_update`."""
        await _active(self.__actorbus__, job_id, "stream").stream_start(data)

    async def send_job_stream_data(self, job_id: str, data: Any = None) -> None:
        """Send one chunk of a job's stream; waits while the requester has 256 untaken; raises as `send_job_update`."""
        await _active(self.__actorbus__, job_id, "stream").stream(data)

    async def send_job_stream_end(self, job_id: str, data: Any = None) -> None:
        """End a job's stream and the job; `data` is its response. Raises as `send_job_response`."""
        await _active(self.__actorbus__, job_id, "end the stream of").stream_end(data)


def core_of(worker: object) -> WorkerCore:
    """The core of a worker.

    Raises:
        TypeError: It is no worker.
        RunnerStateError: Its `__init__` has not called that of `BaseWorker`.
    """
    if not isinstance(worker, Verbs):
        raise TypeError(f"a worker or a function marked with @function() is needed, not {worker!r:.100}")
    core = worker.__actorbus__
    if core.instance is not worker:  # it was made by `copy.copy`
        core = WorkerCore(worker, core.name if core.named else None, active=core.active)
        give_core(worker, core)
    return core


def give_core(worker: Verbs, core: WorkerCore) -> None:
    """Give a worker its core, whatever its class does when attributes are set."""
    worker.__dict__[CORE] = core


async def send(core: WorkerCore, message: BusMessage) -> None:
    """Send any message for a worker: now, or when its runner runs. It waits and raises as `WorkerBus.send`."""
    if not isinstance(message, BusMessage):
        raise TypeError(f"a BusMessage is needed, not {message!r:.100}")
    room = core.room
    if message.target == core.name and takes_place(message) and room is not None and room.taken >= room.capacity:
        raise room.refusal()  # who waits for room in its own mailbox waits for itself
    await core.act("send a message", lambda host: host.bus.send(message))


def _resolved(keywords: Mapping[str, Any]) -> JobGroupParams:
    return resolve(keywords.get("params"), JobGroupParams, **{k: v for k, v in keywords.items() if k != "params"})


async def _ask(
    core: WorkerCore, worker_names: tuple[str, ...], params: JobGroupParams, *, unheard: bool = True
) -> Group:
    refuse_twice(worker_names)
    group, late = request(core, worker_names, params, unheard=unheard)
    if late is not None:
        await request_late(group, late)
    return group


async def _ask_and_go_on(core: WorkerCore, worker_names: tuple[str, ...], params: JobGroupParams) -> str:
    host = core.living_host("request a job")
    if host.running:
        return (await _ask(core, worker_names, params)).job_id
    refuse_twice(worker_names)
    job_id = params.job_id or host.new_id()
    payloads = {name: travel(value) for name, value in params.payloads.items()} if params.payloads else None
    noted = msgspec.structs.replace(params, job_id=job_id, payload=travel(params.payload), payloads=payloads)

    async def ask() -> None:
        await _ask(core, worker_names, noted)

    host.when_running(core, "request a job", ask)
    return job_id


def _active(core: WorkerCore, job_id: str, action: str) -> Job[Any]:
    execution = core.admission.executions.get(job_id) if core.admission is not None else None
    if execution is None:
        raise JobStateError(
            f"worker {core.name!r} cannot {action} job {job_id!r}: it is not active here; "
            "it was answered or cancelled before, or never came"
        )
    return Job(execution)
