"""What every request passes first: by which name it calls, from which page, and how often."""

from __future__ import annotations

import re

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.server.operation import REQUEST_ID, refusal, request_id_of
from actors.server.problem import HttpError
from actors.server.service import Service
from actors.server.settings import is_allowed

_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_READS = {"GET", "HEAD"}


class Guard:
    """ASGI middleware in front of all routes; also of those that do not exist."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        if _REQUEST_ID.fullmatch(given):
            scope[REQUEST_ID] = given

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = request_id_of(scope)
                answer["x-content-type-options"] = "nosniff"
                answer.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._check_host(headers)
            self._check_rate(scope)
            self._check_origin(scope, headers)
        except HttpError as error:
            self._service.metrics.requests.labels("any", "refused", str(error.status)).inc()
            await refusal(error, scope)(scope, receive, named)
            return
        await self._app(scope, receive, named)

    def _check_host(self, headers: Headers) -> None:
        """Refuse a name that is none of ours: a page in a browser may give its own name our address."""
        hosts = headers.getlist("host")
        parts = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if parts is None:
            raise HttpError(400, "bad_host", "a request needs one Host header, with a name and perhaps a port")
        if not is_allowed(parts["name"].lower(), self._service.settings.allowed_hosts):
            raise HttpError(421, "wrong_host", f"this server is not called {parts['name']!r}: see allowed_hosts=")

    def _check_rate(self, scope: Scope) -> None:
        client = scope.get("client")
        wait = self._service.rate.ask(client[0] if client else "", anyio.current_time())
        if wait:
            headers = {"retry-after": f"{wait:.0f}"}
            raise HttpError(429, "too_many_requests", "too many requests: slower", retry=True, headers=headers)

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of somebody else would change: not every such request is asked about before."""
        origins = headers.getlist("origin")
        if not origins or scope["method"] in _READS:
            return
        # Its own pages may come through a proxy that speaks another scheme: of those only the host is compared.
        own = origins[0].partition("://")[2].lower() == headers["host"].lower()
        if len(origins) != 1 or not (own or origins[0] in self._service.settings.cors_origins):
            raise HttpError(403, "wrong_origin", f"pages of {origins[0]!r:.100} may not do that: see cors_origins=")
