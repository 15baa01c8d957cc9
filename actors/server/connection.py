"""A connection, whose requests must come in time: uvicorn itself waits for ever for the end of a head."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from actors.server.app import service_of


class Connection(H11Protocol):
    """Closes itself when the head of a request does not come within `body_timeout` seconds.

    h11 refuses what is ambiguous in a request, which others let through to be read in two ways.
    """

    _late: Any = None

    def connection_made(self, transport: Any) -> None:
        """Somebody has connected."""
        super().connection_made(transport)
        self._expect_a_head()

    def data_received(self, data: bytes) -> None:
        """Something of a request has come."""
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn says
        if cycle is not None and not cycle.response_complete:
            self._be_patient()
        elif self._late is None:
            self._expect_a_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._be_patient()
        super().connection_lost(exc)

    def _expect_a_head(self) -> None:
        app: Any = self.config.app
        self._late = self.loop.call_later(service_of(app).settings.body_timeout, self.transport.close)

    def _be_patient(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
