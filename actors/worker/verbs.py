"""The verbs of a worker for asking and answering; they keep its core, and hand it on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.jobs.errors import JobStateError, RunnerStateError
from actors.jobs.params import JobGroupParams, JobParams, checked, resolve
from actors.performer.job import Job
from actors.requester.contexts import JobContext, JobGroup, JobGroupContext, NewJobContext, NewJobGroupContext
from actors.requester.group import Group
from actors.requester.request import refuse_twice, request, request_late
from actors.worker.core import WorkerCore
from actors.worker.dispatch import takes_place
from bus import BusJobRequestMessage, BusJobUpdateRequestMessage, BusMessage, JobStatus, travel

Delivery = Literal["at_least_once", "at_most_once"]

CORE = "__actorbus__"
_NUMBERS = frozenset({int, float})


class _NoCore:
    """Stands on the class where a worker has its core, for one that has none."""

    def __get__(self, worker: object, cls: type) -> Any:
        if worker is None:
            return self
        raise RunnerStateError(f"{cls.__name__}.__init__ does not call super().__init__(name)")


class Verbs:
    """Asks for jobs, and answers those that are asked of it.

    Every job that is asked for ends with one outcome: the requester is never left waiting for a dead worker. What is
    sent for a job arrives in the order sent, none lost, all before its answer.
    """

    __actorbus__: WorkerCore
    if not TYPE_CHECKING:
        __actorbus__ = _NoCore()

    # --- asking ---

    @property
    def job_groups(self) -> dict[str, JobGroup]:
        """Groups asked for and not ended, by job id."""
        return {job_id: JobGroup(group) for job_id, group in self.__actorbus__.groups.items()}

    def job(
        self,
        worker_name: str,
        *,
        params: JobParams | None = None,
        name: str | None = None,
        payload: Any = None,
        timeout: float | None = None,
        job_id: str | None = None,
        delivery: Delivery | None = None,
        label: str | None = None,
        cancellable: bool | None = None,
    ) -> JobContext:
        """One job on one worker, to be entered or awaited; see `JobContext`.

        Args:
            worker_name: Whom to ask. If nobody serves the name within the runner's `ready_timeout`, the job fails.
            params: All of the below as one object; give either this or keywords.
            name: Which `@job` handler; None reaches `on_job_request`.
            payload: What the handler gets; a copy travels.
            timeout: Seconds for everything; None for no limit.
            job_id: An id of your own; see `JobParams`.
            delivery: `at_least_once` or `at_most_once` over a network; see `JobParams`.
            label: A text for people.
            cancellable: Whether `request_cancel_job_group` may cancel it.

        Raises:
            TypeError: Both spellings were used.
            ValueError: A value is out of its range.
        """
        if params is None:  # what `resolve` would make of it, at half the price: this verb is called most
            resolved = JobGroupParams(
                name=name,
                payload=payload,
                timeout=timeout,
                label=label,
                cancellable=True if cancellable is None else cancellable,
                job_id=job_id,
                delivery=delivery,
            )
            usual = timeout is None or (type(timeout) in _NUMBERS and 0 <= timeout < math.inf)
            if not usual or delivery is not None or job_id is not None or label is not None:
                resolved = checked(resolved)
            return NewJobContext(self.__actorbus__, (worker_name,), resolved)
        resolved = resolve(
            params,
            JobGroupParams,
            name=name,
            payload=payload,
            timeout=timeout,
            job_id=job_id,
            delivery=delivery,
            label=label,
            cancellable=cancellable,
        )
        if not resolved.cancel_on_error:  # one job that failed has failed
            resolved = msgspec.structs.replace(resolved, cancel_on_error=True)
        return NewJobContext(self.__actorbus__, (worker_name,), resolved)

    def job_group(
        self,
        *worker_names: str,
        params: JobGroupParams | None = None,
        name: str | None = None,
        payload: Any = None,
        payloads: dict[str, Any] | None = None,
        timeout: float | None = None,
        cancel_on_error: bool | None = None,
        job_id: str | None = None,
        delivery: Delivery | None = None,
        label: str | None = None,
        cancellable: bool | None = None,
    ) -> JobGroupContext:
        """One job on each of several workers, to be entered or awaited; see `JobGroupContext`.

        Args:
            worker_names: Whom to ask, each once; none is a group that completes at once.
            payloads: Payloads of single members, by worker name; the others get `payload`.
            cancel_on_error: Whether one member that does not complete ends the group; default True.
            params: As for `job`, and the arguments that are not named here too.
            name: See `job`.
            payload: See `job`.
            timeout: See `job`.
            job_id: See `job`.
            delivery: See `job`.
            label: See `job`.
            cancellable: See `job`.

        Raises:
            TypeError: Both spellings were used, or a worker name is not a string.
            ValueError: A worker is named twice, or a value is out of its range.
        """
        resolved = resolve(
            params,
            JobGroupParams,
            name=name,
            payload=payload,
            payloads=payloads,
            timeout=timeout,
            cancel_on_error=cancel_on_error,
            job_id=job_id,
            delivery=delivery,
            label=label,
            cancellable=cancellable,
        )
        refuse_twice(worker_names)
        return NewJobGroupContext(self.__actorbus__, worker_names, resolved)

    async def request_job(self, worker_name: str, *, params: JobParams | None = None, **keywords: Any) -> str:
        """Ask one worker for a job and go on; arguments as for `job`.

        The outcome comes to `on_job_completed` or `on_job_error`, the answer to `on_job_response` before that. Before
        the runner runs, this notes the request, and it is sent then.

        Returns:
            The job's id.
        """
        return await _ask_and_go_on(self.__actorbus__, (worker_name,), resolve(params, JobGroupParams, **keywords))

    async def request_job_group(self, *worker_names: str, params: JobGroupParams | None = None, **keywords: Any) -> str:
        """Ask several workers for a job and go on; arguments as for `job_group`, outcomes as for `request_job`."""
        return await _ask_and_go_on(self.__actorbus__, worker_names, resolve(params, JobGroupParams, **keywords))

    async def create_job_group_and_request_job(
        self, worker_names: Iterable[str], *, params: JobGroupParams | None = None, **keywords: Any
    ) -> JobGroup:
        """As `request_job_group`, and returns the group, whose `wait()` waits for it."""
        if isinstance(worker_names, str):
            raise TypeError(f"give a list of worker names, not the text {worker_names!r}")
        resolved = resolve(params, JobGroupParams, **keywords)
        return JobGroup(await _ask(self.__actorbus__, tuple(worker_names), resolved, unheard=False), held=True)

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
        """Requests this worker has accepted and not answered, by job id."""
        admission = self.__actorbus__.admission
        if admission is None:
            return {}
        return {job_id: execution.request for job_id, execution in admission.executions.items()}

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
