"""A simulated fleet: several runners, one clock that jumps, one network that fails as a seed decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Literal, TypeVar, cast

import anyio
import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

from actors.runner.runner import WorkerRunner, core_of_runner
from actors.testing.process import Process, let_processes_pause
from actors.worker.core import name_workers_from
from actors.worker.worker import BaseWorker
from bus import NetworkBus
from bus.memory.broker import MemoryBroker
from bus.simulation.network import Faults, SimulatedNetwork, TraceEvent

ResultT = TypeVar("ResultT")


class SimulationError(AssertionError):
    """The simulated program did not end, since somebody waits for ever; or it does what a simulation cannot run."""


class _NoLoop:
    """Stands where asyncio has its running loop, for libraries that run on nothing else."""

    def __getattr__(self, name: str) -> Any:
        raise SimulationError(
            f"a simulation cannot run what needs asyncio (here the loop's {name!r}): its clock jumps, and it runs on "
            "trio. Write that part with anyio, or put a stub in its place, as `actors.testing.StubWorker`"
        )

    def __hash__(self) -> int:  # asyncio looks by its loop for the task that runs
        return int(self.current_task)


@contextmanager
def _without_asyncio() -> Iterator[None]:
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(cast("asyncio.AbstractEventLoop", _NoLoop()))
    try:
        yield
    finally:
        asyncio._set_running_loop(before)


class _Node:
    """One runner of the fleet, in one of its lives."""

    def __init__(self, runner: WorkerRunner, bus: NetworkBus, ready: anyio.Event) -> None:
        self.runner = runner
        self.bus = bus
        self.ready = ready
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.process = Process()


class Simulation:
    """Runs a program on a simulated fleet.

    The code is the real one; only the clock, the scheduler's choices and the network are simulated. An hour of waiting
    takes no time. The same seed gives the same run, in another process too, as long as the program takes its chance
    from `rng` and its time from anyio. Handlers that are plain functions run in real threads: do not use them here.
    What needs asyncio cannot be run, and says so.

        def test_survives_a_crash():
            async def program(sim):
                await sim.start("a", Echo("echo"))
                ...
                sim.crash("a")
            Simulation(seed=1).run(program)

    Args:
        seed: Where all chance comes from.
        faults: What the network does wrong.
        ack_wait: Seconds a claim lasts unless renewed.
        fenced_ack: Whether the network refuses an acknowledgement of a claim that went to another.
        limit: Simulated seconds after which the program counts as stuck.
        delivery: How jobs travel that do not say it themselves.
        options: Options of every runner.
    """

    def __init__(
        self,
        seed: int,
        *,
        faults: Faults | None = None,
        ack_wait: float = 10.0,
        fenced_ack: bool = True,
        limit: float = 3600.0,
        delivery: Literal["at_least_once", "at_most_once"] = "at_least_once",
        **options: Any,
    ) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.trace: list[TraceEvent] = []
        self.network = SimulatedNetwork(
            Random(self.rng.getrandbits(64)),
            faults or Faults(),
            MemoryBroker(ack_wait=ack_wait, fenced_ack=fenced_ack, wall_clock=anyio.current_time),
            self.trace.append,
        )
        self._limit = limit
        self._delivery = delivery
        self._options = options
        self._nodes: dict[str, _Node] = {}
        self._task_group: anyio.abc.TaskGroup | None = None

    @property
    def now(self) -> float:
        """The simulated time, in seconds."""
        return anyio.current_time()

    def run(self, program: Callable[[Simulation], Awaitable[ResultT]]) -> ResultT:
        """Run `program(self)` and return its result. May be called once.

        Raises:
            SimulationError: It did not end within `limit` simulated seconds.
        """
        # The two switches make trio's choices depend on the seed alone; it has them for exactly this use.
        name_workers_from(Random(self.seed))
        vars(trio_run)["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
        trio_run._r.seed(self.seed)
        with _without_asyncio():
            return trio.run(self._run, program, clock=MockClock(autojump_threshold=0))

    async def start(self, label: str, *workers: BaseWorker, **options: Any) -> WorkerRunner:
        """Start a runner with workers; after a crash of the label, its next life. Returns when it is ready, or dead."""
        assert self._task_group is not None
        link = self.network.transport(label)
        bus = NetworkBus(link, delivery=self._delivery, rng=Random(self.rng.getrandbits(64)))
        runner = WorkerRunner(
            label,
            bus,
            handle_sigint=False,
            handle_sigterm=False,
            rng=Random(self.rng.getrandbits(64)),
            **{**self._options, **options},
        )
        await runner.add_workers(*workers)
        ready = anyio.Event()
        runner.add_event_handler("on_ready", lambda _runner: ready.set())
        if label in self._nodes:
            raise ValueError(f"runner {label!r} lives already: crash() or end() it first")
        node = self._nodes[label] = _Node(runner, bus, ready)
        self._task_group.start_soon(self._live, node)
        await ready.wait()
        self.network.note(label, "ready", bus.address)
        return runner

    def runner(self, label: str) -> WorkerRunner | None:
        """The runner of that label that lives now."""
        node = self._nodes.get(label)
        return node.runner if node is not None else None

    def bus(self, label: str) -> NetworkBus:
        """The bus of the runner of that label."""
        return self._nodes[label].bus

    def alive(self) -> list[str]:
        """Labels of the runners that live."""
        return list(self._nodes)

    def crash(self, label: str) -> None:
        """Kill a runner without clean-up: from now on nothing of it reaches anybody."""
        node = self._nodes.pop(label)
        node.ended.set()
        node.ready.set()
        node.process.resume()
        self.network.kill(label)
        node.scope.cancel()

    async def end(self, label: str) -> None:
        """End a runner gracefully and wait for it."""
        node = self._nodes[label]
        await node.runner.end()
        await node.ended.wait()
        if self._nodes.get(label) is node:
            del self._nodes[label]

    def pause(self, label: str) -> None:
        """Let a runner's process stand still, as SIGSTOP does: none of its tasks takes a step until `resume`."""
        self._nodes[label].process.pause()
        self.network.note(label, "pause", "")

    def resume(self, label: str) -> None:
        """Let it go on: what should have happened meanwhile happens late."""
        self._nodes[label].process.resume()
        self.network.note(label, "resume", "")

    def partition(self, label: str) -> None:
        """Cut a runner off from the network, until `heal`."""
        self.network.partition(label)

    def black_hole(self, label: str) -> None:
        """Let nothing flow to or from a runner until `heal`; of what it sends some arrives then."""
        self.network.black_hole(label)

    def heal(self, label: str) -> None:
        """Connect it again."""
        self.network.heal(label)

    def open_ends(self) -> str:
        """Who still waits for what, for the message of a run that does not end."""
        ends = [
            f"{group!r} of {label}"
            for label, node in self._nodes.items()
            for group in core_of_runner(node.runner).open_groups
        ]
        for label, node in self._nodes.items():
            for name in node.runner.registry.local_workers:
                worker = node.runner.get_worker(name)
                ends += [f"job {job_id} at {name} of {label}" for job_id in (worker.active_jobs if worker else ())]
            if not core_of_runner(node.runner).accepting:
                ends.append(f"{node.runner!r} is ending")
        return "; ".join(ends) or "no job or group is open"

    async def _live(self, node: _Node) -> None:
        node.process.enter()
        with node.scope:
            await node.runner.run(auto_end=False)
        node.ended.set()

    async def _run(self, program: Callable[[Simulation], Awaitable[ResultT]]) -> ResultT:
        let_processes_pause()
        results: list[ResultT] = []
        stuck: list[str] = []

        async def watch(scope: anyio.CancelScope, what: str) -> None:
            await anyio.sleep(self._limit)
            stuck.append(f"seed {self.seed}: {what} after {self._limit:g} simulated seconds; {self.open_ends()}")
            scope.cancel()

        async with anyio.create_task_group() as self._task_group:
            async with anyio.create_task_group() as running:
                running.start_soon(watch, running.cancel_scope, "not ended")
                try:
                    results.append(await program(self))
                finally:
                    for node in self._nodes.values():
                        node.process.resume()  # else nobody could stop it
                running.cancel_scope.cancel()
            async with anyio.create_task_group() as ending:
                ending.start_soon(watch, ending.cancel_scope, "its runners have not ended")
                for label in self.alive():
                    await self.end(label)
                ending.cancel_scope.cancel()
            self._task_group.cancel_scope.cancel()
        if stuck:
            raise SimulationError(stuck[0])
        return results[0]
