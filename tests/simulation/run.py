"""One simulated run, from its seed to the verdict."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from traceback import format_exception

import anyio
import msgspec

from actors import JobGroupError, RunnerStateError, WorkerRunner, WorkerStatistics
from actors.runner.runner import core_of_runner
from actors.testing import Faults, Simulation, SimulationError
from actors.testing.history import Happening, judge
from tests.simulation.plan import NAMES, RUNNERS, Ask, Scenario, make_scenario
from tests.simulation.program import CANCEL_GRACE, Actor, Asker, Recorder

MAX_DELIVER = 5
"""Deliveries of one job after which it is given up: the default of the bus."""

LEAST_DISTANT = 0.1
"""Of all jobs, those that complete in another process than the one that asks: less than half of what is usual."""

CLAIMS_END = ("partition", "black_hole", "pause", "broker_restart", "broker_loss")
"""Disturbances that last longer than claims do: each excuses one more execution of a job."""

QUIET_LIMIT = 600.0
"""Simulated seconds in which everything must have settled after the last fault."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one seed: problems found, counts, and the trace whose digest identifies the run.

    Plain jobs are those that must complete; they are counted where nothing goes wrong.
    """

    seed: int
    problems: tuple[str, ...]
    summary: str
    jobs: int
    executions: int
    distant: int
    plain: int
    plain_completed: int
    trace: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The same for the same run."""
        return hashlib.blake2b("\n".join(self.trace).encode(), digest_size=8).hexdigest()


class Tally:
    """What came of many seeds: a system that does nothing breaks no promise, so it must have done something."""

    def __init__(self) -> None:
        self.jobs = self.executions = self.distant = 0
        self.plain = self.plain_completed = 0

    def add(self, outcome: Outcome) -> None:
        """Count another seed."""
        self.jobs += outcome.jobs
        self.executions += outcome.executions
        self.distant += outcome.distant
        self.plain += outcome.plain
        self.plain_completed += outcome.plain_completed

    @property
    def says_little(self) -> bool:
        """Whether a job that nothing kept from it has not completed, or few of all jobs have in another process."""
        return not 0 < self.plain == self.plain_completed or self.distant < self.jobs * LEAST_DISTANT

    def __str__(self) -> str:
        return f"{self.jobs} jobs, {self.executions} executions, {self.distant} completed elsewhere, {self.plain} plain"


def simulate(seed: int) -> Outcome:
    """Run the scenario of a seed on the real code, and judge it."""
    scenario = make_scenario(seed)
    fenced = seed % 4 != 3  # every fourth run on a broker that accepts late acknowledgements
    sim = Simulation(
        seed,
        faults=scenario.faults,
        ack_wait=8.0,
        fenced_ack=fenced,
        delivery=scenario.delivery,
        cancel_grace=CANCEL_GRACE,
        drain_timeout=10.0,
    )
    recorder = Recorder(sim)
    recorder.delivery = scenario.delivery
    problems: list[str] = []
    try:
        sim.run(lambda sim: _program(sim, scenario, recorder, problems))
    except SimulationError as error:
        problems.append(str(error))
    except Exception as error:  # noqa: BLE001 - a crash of the system itself is a finding like any other
        problems.append(f"seed {seed}: {error!r}\n{''.join(format_exception(error))}")
    verdict = judge(recorder.lines, grace=5.0 + 4 * scenario.faults.delay[1])
    if not verdict.jobs:
        problems.append("no job was asked for: this run says nothing")
    problems += [*verdict.violations, *recorder.problems]
    if scenario.harmless and verdict.executions > verdict.jobs:
        problems.append(f"{verdict.executions} executions of {verdict.jobs} jobs although nothing went wrong")
    network = [f"{time:.6f} {label} {event} {detail}" for time, label, event, detail in sim.trace]
    lines = [" ".join(map(str, msgspec.structs.astuple(line))) for line in recorder.lines]
    summary = f"{verdict.jobs} jobs, {verdict.executions} executions, {verdict.outcomes}, {len(network)} network events"
    return Outcome(
        seed,
        tuple(problems),
        summary,
        verdict.jobs,
        verdict.executions,
        verdict.distant,
        recorder.plain if scenario.harmless else 0,
        recorder.plain_completed if scenario.harmless else 0,
        tuple(network + lines),
    )


async def _program(sim: Simulation, scenario: Scenario, recorder: Recorder, problems: list[str]) -> None:
    for runner in RUNNERS:
        await _start(sim, scenario, recorder, runner)
    if scenario.faults.drop:
        recorder.note("disturbed", "the network loses renewals", number=MAX_DELIVER)
        recorder.lossy = True
    chaos = _Chaos(sim, scenario, recorder)
    async with anyio.create_task_group() as task_group:
        for runner in RUNNERS:
            for delay, ask in scenario.asks[runner]:
                task_group.start_soon(_ask, sim, recorder, runner, delay, ask)
        for delay, what, runner in scenario.chaos:
            task_group.start_soon(chaos.disturb, delay, what, runner)
    sim.network.faults = Faults()
    await _settle(sim, recorder, problems)


async def _start(sim: Simulation, scenario: Scenario, recorder: Recorder, runner: str) -> None:
    workers = [_make(scenario, recorder, name) for name in NAMES if runner in scenario.homes[name]]
    await sim.start(runner, Asker(f"boss-{runner}", recorder), *workers)


def _make(scenario: Scenario, recorder: Recorder, name: str) -> Actor:
    return Actor(name, recorder, scenario.concurrency[name], scenario.mailboxes[name])


async def _ask(sim: Simulation, recorder: Recorder, runner: str, delay: float, ask: Ask) -> None:
    await anyio.sleep(delay)
    host = sim.runner(runner)
    boss = host.get_worker(f"boss-{runner}") if host is not None else None
    if not isinstance(boss, Asker) or host is None or not core_of_runner(host).accepting:
        return
    # It runs as a background task of the boss, so that it dies with its runner.
    task = boss.create_task(_attempt(boss, ask), "ask")
    with anyio.move_on_after(3000):
        await task.wait()


async def _attempt(boss: Asker, ask: Ask) -> None:
    with suppress(JobGroupError, RunnerStateError):  # written down by the asker, or refused because its runner ends
        await boss.ask(ask)


class _Chaos:
    """The disturbances of one run, each a method that ends with everything whole again."""

    def __init__(self, sim: Simulation, scenario: Scenario, recorder: Recorder) -> None:
        self._sim = sim
        self._scenario = scenario
        self._recorder = recorder
        self._broker_is_down = False

    async def disturb(self, delay: float, what: str, label: str) -> None:
        """Do one of them after a while, unless that runner is down or ending."""
        await anyio.sleep(delay)
        host = self._sim.runner(label)
        if host is not None and core_of_runner(host).accepting:
            self._recorder.note("disturbed", what, number=int(what in CLAIMS_END))
            self._recorder.lossy = self._recorder.lossy or what not in {"remove", "sleep", "slow_broker"}
            await getattr(self, what)(label, host)

    async def crash(self, label: str, _host: WorkerRunner) -> None:
        self._recorder.note("died", self._sim.bus(label).address)
        self._sim.crash(label)
        await self._start_again(label, 15)

    async def end(self, label: str, _host: WorkerRunner) -> None:
        self._recorder.note("died", self._sim.bus(label).address)
        await self._sim.end(label)
        await self._start_again(label, 5)

    async def partition(self, label: str, _host: WorkerRunner) -> None:
        self._sim.partition(label)
        await anyio.sleep(self._sim.rng.uniform(0.5, 40))
        self._sim.heal(label)

    async def black_hole(self, label: str, _host: WorkerRunner) -> None:
        self._sim.black_hole(label)
        await anyio.sleep(self._sim.rng.uniform(5, 40))
        self._sim.heal(label)

    async def pause(self, label: str, _host: WorkerRunner) -> None:
        self._recorder.paused[self._sim.bus(label).address] = None
        self._sim.pause(label)
        await anyio.sleep(self._sim.rng.uniform(1, 40))
        if self._sim.runner(label) is not None:
            self._sim.resume(label)

    async def broker_restart(self, _label: str, _host: WorkerRunner, *, empty: bool = False) -> None:
        if not self._broker_is_down:
            self._broker_is_down = True
            self._sim.network.stop_broker()
            await anyio.sleep(self._sim.rng.uniform(0.1, 20))
            self._sim.network.start_broker(empty=empty)
            self._recorder.note("forgot", "the broker")
            self._broker_is_down = False

    async def broker_loss(self, label: str, host: WorkerRunner) -> None:
        await self.broker_restart(label, host, empty=True)

    async def slow_broker(self, _label: str, _host: WorkerRunner) -> None:
        self._sim.network.faults = msgspec.structs.replace(self._scenario.faults, delay=(2.0, 2.0))
        await anyio.sleep(self._sim.rng.uniform(5, 30))
        self._sim.network.faults = self._scenario.faults

    async def fleet_restart(self, _label: str, _host: WorkerRunner) -> None:
        labels = self._sim.alive()
        for label in labels:
            self._recorder.note("died", self._sim.bus(label).address)
            self._sim.crash(label)
        for label in labels:
            await self._start_again(label, 5)

    async def remove(self, label: str, host: WorkerRunner) -> None:
        name = self._sim.rng.choice(NAMES)
        if label in self._scenario.homes[name] and await host.remove_worker(name):
            await anyio.sleep(self._sim.rng.uniform(0, 5))
            if core_of_runner(host).accepting and host.get_worker(name) is None:
                await host.add_workers(_make(self._scenario, self._recorder, name))

    async def sleep(self, label: str, host: WorkerRunner) -> None:
        name = self._sim.rng.choice(NAMES)
        boss = host.get_worker(f"boss-{label}")
        if boss is not None:
            await boss.deactivate_worker(name)
            await anyio.sleep(self._sim.rng.uniform(0, 10))
            if core_of_runner(host).accepting:
                await boss.activate_worker(name)

    async def _start_again(self, label: str, within: float) -> None:
        await anyio.sleep(self._sim.rng.uniform(0.1, within))
        if self._sim.runner(label) is None:
            await _start(self._sim, self._scenario, self._recorder, label)


async def _settle(sim: Simulation, recorder: Recorder, problems: list[str]) -> None:
    """Wait until nothing is left anywhere, and say what is if it stays."""
    until = sim.now + QUIET_LIMIT
    left = _left(sim)
    while left and sim.now < until:
        await anyio.sleep(5)
        left = _left(sim)
    problems += left
    lives = {sim.bus(label).address for label in sim.alive()}
    ended: dict[tuple[str, str], list[Happening]] = {}
    for line in recorder.lines:
        if line.kind == "ended":
            ended.setdefault((line.life, line.job_id), []).append(line)
    for (life, job_id), lines in ended.items():
        statuses = {line.status for line in lines}
        by_itself = any(line.status == "cancelled" and not line.attempt for line in lines)
        if by_itself and statuses <= {"cancelled", "completed"}:
            continue  # the requester has cancelled it: it need not be told
        if life in lives and recorder.told[life, job_id] != 1:
            problems.append(f"the hooks of {life} were told {recorder.told[life, job_id]} times how {job_id} ended")


def _left(sim: Simulation) -> list[str]:
    left = []
    for label in sim.alive():
        host = sim.runner(label)
        assert host is not None
        statistics = host.statistics()
        network = sim.bus(label).network_statistics()
        for what, count in (
            ("jobs", statistics.jobs),
            ("groups", statistics.groups),
            ("deadlines", statistics.deadlines),
            ("claims", network.claims.held),
            ("jobs asked for at most once", network.direct.asked + network.direct.parked),
            ("frames to send", network.outbox.frames),
            ("frames it could not read", network.refused.total),
            ("parked requests", host.bus.statistics().parked),
        ):
            if count:
                left.append(f"runner {label} keeps {count} {what}")
        for name in host.registry.local_workers:
            worker = host.get_worker(name)
            held = worker.statistics() if worker is not None else WorkerStatistics()
            if held.running or held.pending:
                left.append(f"worker {name} of {label} keeps {held}")
    return left
