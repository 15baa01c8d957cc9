"""One operation of the server: what is asked, of whom, and what comes back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from actors.server.access import Access
from actors.server.bodies import decode, encode, fit, read_body
from actors.server.problem import HttpError, http_error, invalid
from actors.server.service import Service
from actors.trace import received
from bus.log import log

REQUEST_ID = "actorbus.request_id"
"""Where a request's id is kept in its scope."""

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


def refusal(error: Exception, scope: Scope) -> Response:
    """The answer to a request that failed. What nobody expected is logged, and not told."""
    known = http_error(error)
    request_id = request_id_of(scope)
    if known is None:
        log().error("request failed", request=request_id, path=scope["path"], exc_info=error)
        known = HttpError(500, "internal", f"this is a defect of the server; its log names request {request_id}")
    return Response(encode(known.problem(request_id)), known.status, known.headers, "application/json")


def request_id_of(scope: Scope) -> str:
    """The id of a request, made where there is none yet."""
    request_id: str = scope.setdefault(REQUEST_ID, secrets.token_hex(8))
    return request_id
