"""Spans and figures of jobs, after the conventions of OpenTelemetry for messaging."""

from __future__ import annotations

import ast
import http.server
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from actors import BaseWorker, Client, Job, JobError, install_telemetry, job, remove_telemetry, tracing
from actors.observability.trace import watching
from tests.support.environment import ROOT, environment
from tests.support.running import TasksBegun, running
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NUMBERS = itertools.count()

Delivery = Literal["at_least_once", "at_most_once"]


class Traced(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = anyio.Event()

    @job
    async def echo(self, payload: str) -> str:
        return payload

    @job
    async def trace(self, job: Job[Any]) -> list[Any]:
        return [job.trace.parent, job.trace.state] if job.trace is not None else []

    @job
    async def delegate(self, target: str) -> Any:
        return await self.job(target, name="echo", payload="inner")

    @job
    async def fail(self) -> None:
        raise ValueError("no")

    @job
    async def work(self) -> str:
        await self.gate.wait()
        return "done"


class Recorded:
    """What came of the spans and figures."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader])

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def points(self, name: str) -> list[Any]:
        data: Any = self.reader.get_metrics_data()
        if data is None:
            return []
        metrics = [each for one in data.resource_metrics for scope in one.scope_metrics for each in scope.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    made = Recorded()
    install_telemetry(tracer_provider=made.tracer_provider, meter_provider=made.meter_provider)
    yield made
    remove_telemetry()
    assert not watching


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


async def test_a_job_is_a_span_of_its_requester_and_inside_that_one_of_its_performer(recorded: Recorded) -> None:
    async with running(Traced("ann"), name="here") as runner, Client(runner, name="script") as client:
        with tracing(run="run-1"):
            await client.request("ann", "hello", name="echo", job_id="j1")
    send, process = recorded.named("send ann"), recorded.named("process ann")
    shared = {
        "messaging.system": "actorbus",
        "messaging.destination.name": "ann",
        "messaging.message.id": "j1",
        "messaging.client.id": "here",
        "actorbus.worker.name": "ann",
        "actorbus.requester.name": "script",
        "actorbus.job.name": "echo",
        "actorbus.run.id": "run-1",
    }
    assert dict(send.attributes or {}) == {
        **shared,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }
    assert dict(process.attributes or {}) == {
        **shared,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "actorbus.job.attempt": 1,
        "actorbus.job.status": "completed",
    }
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert (parent_of(send), parent_of(process)) == (None, id_of(send))
    assert {send.status.status_code, process.status.status_code} == {StatusCode.UNSET}


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
async def test_over_a_network_all_spans_of_jobs_inside_jobs_are_one_trace(
    recorded: Recorded, delivery: Delivery
) -> None:
    place = f"memory://telemetry-{next(NUMBERS)}"
    first, second, third = (quiet(name, bus=place) for name in ("a", "b", "c"))
    async with first, second, third, Client(third) as client:
        await first.add_workers(Traced("ann"))
        await second.add_workers(Traced("bob"))
        assert await client.request("ann", "bob", name="delegate", delivery=delivery, timeout=60) == "inner"
    outer, ann, inner, bob = (recorded.named(name) for name in ("send ann", "process ann", "send bob", "process bob"))
    assert [parent_of(span) for span in (outer, ann, inner, bob)] == [None, id_of(outer), id_of(ann), id_of(inner)]
    assert len({span.context.trace_id for span in (outer, ann, inner, bob) if span.context is not None}) == 1
    assert [(span.attributes or {})["messaging.client.id"] for span in (outer, ann, inner, bob)] == ["c", "a", "a", "b"]


async def test_spans_of_the_program_are_around_and_inside_those_of_jobs(recorded: Recorded) -> None:
    tracer = recorded.tracer_provider.get_tracer("program")

    class Own(BaseWorker):
        @job
        async def work(self) -> None:
            with tracer.start_as_current_span("inside"):
                pass

    async with running(Own("own")) as runner, Client(runner) as client:
        with tracer.start_as_current_span("around"):
            await client.request("own", name="work")
        await client.request("own", name="work")
    around, sends = recorded.named("around"), [span for span in recorded.spans if span.name == "send own"]
    assert [parent_of(span) for span in sends] == [id_of(around), None]
    processes = [span for span in recorded.spans if span.name == "process own"]
    assert [parent_of(span) for span in recorded.spans if span.name == "inside"] == [id_of(each) for each in processes]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_trace_that_the_program_names_itself_goes_on_in_the_spans(recorded: Recorded) -> None:
    async with running(Traced("ann")) as runner, Client(runner) as client:
        with tracing(PARENT, "a=1"):
            parent, state = await client.request("ann", name="trace")
    send = recorded.named("send ann")
    assert send.context is not None
    assert parent == f"00-{PARENT[3:35]}-{id_of(send):016x}-01"
    assert parent_of(send) == int(PARENT[36:52], 16)
    assert state == "a=1"


async def give_up(client: Client) -> None:
    async with client.job("ann", name="work") as asked:
        await anyio.wait_all_tasks_blocked()
        await asked.cancel("enough")


async def test_a_job_that_does_not_complete_has_a_span_that_says_why(recorded: Recorded) -> None:
    ann = Traced("ann")
    async with running(ann) as runner, Client(runner) as client:
        with pytest.raises(JobError):
            await client.request("ann", name="fail")
        with pytest.raises(JobError):
            await give_up(client)
    failed, cancelled = (span for span in recorded.spans if span.name == "process ann")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "no")
    assert (failed.attributes or {})["error.type"] == "ValueError"
    assert (failed.attributes or {})["actorbus.job.status"] == "error"
    assert cancelled.status.status_code is StatusCode.ERROR
    assert (cancelled.attributes or {})["actorbus.job.status"] == "cancelled"
    assert all(span.status.status_code is StatusCode.UNSET for span in recorded.spans if span.name == "send ann")


async def test_the_figures_count_jobs_that_run_and_how_long_they_took(recorded: Recorded) -> None:
    ann = Traced("ann")
    async with running(ann) as runner, Client(runner) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.request("ann", name="work"))
        await anyio.wait_all_tasks_blocked()
        (active,) = recorded.points("actorbus.jobs.active")
        assert active.value == 1
        assert not recorded.points("messaging.process.duration")
        ann.gate.set()
        with pytest.raises(JobError):
            await client.request("ann", name="fail")
    (active,) = recorded.points("actorbus.jobs.active")
    assert active.value == 0
    points = {point.attributes.get("error.type"): point for point in recorded.points("messaging.process.duration")}
    assert {kind: point.count for kind, point in points.items()} == {None: 1, "ValueError": 1}
    assert points[None].attributes == {
        "messaging.system": "actorbus",
        "messaging.destination.name": "ann",
        "messaging.operation.name": "process",
    }


async def test_tasks_that_ran_jobs_in_spans_are_used_again(recorded: Recorded) -> None:
    async with running(Traced("ann")) as runner, Client(runner) as client:
        await client.request("ann", "hello", name="echo")
        begun = TasksBegun(runner)
        for _ in range(20):
            await client.request("ann", "hello", name="echo")
        assert begun.count == 0
    assert len(recorded.spans) == 42


async def test_a_request_that_waits_for_room_is_one_span(recorded: Recorded) -> None:
    class Narrow(Traced):
        def __init__(self) -> None:
            super().__init__("narrow")

    narrow = Narrow()
    narrow.max_concurrency, narrow.mailbox_size = 1, 1
    async with running(narrow) as runner, Client(runner) as client, anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(lambda: client.request("narrow", name="work"))
        await anyio.wait_all_tasks_blocked()
        narrow.gate.set()
    sends = [span for span in recorded.spans if span.name == "send narrow"]
    processes = [span for span in recorded.spans if span.name == "process narrow"]
    assert sorted(map(id_of, sends)) == sorted(parent_of(span) or 0 for span in processes)
    assert len(sends) == 4


async def test_installed_twice_makes_one_span_each_and_removed_twice_none() -> None:
    first, second = Recorded(), Recorded()
    async with running(Traced("ann")) as runner, Client(runner) as client:
        try:
            install_telemetry(tracer_provider=first.tracer_provider)
            install_telemetry()
            await client.request("ann", "hello", name="echo")
            assert len(first.spans) == 2
            install_telemetry(tracer_provider=second.tracer_provider)
            await client.request("ann", "hello", name="echo")
            assert (len(first.spans), len(second.spans)) == (2, 2)
        finally:
            remove_telemetry()
            remove_telemetry()
        await client.request("ann", "hello", name="echo")
        assert (len(first.spans), len(second.spans)) == (2, 2)
        assert await client.request("ann", name="trace") == []


async def test_removed_while_a_job_runs_its_span_ends_there_and_the_job_goes_on() -> None:
    made, ann = Recorded(), Traced("ann")
    install_telemetry(tracer_provider=made.tracer_provider, meter_provider=made.meter_provider)
    async with running(ann) as runner, Client(runner) as client, client.job("ann", name="work") as asked:
        await anyio.wait_all_tasks_blocked()
        remove_telemetry()
        assert made.named("process ann").end_time is not None
        (active,) = made.points("actorbus.jobs.active")
        assert active.value == 0
        ann.gate.set()
    assert asked.response == "done"
    assert len(made.spans) == 2


async def test_code_of_the_program_that_fails_while_a_span_is_made_changes_no_job() -> None:
    class Failing(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise ValueError("no")

        def on_end(self, span: Any) -> None:
            raise ValueError("no")

    provider = TracerProvider()
    provider.add_span_processor(Failing())
    install_telemetry(tracer_provider=provider)
    try:
        async with running(Traced("ann")) as runner, Client(runner) as client:
            with tracing(PARENT):
                assert await client.request("ann", "hello", name="echo") == "hello"
                assert await client.request("ann", name="trace") == [PARENT, None]
    finally:
        remove_telemetry()


async def test_without_a_provider_nothing_is_recorded_and_a_trace_travels_on() -> None:
    install_telemetry()
    try:
        async with running(Traced("ann")) as runner, Client(runner) as client:
            with tracing(PARENT, "a=1"):
                assert await client.request("ann", name="trace") == [PARENT, "a=1"]
            assert await client.request("ann", name="trace") == []
    finally:
        remove_telemetry()


def test_without_opentelemetry_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'actorbus\[telemetry\]'"):
        install_telemetry()
    assert not watching


PROGRAM = """
import os
import anyio
from actors import BaseWorker, Client, WorkerRunner, install_telemetry, job, remove_telemetry

class Ann(BaseWorker):
    @job
    async def echo(self, payload: str) -> str:
        return payload

async def main():
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Ann("ann"))
        await client.request("ann", "hello", name="echo")

install_telemetry()
anyio.run(main)
remove_telemetry()
os._exit(0)  # what was not sent by now never is
"""


async def test_the_two_lines_of_the_readme_make_two_spans(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (lines,) = (block for block in blocks if "install_telemetry" in block)
    assert len(lines.splitlines()) == 2
    names: dict[str, Any] = {"install_telemetry": install_telemetry}
    exec(blocks[0].replace("anyio.run(main)", ""), names)  # noqa: S102 - our own
    async with running(names["Counter"]("ann")) as runner, Client(runner) as client:
        program = compile(lines, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await eval(program, {**names, "client": client})  # noqa: S307 - as above
    assert capsys.readouterr().out == "3\n"
    assert [span.name for span in recorded.spans] == ["send ann", "process ann"]


async def test_the_jobs_of_a_run_are_inside_the_span_it_was_submitted_in(recorded: Recorded) -> None:
    tracer = recorded.tracer_provider.get_tracer("program")
    async with running(Traced("ann")) as runner, Client(runner) as client:
        with tracer.start_as_current_span("import"):
            run = await client.submit("ann", payload="hello", name="echo")
        await run.result(timeout=60)
    assert parent_of(recorded.named("send ann")) == id_of(recorded.named("import"))
    assert (recorded.named("process ann").attributes or {})["actorbus.run.id"] == run.run_id


@pytest.mark.parametrize("configured", [True, False])
def test_a_program_sends_where_the_environment_says_and_else_nowhere(configured: bool) -> None:
    asked: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if configured else {}
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment(**told), check=True, timeout=100)
        server.shutdown()
    if configured:
        assert {path for path, _ in asked} == {"/v1/traces", "/v1/metrics"}
        assert b"process ann" in b"".join(body for _, body in asked)
    else:
        assert asked == []
