"""Functions and handlers over HTTP: what there is, and how it is invoked."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from sse_starlette.event import ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from actors.requester.contexts import JobContext
from actors.server.access import Access
from actors.server.bodies import encode
from actors.server.operation import Asked, Operation
from actors.server.problem import HttpError, http_error, request_id_of
from actors.server.service import Service
from actors.server.streams import EventStream, event
from actors.worker.function import Function, served_by
from actors.worker.handlers import definition_of
from actors.worker.worker import BaseWorker


class FunctionInfo(msgspec.Struct, omit_defaults=True):
    """Something that can be invoked here.

    Attributes:
        name: By which: that of a function or a worker, or `worker:job`.
        type: `function`, `job`, or `worker` for one that takes jobs without a name.
        description: What its author says of it.
        input_schema: JSON Schema of its arguments, where they are declared.
    """

    name: str
    type: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class FunctionList(msgspec.Struct):
    """All that can be invoked here."""

    functions: list[FunctionInfo]
    count: int


class Invoked(msgspec.Struct):
    """What a handler returned."""

    result: Any
    invocation_id: str


class InvocationProblem(msgspec.Struct):
    """Why an invocation failed: the body of every error, and beside it what callers of AGNT5's workers look for."""

    error: str
    status: int
    code: str
    message: str
    retryable: bool
    request_id: str


async def functions(service: Service, _asked: Asked) -> FunctionList:
    """List what can be invoked."""
    found: list[FunctionInfo] = []
    for worker in service.runner.workers:
        found += _offers(worker)
    return FunctionList(found, len(found))


async def invoke(service: Service, asked: Asked) -> Response:
    """Do a job, and show its answer, or all that comes of it as a stream."""
    try:
        with service.work():
            worker_name, job_name = _whom(service, asked.parameters["handler"])
            payload = await asked.body()
            if asked.wants_stream:
                service.streams.require_room()
            job = service.client.job(
                worker_name, name=job_name, payload=payload, timeout=service.settings.invoke_timeout
            )
            if not asked.wants_stream:
                return await _answer(asked.request, job)
    except Exception as error:
        known = http_error(error)
        if known is None:
            raise
        return _refused(known, request_id_of(asked.request.scope))
    return EventStream(service.streams, _events(service, job, request_id_of(asked.request.scope)))


async def _answer(request: Request, job: JobContext) -> Response:
    """Wait for a job, as long as its caller does."""

    async def cancel_when_left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    result: list[Any] = []
    failure: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_left)
        try:
            result.append(await job)
        except Exception as error:  # noqa: BLE001 - raised below, as it is and not in a group
            failure.append(error)
        tasks.cancel_scope.cancel()
    if failure:
        raise failure[0]
    if not result:
        raise HttpError(499, "disconnected", "the client left before its answer came: the job was cancelled")
    return Response(encode(Invoked(result[0], job.job_id)), media_type="application/json")


async def _events(service: Service, job: JobContext, request_id: str) -> AsyncGenerator[ServerSentEvent, None]:
    try:
        with service.work():
            async with aclosing(_shown(job)) as shown:
                async for each in shown:
                    yield each
    except Exception as error:  # noqa: BLE001 - the stream has begun: what is wrong is its last event
        known = http_error(error) or HttpError(500, "internal", "this is a defect of the server")
        yield event(_problem(known, request_id), kind="error")


async def _shown(job: JobContext) -> AsyncGenerator[ServerSentEvent, None]:
    async with job:
        async for each in job:
            yield event(each, kind=each.type)
    yield event(Invoked(job.response, job.job_id), kind="result")


def _whom(service: Service, handler: str) -> tuple[str, str | None]:
    registry = service.runner.registry
    parts = handler.split(":")
    names = [":".join(parts[:end]) for end in range(len(parts), 0, -1)]  # a name may have a colon: the longest counts
    worker_name = next((name for name in names if name in registry), parts[0])
    job_name = handler.removeprefix(worker_name).removeprefix(":")
    if worker_name not in registry:
        hint = service.runner.registry.who_is_alive(worker_name)
        raise HttpError(404, "no_such_handler", f"no handler {handler!r:.100}: {hint}")
    return worker_name, job_name or None


def _refused(error: HttpError, request_id: str) -> Response:
    return Response(encode(_problem(error, request_id)), error.status, error.headers, "application/json")


def _problem(error: HttpError, request_id: str) -> InvocationProblem:
    body = error.problem(request_id)
    return InvocationProblem(body.message, error.status, body.code, body.message, body.retryable, request_id)


def _offers(worker: BaseWorker) -> list[FunctionInfo]:
    served = served_by(worker)
    if served is not None:
        return [FunctionInfo(worker.name, "function", inspect.getdoc(served.call), _schema(served))]
    definition = definition_of(type(worker))
    jobs = [
        FunctionInfo(f"{worker.name}:{handler.name}", "job", inspect.getdoc(handler.call))
        for handler in definition.jobs.values()
    ]
    return [*jobs, *([FunctionInfo(worker.name, "worker")] if definition.default is not None else ())]


def _schema(served: Function[Any, Any]) -> dict[str, Any] | None:
    try:
        return msgspec.json.schema(served.handler.type)
    except TypeError:  # an argument is of a class JSON Schema cannot be made of, as a pydantic model's
        return None


OPERATIONS = (
    Operation(
        method="GET",
        path="/functions",
        name="listFunctions",
        call=functions,
        summary="What can be invoked on this server's runner.",
        answer=FunctionList,
    ),
    Operation(
        method="POST",
        path="/invoke/{handler}",
        name="invoke",
        call=invoke,
        summary="Do a job and wait for its answer; with Accept: text/event-stream, all that comes of it as it comes.",
        answer=Invoked,
        access=Access.OPERATE,
        body=Any,
        body_required=False,
        media_type="text/event-stream",
        errors=(404, 500, 504),
        slashes=True,
    ),
)
