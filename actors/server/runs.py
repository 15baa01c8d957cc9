"""What can be done with runs over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import anyio
import msgspec
from msgspec import UNSET, Meta, UnsetType
from sse_starlette.event import ServerSentEvent
from starlette.responses import Response

from actors.runs.run import RunState, RunStatus
from actors.runs.runs import Run
from actors.server.access import Access
from actors.server.bodies import encode
from actors.server.operation import Asked, Operation
from actors.server.problem import HttpError, http_error, invalid, request_id_of, unavailable
from actors.server.service import Service
from actors.server.streams import EventStream, event
from bus import check_name

OFFSET = r"^[0-9]{1,18}$"
"""What may be the id of an event of a run."""

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Seconds = Annotated[float, Meta(ge=0)]


class Submission(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to be done; see `Client.submit`.

    Attributes:
        worker_names: Whom to ask: one for a job, several for a group.
        name: Which of their handlers.
        payload: What the handlers get.
        payloads: Payloads of single workers, by name; the others get `payload`.
        timeout: Seconds one attempt may take.
        cancel_on_error: Whether one worker that does not complete ends the run.
        delivery: How the requests travel.
        label: A text for people.
        idempotency_key: The same key gives the same run.
        ttl: Seconds the run is kept after it has ended; None for as long as by default.
    """

    worker_names: Annotated[list[Name], Meta(min_length=1, max_length=1000, extra_json_schema={"uniqueItems": True})]
    name: Name | None = None
    payload: Any = None
    payloads: dict[str, Any] | None = None
    timeout: Seconds | None = None
    cancel_on_error: bool = True
    delivery: Literal["at_least_once", "at_most_once"] | None = None
    label: Annotated[str, Meta(max_length=1000)] | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    ttl: Seconds | None = None


class RunList(msgspec.Struct):
    """Some runs, latest first.

    Attributes:
        runs: They.
        after: With `?after=` this, the list goes on; None at its end.
    """

    runs: list[RunStatus]
    after: str | None


class RunFilters(msgspec.Struct, forbid_unknown_fields=True):
    """Which runs to list. What is not given is unset: in a query there is no null."""

    state: RunState | UnsetType = UNSET
    worker_name: Name | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Annotated[str, Meta(min_length=1, max_length=200)] | UnsetType = UNSET


class Patience(msgspec.Struct, forbid_unknown_fields=True):
    """How many seconds to wait for the end of a run."""

    timeout: Annotated[float, Meta(ge=0, le=60)] = 0.0


class RunResult(msgspec.Struct):
    """The result of a run that has completed."""

    run_id: str
    state: RunState
    result: Any


class Cancellation(msgspec.Struct, forbid_unknown_fields=True):
    """Why a run is cancelled."""

    reason: Annotated[str, Meta(max_length=1000)] | None = None


async def submit(service: Service, asked: Asked) -> Response:
    """Enter a run."""
    with service.work():
        given: Submission = await asked.body()
        if len(set(given.worker_names)) < len(given.worker_names):
            raise invalid("a worker name stands twice")
        for name in given.worker_names:
            check_name("worker name", name)
        keywords = {name: getattr(given, name) for name in given.__struct_fields__ if name != "worker_names"}
        if given.ttl is None:
            del keywords["ttl"]
        try:
            run = await service.client.submit(*given.worker_names, **keywords)
        except (TypeError, ValueError) as error:
            raise http_error(error) or invalid(str(error)) from error
        status = await run.status()
    service.metrics.runs.inc()
    place = f"{asked.request.scope.get('root_path', '')}/runs/{run.run_id}"
    return Response(encode(status), 202, {"location": place}, "application/json")


async def runs(service: Service, asked: Asked) -> RunList:
    """List runs."""
    filters: RunFilters = asked.query
    given = {name: value for name, value in msgspec.structs.asdict(filters).items() if value is not UNSET}
    found = list(await service.client.runs(**given))
    return RunList(found, found[-1].run_id if len(found) == filters.limit else None)


async def status(service: Service, asked: Asked) -> RunStatus:
    """Say what is known of a run."""
    return await (await _run(service, asked)).status()


async def result(service: Service, asked: Asked) -> Response:
    """Give the result of a run, waiting a while for its end."""
    run = await _run(service, asked)
    known = await run.status()
    if not known.state.terminal and asked.query.timeout:
        with anyio.move_on_after(asked.query.timeout):
            async for _ in run.events():
                pass
        known = await run.status()
    if known.state.terminal:
        answer = RunResult(run.run_id, known.state, await run.result())
        return Response(encode(answer), 200, media_type="application/json")
    return Response(encode(known), 202, {"retry-after": "1"}, "application/json")


async def stream(service: Service, asked: Asked) -> Response:
    """Show the events of a run, from the beginning or from where a reader left."""
    last = asked.last_event_id
    if last is not None and not re.fullmatch(OFFSET, last):
        raise HttpError(400, "bad_last_event_id", "Last-Event-ID of a run is the id of one of its events: 0, 1, 2 ...")
    after = int(last) if last is not None else -1
    run = await _run(service, asked)
    service.streams.require_room()
    if after >= 0 and (await run.status()).state.terminal and await _is_read(run, after):
        return Response(status_code=204)  # so that a reader that has seen all does not come back again
    return EventStream(service.streams, _events(run, after, request_id_of(asked.request.scope)))


async def cancel(service: Service, asked: Asked) -> RunStatus:
    """Ask to cancel a run."""
    given: Cancellation | None = await asked.body()
    run = await _run(service, asked)
    return await run.cancel(given.reason if given is not None else None)


async def _run(service: Service, asked: Asked) -> Run:
    return await service.client.run(asked.parameters["run_id"])


async def _is_read(run: Run, after: int) -> bool:
    async for _ in run.events(after):
        return False
    return True


async def _events(run: Run, after: int, request_id: str) -> AsyncGenerator[ServerSentEvent, None]:
    try:
        async for each in run.events(after):
            yield event(each, kind=each.type.value, number=str(each.offset))
    except Exception as error:  # noqa: BLE001 - the stream has begun: what is wrong is its last event
        known = http_error(error) or unavailable("stream_failed", "the stream broke: go on from the last id")
        yield event(known.problem(request_id), kind="error")


OPERATIONS = (
    Operation(
        method="POST",
        path="/submit",
        name="submit",
        call=submit,
        summary="Enter a run: a job, or a group of jobs, that outlives this request and this server.",
        answer=RunStatus,
        access=Access.OPERATE,
        status=202,
        body=Submission,
        errors=(409,),
    ),
    Operation(
        method="GET",
        path="/runs",
        name="listRuns",
        call=runs,
        summary="The latest runs, latest first.",
        answer=RunList,
        query=RunFilters,
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/runs/{run_id}",
        name="getRun",
        call=status,
        summary="What is known of a run.",
        answer=RunStatus,
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/runs/{run_id}/result",
        name="getRunResult",
        call=result,
        summary="The result of a run that has completed; 202 while it has not ended, 409 if there will be none.",
        answer=RunResult,
        query=Patience,
        errors=(202, 404, 409),
    ),
    Operation(
        method="GET",
        path="/runs/{run_id}/stream",
        name="streamRun",
        call=stream,
        summary="The events of a run, each with its offset as id; Last-Event-ID goes on behind one of them.",
        media_type="text/event-stream",
        last_event_id=OFFSET,
        errors=(204, 404),
    ),
    Operation(
        method="POST",
        path="/runs/{run_id}/cancel",
        name="cancelRun",
        call=cancel,
        summary="Ask to cancel a run. Its status says when its work had stopped.",
        answer=RunStatus,
        access=Access.OPERATE,
        body=Cancellation,
        body_required=False,
        errors=(404,),
    ),
)
