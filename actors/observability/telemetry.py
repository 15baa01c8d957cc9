"""Spans and figures of jobs for OpenTelemetry, after its conventions for messaging."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from actors.observability.trace import Trace, watching
from bus import JobStatus
from bus.log import log, text_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from actors.host import Host, WatchedJob
    from actors.observability.trace import Exit
    from bus import BusJobRequestMessage, ErrorInfo
    from bus.local.mailbox import Room


P = ParamSpec("P")
T = TypeVar("T")

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
NAME = "actorbus"

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds: the bounds that the conventions advise for durations."""


def install_telemetry(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Make spans and figures of all jobs of this process, from now on.

    A job is a span `send <worker>` of its requester, and inside that a span `process <worker>` of each performer that
    began it; what a handler asks for, and spans of its own, are inside the latter. The figures are
    `messaging.process.duration` and `actorbus.jobs.active`. What of it is kept, and where it goes, is the business of
    the providers: those given, else those of the program (`opentelemetry.trace.set_tracer_provider`). If the program
    has none and the environment variable `OTEL_EXPORTER_OTLP_ENDPOINT` is set, it goes there; else nothing goes
    anywhere. Trace context travels in any case.

    Again without arguments, this does nothing; with arguments, it replaces what is installed.

    Args:
        tracer_provider: Makes the spans.
        meter_provider: Makes the figures.

    Raises:
        ImportError: OpenTelemetry is not installed; nothing has changed. It comes with `pip install
            actorbus[telemetry]`.
    """
    if watching and tracer_provider is None and meter_provider is None:
        return
    try:
        watcher = _watcher(tracer_provider, meter_provider)
    except ImportError as error:
        raise ImportError(f"telemetry needs OpenTelemetry: pip install 'actorbus[telemetry]' ({error})") from error
    remove_telemetry()
    watching.append(watcher)


def remove_telemetry() -> None:
    """Take back what `install_telemetry` has done; does nothing if nothing is installed.

    Spans of jobs that run now end here. What still waits to be sent to `OTEL_EXPORTER_OTLP_ENDPOINT` is sent first:
    that blocks, if nobody answers there for twice the 10 seconds that `OTEL_EXPORTER_OTLP_TIMEOUT` may change.
    Providers of the program are left alone.
    """
    while watching:
        watcher = watching.pop()
        if isinstance(watcher, JobTelemetry):
            watcher.close()


def _guarded(
    method: Callable[Concatenate[JobTelemetry, P], T],
) -> Callable[Concatenate[JobTelemetry, P], T | None]:
    """Log what a method raises: code of exporters and samplers must not change what becomes of a job."""

    @wraps(method)
    def guarded(self: JobTelemetry, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the job's
            log().error("telemetry failed", error=text_of(error), exc_info=True)
            return None

    return guarded


class JobTelemetry:
    """What is installed: makes spans and figures of jobs.

    Args:
        tracer_provider: Makes the spans.
        meter_provider: Makes the figures.
        close: Ends the providers, if they are its own.
    """

    def __init__(
        self, tracer_provider: TracerProvider, meter_provider: MeterProvider, close: Callable[[], None] | None
    ) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._context = context
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = tracer_provider.get_tracer(NAME)
        meter = meter_provider.get_meter(NAME)
        self._durations = meter.create_histogram(
            "messaging.process.duration",
            unit="s",
            description="Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._active = meter.create_up_down_counter(
            "actorbus.jobs.active", unit="{job}", description="Jobs that handlers have begun and not answered."
        )
        self._close = close
        self._begun: dict[WatchedJob, tuple[Span, float]] = {}

    def send(self, host: Host, request: BusJobRequestMessage) -> Room | None:
        """Send a request inside a span, if there is room for it now."""
        span = self._sending(host, request)
        try:
            room = host.bus.post(request)
        except Exception as error:
            if span is not None:
                self._end(span, type(error).__name__, str(error))
            raise
        if room is None and span is not None:  # else it is sent later, and a span that is not ended was none
            self._end(span)
        return room

    @_guarded
    def started(self, job: WatchedJob) -> None:
        """Begin the span of a job."""
        request = job.request
        span = self._tracer.start_span(
            f"process {request.target}",
            self._outside(request),
            self._trace.SpanKind.CONSUMER,
            {**_attributes("process", job.host, request), "actorbus.job.attempt": request.attempt},
        )
        self._begun[job] = (span, job.host.tasks.now())
        self._active.add(1, _figures(request))

    @_guarded
    def enter(self, job: WatchedJob) -> Exit | None:
        """Make the span of a job the current one."""
        if job not in self._begun:
            return None
        token = self._context.attach(self._trace.set_span_in_context(self._begun[job][0]))
        return self._context.detach, token

    @_guarded
    def ended(self, job: WatchedJob, status: JobStatus, error: ErrorInfo | None) -> None:
        """End the span of a job, if it was begun."""
        if job not in self._begun:
            return
        span, since = self._begun.pop(job)
        request = job.request
        self._active.add(-1, _figures(request))
        figures: dict[str, Any] = {**_figures(request), "messaging.operation.name": "process"}
        span.set_attribute("actorbus.job.status", status.value)
        if status is JobStatus.COMPLETED:
            self._end(span)
        else:
            figures["error.type"] = error.type if error is not None else status.value
            self._end(span, figures["error.type"], error.message if error is not None else "")
        self._durations.record(job.host.tasks.now() - since, figures)

    @_guarded
    def current(self) -> Trace | None:
        """The current span, as it travels."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return Trace(carrier["traceparent"], carrier.get("tracestate")) if carrier else None

    def close(self) -> None:
        """End the spans that are open, and the providers if they are its own."""
        begun, self._begun = self._begun, {}
        for job, (span, _) in begun.items():
            self._end(span)
            self._active.add(-1, _figures(job.request))
        if self._close is not None:
            self._close()

    @_guarded
    def _sending(self, host: Host, request: BusJobRequestMessage) -> Span:
        current = self._trace.get_current_span().get_span_context().is_valid
        span = self._tracer.start_span(
            f"send {request.target}",
            self._context.get_current() if current else self._outside(request),
            self._trace.SpanKind.PRODUCER,
            _attributes("send", host, request),
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        if "traceparent" in carrier:
            request.trace, request.trace_state = carrier["traceparent"], carrier.get("tracestate")
        return span

    def _outside(self, request: BusJobRequestMessage) -> Context:
        """The context that a request names, or an empty one: not that of the task, which may be another job's."""
        carrier = {"traceparent": request.trace or "", "tracestate": request.trace_state or ""}
        return self._propagator.extract(carrier, self._context.Context())

    @_guarded
    def _end(self, span: Span, kind: str | None = None, message: str = "") -> None:
        if kind is not None:
            span.set_attribute("error.type", kind)
            span.set_status(self._trace.StatusCode.ERROR, message)
        span.end()


def _attributes(operation: str, host: Host, request: BusJobRequestMessage) -> dict[str, Any]:
    attributes = {
        "messaging.system": NAME,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": request.target,
        "messaging.message.id": request.job_id,
        "messaging.client.id": host.name,
        "actorbus.worker.name": request.target,
        "actorbus.requester.name": request.source,
        "actorbus.job.name": request.job_name,
        "actorbus.run.id": request.run,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _figures(request: BusJobRequestMessage) -> dict[str, Any]:
    return {"messaging.system": NAME, "messaging.destination.name": request.target or ""}


def _watcher(tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> JobTelemetry:
    from opentelemetry import metrics, trace  # noqa: PLC0415

    unset = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    if tracer_provider is None and meter_provider is None and unset and os.environ.get(ENDPOINT):
        return _exporting()
    return JobTelemetry(
        tracer_provider or trace.get_tracer_provider(), meter_provider or metrics.get_meter_provider(), None
    )


def _exporting() -> JobTelemetry:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    spans = TracerProvider()
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    figures = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])

    def close() -> None:
        spans.shutdown()
        figures.shutdown()

    return JobTelemetry(spans, figures, close)
