"""Who may do what: two tokens, and what each route asks for."""

from __future__ import annotations

import hmac
from enum import Enum

from starlette.datastructures import Headers

from actors.server.problem import HttpError
from actors.server.settings import ServerSettings


class Access(Enum):
    """What a route asks for."""

    OPEN = "open"
    """Nothing: whoever reaches the port."""
    READ = "read"
    """Either token."""
    OPERATE = "operate"
    """The operator's token."""


class Tokens:
    """Compares tokens in constant time, so that none can be guessed by how long its refusal takes."""

    def __init__(self, settings: ServerSettings) -> None:
        self._operator = _bytes(settings.token)
        self._reader = _bytes(settings.read_token)

    def require(self, headers: Headers, access: Access) -> None:
        """Refuse a request that does not show what a route asks for.

        Raises:
            HttpError: 401 without a token that is known, 403 with one that may only read.
        """
        if access is Access.OPEN or self._operator is None:
            return
        shown = headers.getlist("authorization")
        scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
        given = token.strip(" ").encode("latin-1") if scheme.lower() == "bearer" else b""
        operates = hmac.compare_digest(given, self._operator)
        reads = self._reader is not None and hmac.compare_digest(given, self._reader)
        if operates or (reads and access is Access.READ):
            return
        if reads:
            raise HttpError(403, "forbidden", "this token may only read: use the operator's")
        raise HttpError(
            401,
            "unauthorized",
            "show a token that is known: Authorization: Bearer <token>",
            headers={"www-authenticate": 'Bearer realm="actorbus"'},
        )


def _bytes(token: str | None) -> bytes | None:
    return token.encode() if token is not None else None
