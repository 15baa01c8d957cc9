"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The figures of one server, in a registry of its own: two servers in one process do not mix theirs."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "actorbus_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "actorbus_http_request_seconds",
            "Seconds until a request was answered.",
            ("route",),
            registry=self._registry,
        )
        self.jobs = Counter("actorbus_jobs", "Jobs of this runner that ended.", ("status",), registry=self._registry)
        self.runs = Counter("actorbus_runs_submitted", "Runs submitted here.", registry=self._registry)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show what `value` returns when it is asked for."""
        Gauge(f"actorbus_{name}", description, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)
