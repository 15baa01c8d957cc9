"""The verbs of whoever asks for jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from anyio import create_task_group

from actors.jobs.errors import JobStateError
from actors.jobs.nesting import _position
from actors.jobs.params import JobGroupParams, JobParams, checked, resolve
from actors.requester.contexts import JobContext, JobGroupContext
from actors.requester.group import JobGroup
from bus import BusJobUpdateRequestMessage, BusMessage, check_name, travel

if TYPE_CHECKING:
    from actors.runner.runner import WorkerRunner
    from actors.worker.worker import BaseWorker
    from bus.local.mailbox import Room


Delivery = Literal["at_least_once", "at_most_once"]
Late = list[tuple[str, Any, tuple[str, ...], "Room"]]


class Requester:
    """Asks for jobs. Every one ends with one outcome: the requester is never left waiting for a dead worker."""

    _groups: dict[str, JobGroup]

    @property
    def name(self) -> str:
        """The name answers come back to."""
        raise NotImplementedError

    def _host_for(self, action: str) -> WorkerRunner:
        """The running runner, or a clear error."""
        raise NotImplementedError

    if TYPE_CHECKING:  # of `Peer`

        async def send_bus_message(self, message: BusMessage) -> None:
            """Send any message."""

    @property
    def job_groups(self) -> dict[str, JobGroup]:
        """Groups asked for and not ended, by job id."""
        return self._groups

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
            return JobContext(self, (worker_name,), checked(resolved))
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
        return JobContext(self, (worker_name,), resolved)

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
        _refuse_twice(worker_names)
        return JobGroupContext(self, worker_names, resolved)

    async def request_job(self, worker_name: str, *, params: JobParams | None = None, **keywords: Any) -> str:
        """Ask one worker for a job and go on; arguments as for `job`.

        The outcome comes to `on_job_completed` or `on_job_error`, the answer to `on_job_response` before that.

        Returns:
            The job's id.
        """
        resolved = resolve(params, JobGroupParams, **keywords)
        return (await self._dispatch((worker_name,), resolved)).job_id

    async def request_job_group(self, *worker_names: str, params: JobGroupParams | None = None, **keywords: Any) -> str:
        """Ask several workers for a job and go on; arguments as for `job_group`, outcomes as for `request_job`."""
        return (await self._dispatch(worker_names, resolve(params, JobGroupParams, **keywords))).job_id

    async def create_job_group_and_request_job(
        self, worker_names: Iterable[str], *, params: JobGroupParams | None = None, **keywords: Any
    ) -> JobGroup:
        """As `request_job_group`, and returns the group, whose `wait()` waits for it."""
        if isinstance(worker_names, str):
            raise TypeError(f"give a list of worker names, not the text {worker_names!r}")
        return await self._dispatch(tuple(worker_names), resolve(params, JobGroupParams, **keywords))

    async def cancel_job_group(self, job_id: str, *, reason: str | None = None) -> None:
        """Cancel a job or group: it ends now, its members are told to stop. Does nothing if it has ended."""
        group = self._groups.get(job_id)
        if group is not None:
            group.cancel(reason)

    async def request_cancel_job_group(self, job_id: str, *, reason: str | None = None) -> bool:
        """Cancel a job or group on behalf of somebody outside. False if it is over, or was made `cancellable=False`."""
        group = self._groups.get(job_id)
        if group is None or not group.cancellable:
            return False
        group.cancel(reason)
        return True

    async def request_job_update(self, job_id: str, worker_name: str) -> None:
        """Ask a performer for an update: its `on_job_update_requested` is called. Raises as `WorkerBus.send`."""
        message = BusJobUpdateRequestMessage(source=self.name, target=worker_name, job_id=job_id)
        await self.send_bus_message(message)

    async def _dispatch(self, worker_names: tuple[str, ...], params: JobGroupParams) -> JobGroup:
        _refuse_twice(worker_names)
        group, late = self._request(worker_names, params)
        if late is not None:
            await self._request_late(group, late)
        return group

    def _request(self, worker_names: tuple[str, ...], params: JobGroupParams) -> tuple[JobGroup, Late | None]:
        """Check everything, then send what can be sent now; what cannot is returned."""
        host = self._host_for("request a job")
        parent, lineage = _position()
        if parent is None:
            host.require_accepting()
        if params.name is not None:
            check_name("job name", params.name)
        if params.job_id is not None and params.job_id in self._groups:
            raise JobStateError(
                f"job id {params.job_id!r} is in use by {self._groups[params.job_id]!r}: choose another, or wait for it"
            )
        payloads = _checked(params.payloads, worker_names) if params.payloads is not None else None
        registry = host.registry
        values = []
        for name in worker_names:
            if name not in registry:
                check_name("worker name", name)
            if payloads and name in payloads:
                values.append(travel(payloads[name], f"payloads[{name!r}]"))
            else:
                values.append(travel(params.payload))
        group = JobGroup(cast("BaseWorker", self), host, worker_names, params)
        remaining = group.begin(params.timeout, parent)
        late: Late | None = None
        try:
            for name, value in zip(worker_names, values, strict=True):
                if group.is_done:  # ended by one that refused at once: the others would work for nobody
                    break
                room = group.ask(name, value, lineage, remaining)
                if room is not None:
                    late = late or []
                    late.append((name, value, lineage, room))
        except BaseException as error:
            group.cancel(f"a request could not be sent: {error!r}")
            raise
        return group, late

    async def _request_late(self, group: JobGroup, late: Late) -> None:
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


def _checked(payloads: Any, worker_names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(payloads, dict):
        raise TypeError(f"payloads= is a dict of payloads by worker name, not {payloads!r:.100}")
    if not payloads.keys() <= set(worker_names):
        strangers = ", ".join(repr(name) for name in payloads if name not in worker_names)
        raise ValueError(f"payloads= names workers that are not in the group: {strangers}")
    return payloads


def _refuse_twice(worker_names: tuple[str, ...]) -> None:
    for name in worker_names:
        if not isinstance(name, str):
            raise TypeError(f"worker names are strings; got {name!r}")
    if len(set(worker_names)) != len(worker_names):
        twice = sorted({name for name in worker_names if worker_names.count(name) > 1})
        raise ValueError(f"a group asks each worker once; named twice: {', '.join(map(repr, twice))}")
