"""How the server and the fleet are, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from sse_starlette.event import ServerSentEvent
from starlette.responses import Response

from actors.server.access import Access
from actors.server.operation import Asked, Operation
from actors.server.problem import unavailable
from actors.server.service import Metrics, Service
from actors.server.streams import EventStream, event
from bus import WorkerReadyData


class WorkerList(msgspec.Struct):
    """Every worker of the fleet that is known now."""

    workers: list[WorkerReadyData]
    count: int


class Health(msgspec.Struct):
    """That the server is well; `runtime` and `service` as AGNT5's workers say them."""

    status: str = "healthy"
    runtime: str = "asgi"
    service: str = "actorbus"


class Probe(msgspec.Struct):
    """That a probe is answered well."""

    status: str = "ok"


async def workers(service: Service, _asked: Asked) -> WorkerList:
    """List the workers of the fleet."""
    found = service.client.workers()
    return WorkerList(found, len(found))


async def events(service: Service, asked: Asked) -> Response:
    """Show what happens in the fleet."""
    assert service.client is not None
    service.streams.require_room()
    return EventStream(service.streams, _shown(service, asked.last_event_id))


async def _shown(service: Service, after: str | None) -> AsyncGenerator[ServerSentEvent, None]:
    async with aclosing(service.feed.read(after)) as feed:
        async for number, each in feed:
            yield event(each, kind=each.type, number=number)


async def health(service: Service, _asked: Asked) -> Health:
    """Say whether it can work."""
    await _require_ready(service)
    return Health()


async def livez(service: Service, _asked: Asked) -> Probe:
    """Say whether it is of any use to wait for it: if not, it is to be started again."""
    if not service.alive and not service.ending:
        raise unavailable("not_alive", "the runner does not run")
    return Probe()


async def readyz(service: Service, _asked: Asked) -> Probe:
    """Say whether requests may be sent here."""
    await _require_ready(service)
    return Probe()


async def metrics(service: Service, _asked: Asked) -> Response:
    """Show its figures."""
    return Response(service.metrics.text(), headers={"content-type": Metrics.content_type})


async def _require_ready(service: Service) -> None:
    problems = await service.problems()
    if problems:
        raise unavailable("not_ready", "; ".join(problems))


def _row(path: str, name: str, call: Any, summary: str, **more: Any) -> Operation:
    return Operation(method="GET", path=path, name=name, call=call, summary=summary, **more)


OPERATIONS = (
    _row("/workers", "listWorkers", workers, "The workers of the fleet.", answer=WorkerList),
    _row(
        "/events/stream",
        "streamEvents",
        events,
        "What happens in the fleet: workers, jobs, runs. Last-Event-ID goes on behind an event that is "
        "still kept, else a `missed` event says that some were not seen.",
        media_type="text/event-stream",
        last_event_id=".*",
    ),
    _row("/health", "health", health, "As /readyz, in the words of AGNT5's.", answer=Health, access=Access.OPEN),
    _row("/livez", "livez", livez, "Whether its loops are alive.", answer=Probe, access=Access.OPEN),
    _row(
        "/readyz",
        "readyz",
        readyz,
        "Whether it takes work: broker and run store answer.",
        answer=Probe,
        access=Access.OPEN,
    ),
    _row("/metrics", "metrics", metrics, "Figures for Prometheus.", media_type=Metrics.content_type),
)
