"""One operation of the server: what is asked, of whom, and what comes back."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from actors.observability.trace import received
from actors.server.access import Access
from actors.server.bodies import decode, encode, fit, read_body
from actors.server.problem import Problem, invalid, refusal
from actors.server.service import Service

Call = Callable[["Service", "Asked"], Awaitable[Any]]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table of routes, of which the routes and the document are made.

    Attributes:
        method: GET or POST.
        path: With its parameters in braces.
        name: The operation's id.
        call: What does it; returns the answer's body, or a whole `Response`.
        summary: One line.
        answer: The type of the answer's body; None if it is no JSON.
        access: What it asks for.
        status: Of an answer that is no error.
        query: The type of its query parameters.
        body: The type of its body; None if it takes none.
        body_required: Whether there must be one.
        media_type: Of an answer that is no JSON, or that is none when a stream is asked for.
        last_event_id: What the id looks like by which a reader of its stream comes back.
        errors: The statuses of its own errors, besides those that every route may have.
        slashes: Whether the parameter that ends its path may hold slashes.
    """

    method: str
    path: str
    name: str
    call: Call
    summary: str
    answer: Any = None
    access: Access = Access.READ
    status: int = 200
    query: Any = None
    body: Any = None
    body_required: bool = True
    media_type: str | None = None
    last_event_id: str | None = None
    errors: tuple[int, ...] = ()
    slashes: bool = False

    @property
    def route(self) -> str:
        """Its path, as the router is told."""
        return self.path.removesuffix("}") + ":path}" if self.slashes else self.path


class Asked:
    """A request whose query has been read.

    Attributes:
        request: As it came.
        query: The query parameters.
        parameters: Those in the path.
    """

    def __init__(self, operation: Operation, service: Service, request: Request) -> None:
        self._operation = operation
        self._service = service
        self.request = request
        self.parameters: dict[str, str] = request.path_params
        self.query: Any = None
        if operation.query is not None:
            given = request.query_params.multi_items()
            if len(dict(given)) < len(given):
                raise invalid("a query parameter stands twice")
            self.query = fit(dict(given), operation.query, strict=False)

    async def body(self) -> Any:
        """The decoded body, of the operation's type; None if there is none and none is needed."""
        body = await read_body(self.request, self._service.settings)
        if not body.strip() and not self._operation.body_required:
            return None
        return fit(decode(body, self._service.settings), self._operation.body)

    @property
    def wants_stream(self) -> bool:
        """Whether events are asked for rather than one answer."""
        accepted = self.request.headers.get("accept", "").lower()
        return "text/event-stream" in accepted

    @property
    def last_event_id(self) -> str | None:
        """The last event that a reader has seen, that comes back."""
        return self.request.headers.get("last-event-id") or None


class Endpoint:
    """An operation as an ASGI app: looks at the token, does it, and makes an answer of whatever comes of it."""

    def __init__(self, operation: Operation, service: Service) -> None:
        self.operation = operation
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        service, operation = self._service, self.operation
        began = time.perf_counter()
        status: list[int] = []

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
                service.metrics.seconds.labels(operation.path).observe(time.perf_counter() - began)
            await send(message)

        try:
            # Here and not by path: what is checked is what is done, however the path was written.
            service.tokens.require(request.headers, operation.access)
            with received(request.headers.get("traceparent"), request.headers.get("tracestate")):
                answer = await operation.call(service, Asked(operation, service, request))
                if not isinstance(answer, Response):
                    answer = Response(encode(answer), operation.status, media_type="application/json")
                await answer(scope, receive, noted)
        except Exception as error:
            if status:
                raise
            await refusal(error, scope)(scope, receive, noted)
        finally:
            label = str(status[0]) if status else "none"
            service.metrics.requests.labels(operation.method, operation.path, label).inc()


ALWAYS = (400, 421, 429, 503)
"""The statuses any request may get."""

_PLACES = re.compile(r"{(\w+)}")
_REF = "#/components/schemas/{name}"


def document(operations: Sequence[Operation], *, version: str = "1") -> dict[str, Any]:
    """The document of some operations, OpenAPI 3.1."""
    types = [Problem]
    for operation in operations:
        types += [kind for kind in (operation.answer, operation.body, operation.query) if kind is not None]
    distinct = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(distinct, ref_template=_REF)
    by_type = dict(zip(distinct, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "actorbus", "version": version, "description": "Workers, jobs and runs on a message bus."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, by_type: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PLACES.findall(operation.path)
    ]
    if operation.query is not None:
        query = components[by_type[operation.query]["$ref"].rpartition("/")[2]]
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in query.get("required", ()),
                "schema": schema,
            }
            for name, schema in query["properties"].items()
        ]
    if operation.last_event_id is not None:
        schema = {"type": "string", "pattern": operation.last_event_id}
        parameters.append({"name": "Last-Event-ID", "in": "header", "schema": schema})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": _answers(operation, by_type),
        "security": [] if operation.access is Access.OPEN else [{"token": [operation.access.value]}],
    }
    if operation.body is not None:
        content = {"application/json": {"schema": by_type[operation.body]}}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    return described


def _answers(operation: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": by_type[operation.answer]}
    if operation.media_type is not None:
        content[operation.media_type] = {"schema": {"type": "string"}}
    answers = {str(operation.status): {"description": HTTPStatus(operation.status).phrase, "content": content}}
    statuses = {*ALWAYS, *operation.errors}
    if operation.access is not Access.OPEN:
        statuses |= {401, 403}
    if operation.body is not None:
        statuses |= {408, 413, 415, 422}
    if operation.query is not None:
        statuses.add(422)
    for status in sorted(statuses):
        described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if status >= HTTPStatus.BAD_REQUEST:
            described["content"] = {"application/json": {"schema": by_type[Problem]}}
        answers[str(status)] = described
    return answers
