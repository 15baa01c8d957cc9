"""What stands behind the routes: a client of the bus, the events of the fleet, and whether they take work."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from actors.client.client import Client
from actors.client.job_follower import follow_jobs
from actors.jobs.events import JobRecord
from actors.observability.job_events import JobNews
from actors.runner.runner import WorkerRunner
from actors.runs.store import RunStore
from actors.server.access import RateLimit, ServerSettings, Tokens
from actors.server.problem import unavailable
from actors.server.streams import Feed, FleetEvent, RunTails, Streams
from bus import NetworkBus, WorkerBus, WorkerLostData, WorkerReadyData
from bus.local.home import Body, body_here


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


LOOK = 2.0
"""Seconds that a look at the run store may take, for `/readyz`."""

Prepare = Callable[[WorkerRunner], Any]


class Service:
    """Everything one server has, from the start of its lifespan to its end.

    Args:
        to: A bus URL, a bus, or a runner; one that does not run is run as long as the service.
        run_store: As for `Client`.
        own_runs: As for `Client`.
        settings: Its limits.
        prepare: Called with the runner before it runs: adds workers.
        bus_options: What `open_bus` takes beside a URL.
    """

    def __init__(
        self,
        to: str | WorkerBus | WorkerRunner,
        *,
        run_store: RunStore | str | None,
        own_runs: bool,
        settings: ServerSettings,
        prepare: Prepare | None = None,
        bus_options: dict[str, Any] | None = None,
    ) -> None:
        self._to = to
        self._run_store = run_store
        self._own_runs = own_runs
        self._prepare = prepare
        self._bus_options = bus_options or {}
        self.settings = settings
        self.tokens = Tokens(settings)
        self.rate = RateLimit(settings.rate, settings.burst)
        self.streams = Streams(settings)
        self.metrics = Metrics()
        self.feed = Feed(secrets.token_hex(4))
        self.ending = False
        self._starting: Body | None = None
        self._working = 0
        self._idle = anyio.Event()
        self._client: Client | None = None
        self._runner: WorkerRunner | None = None
        self._show_gauges()

    @property
    def client(self) -> Client:
        """The client of the bus.

        Raises:
            HttpError: The lifespan has not begun, or is over.
        """
        if self._client is None:
            raise unavailable("not_started", "the server has not started: an app that mounts it runs its lifespan too")
        return self._client

    @property
    def runner(self) -> WorkerRunner:
        """The runner, as `client`."""
        assert self.client is not None
        assert self._runner is not None
        return self._runner

    def refused(self, status: int) -> None:
        """Count a request that was not let in."""
        self.metrics.requests.labels("any", "refused", str(status)).inc()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Connect, and take work as long as the context lasts; then let what is under way end.

        If it is to end before it has connected, the context begins all the same, and takes no work.
        """
        starting = self._starting = body_here()
        failure: BaseException | None = None
        started = False
        try:
            async with self._started():
                self._starting, started = None, True
                try:
                    yield
                finally:
                    with anyio.CancelScope(shield=True):
                        await self.drain()
                    self._client = None
        except BaseException as error:  # noqa: BLE001 - raised below, but for what gave up the start
            failure = error
        self._starting = None
        _, failure = starting.leave(failure)
        if failure is not None:
            raise failure
        if not started:
            yield

    @asynccontextmanager
    async def _started(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            runner = self._to if isinstance(self._to, WorkerRunner) else self._new_runner(self._to)
            if self._prepare is not None:
                await self._prepare(runner)
            if not runner.running:
                await stack.enter_async_context(runner)
            client = await stack.enter_async_context(Client(runner, run_store=self._run_store, own_runs=self._own_runs))
            await client.runs(limit=1)  # opens the store: ready before the first request
            await runner.add_workers(tails := RunTails(self.feed, client))
            stack.push_async_callback(tails.leave)
            self._runner, self._client = runner, client
            await self._listen(runner, stack)
            yield

    @contextmanager
    def work(self) -> Iterator[None]:
        """Count something under way as long as the block lasts.

        Raises:
            HttpError: The server is ending.
        """
        self.require_open()
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._idle.set()
                self._idle = anyio.Event()

    def require_open(self) -> None:
        """Refuse new work while the server ends.

        Raises:
            HttpError: It does.
        """
        if self.ending:
            raise unavailable("ending", "the server is ending: ask it later, or another")

    def close(self) -> None:
        """Take no more work, and end the streams; a start that waits for the broker is given up."""
        self.ending = True
        self.streams.close()
        if self._starting is not None:
            self._starting.cancel()

    async def drain(self) -> None:
        """Take no more work, end the streams, and wait for the rest, at most `drain_timeout` seconds."""
        self.close()
        with anyio.move_on_after(self.settings.drain_timeout):
            while self._working:
                await self._idle.wait()

    @property
    def alive(self) -> bool:
        """Whether its runner runs."""
        return self._runner is not None and self._runner.running

    async def problems(self) -> list[str]:
        """Why it is not ready; nothing if it is."""
        found = ["the server is ending"] if self.ending else []
        if self._client is None or not self.alive:
            return [*found, "the runner does not run"]
        bus = self.runner.bus
        if isinstance(bus, NetworkBus) and not bus.network_statistics().connection.connected:
            found.append("the broker cannot be reached")
        try:
            with anyio.fail_after(LOOK):
                await self._client.runs(limit=1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the store does not answer
            found.append(f"the run store does not answer: {type(error).__name__}")
        return found

    def _new_runner(self, to: str | WorkerBus) -> WorkerRunner:
        return WorkerRunner(
            bus=to,
            handle_sigint=False,
            handle_sigterm=False,
            drain_timeout=self.settings.drain_timeout,
            **self._bus_options,
        )

    async def _listen(self, runner: WorkerRunner, stack: AsyncExitStack) -> None:
        known = {(each.worker_name, each.runner): None for each in self.client.workers()}

        def changed(change: WorkerReadyData | WorkerLostData) -> None:
            key = (change.worker_name, change.runner)
            if isinstance(change, WorkerLostData):
                kind = "worker_lost"
                known.pop(key, None)
            else:
                kind = "worker_changed" if key in known else "worker_ready"
                known[key] = None
            self.feed.put(FleetEvent(kind, time.time(), change))

        runner.registry.listen(changed)
        stack.callback(runner.registry.unlisten, changed)
        for event in ("on_job_complete", "on_job_error"):
            runner.add_event_handler(event, self._count)
            stack.callback(runner.remove_event_handler, event, self._count)
        await stack.enter_async_context(follow_jobs(runner, self._show_job))

    def _count(self, _runner: WorkerRunner, record: JobRecord) -> None:
        if record.status is not None:
            self.metrics.jobs.labels(record.status.value).inc()

    def _show_job(self, news: JobNews) -> None:
        self.feed.put(FleetEvent(news.type, news.at, news.details()))

    def _show_gauges(self) -> None:
        show = self.metrics.gauge
        show("streams", "Streams open now.", lambda: len(self.streams))
        show("streams_stalled", "Streams ended because their reader did not read on.", lambda: self.streams.stalled)
        show("invocations", "Invocations and submissions under way.", lambda: self._working)
        show("ready", "1 while the server takes work.", lambda: self.alive and not self.ending)
        for name in ("workers", "jobs", "groups", "late_answers"):
            show(f"runner_{name}", f"{name} of the runner now; see RunnerStatistics.", self._statistic(name))

    def _statistic(self, name: str) -> Callable[[], float]:
        def value() -> float:
            return getattr(self._runner.statistics(), name) if self._runner is not None else 0

        return value
