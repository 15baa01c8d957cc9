"""The server as an ASGI app: around a bus, a runner, or workers of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actors.runner.runner import WorkerRunner
from actors.runs.store import RunStore
from actors.server.access import Access, Guard, ServerSettings
from actors.server.functions import OPERATIONS as OF_FUNCTIONS
from actors.server.operation import Asked, Endpoint, Operation, document
from actors.server.problem import HttpError, refusal
from actors.server.runs import OPERATIONS as OF_RUNS
from actors.server.service import Service
from actors.server.status import OPERATIONS as OF_STATUS
from actors.worker.function import Function
from actors.worker.worker import BaseWorker
from bus import WorkerBus


async def openapi(_service: Service, _asked: Asked) -> dict[str, Any]:
    """Show the document."""
    return document(OPERATIONS)


OPERATIONS: tuple[Operation, ...] = (
    *OF_RUNS,
    *OF_FUNCTIONS,
    *OF_STATUS,
    Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        call=openapi,
        summary="This document.",
        answer=dict[str, Any],
        access=Access.OPEN,
    ),
)
"""The table of routes."""


def create_app(
    to: str | WorkerBus | WorkerRunner,
    *,
    run_store: RunStore | str | None = None,
    own_runs: bool = True,
    bus_options: dict[str, Any] | None = None,
    **settings: Any,
) -> Starlette:
    """Make a server for what is on a bus: runs, workers, functions, events.

    It is a Starlette app, with a lifespan that connects and disconnects. An app that mounts it must run that lifespan:
    `FastAPI(lifespan=app.router.lifespan_context)`. Every answer that is an error has the body `Problem`. What a
    request says that is wrong is answered with 4xx; 5xx is said of handlers that fail, and of what cannot be reached.

    Args:
        to: A bus URL, a bus, or a runner. One that does not run is run as long as the lifespan.
        run_store: Where runs are kept; as for `Client`.
        own_runs: Whether runs that nobody does are done by this process; as for `Client`.
        bus_options: What `open_bus` takes beside a URL.
        settings: Those of `ServerSettings`: tokens, hosts, origins and limits.

    Raises:
        TypeError: A setting is not known.
        ValueError: A setting is out of its range.
    """
    given = ServerSettings(**settings)
    return _app(Service(to, run_store=run_store, own_runs=own_runs, settings=given, bus_options=bus_options))


def serve(
    *,
    workers: Iterable[BaseWorker | Function[Any, Any]] = (),
    functions: Iterable[Function[Any, Any]] = (),
    bus: str | WorkerBus | None = None,
    runner_options: dict[str, Any] | None = None,
    run_store: RunStore | str | None = None,
    own_runs: bool = True,
    **settings: Any,
) -> Starlette:
    """Make a server of workers, which runs under any ASGI server: a worker process is an app.

    Args:
        workers: New workers, or functions marked with `@function()`.
        functions: Further functions.
        bus: Where they can be asked as well; None is a bus of this process.
        runner_options: Those of `WorkerRunner`.
        run_store: As for `create_app`.
        own_runs: As for `create_app`.
        settings: As for `create_app`.

    Raises:
        TypeError: A setting is not known.
        ValueError: A setting is out of its range.
    """
    served = (*workers, *functions)
    given = ServerSettings(**settings)
    options = {"handle_sigint": False, "handle_sigterm": False, "drain_timeout": given.drain_timeout}
    runner = WorkerRunner(bus=bus, **{**options, **(runner_options or {})})

    async def add(runner: WorkerRunner) -> None:
        await runner.add_workers(*served)

    return _app(Service(runner, run_store=run_store, own_runs=own_runs, settings=given, prepare=add))


def service_of(app: Starlette) -> Service:
    """What stands behind an app that `create_app` or `serve` made."""
    service: Service = app.state.service
    return service


def _app(service: Service) -> Starlette:
    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncGenerator[None]:
        async with service.running():
            yield

    async def failed(request: Request, error: Exception) -> Response:
        return refusal(error, request.scope)

    middleware = [Middleware(Guard, server=service)]
    if service.settings.cors_origins:
        middleware.append(
            Middleware(
                _Cors,
                allow_origins=service.settings.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("Authorization", "Content-Type", "Last-Event-ID", "X-Request-ID"),
                expose_headers=("Location", "Retry-After", "X-Request-ID"),
            )
        )
    routes = [Route(each.route, Endpoint(each, service), methods=[each.method]) for each in OPERATIONS]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: failed}, lifespan=lifespan)
    app.router.redirect_slashes = False  # a path is what it is
    app.state.service = service
    return app


class _Cors(CORSMiddleware):
    """Says no in the same words as everything else."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks what a page may do."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:  # noqa: PLR2004
            return answer
        refused = refusal(HttpError(403, "wrong_origin", bytes(answer.body).decode()), {})
        refused.raw_headers += [header for header in answer.raw_headers if header[0].startswith((b"access", b"vary"))]
        return refused
