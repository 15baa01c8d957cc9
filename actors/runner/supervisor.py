"""Supervision: children that are made again when they fail."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Protocol

import anyio
import msgspec

from actors.host import Host
from actors.jobs.errors import RunnerStateError, SupervisionError, describe
from actors.jobs.lifecycle import ALIVE
from actors.jobs.policies import Intensity, RestartPolicy
from actors.worker.worker import BaseWorker, Factory
from bus.local.tasks import is_cancellation
from bus.log import log

if TYPE_CHECKING:
    from actors.worker.core import WorkerCore


class Nursery(Protocol):
    """Where a supervisor adds workers and stops them: a roster."""

    recovering: dict[WorkerCore, None]
    """The children that have failed and are made again now."""

    @property
    def host(self) -> SupervisingHost:
        """The runner."""

    async def add(
        self, worker: BaseWorker, *, parent: WorkerCore | None = None, supervisor: Supervisor | None = None
    ) -> WorkerCore:
        """Take a worker in."""

    async def stop(self, core: WorkerCore, reason: str) -> None:
        """Stop a worker, its children first."""

    def may_restart(self, parent: WorkerCore | None) -> bool:
        """Whether children of `parent` may be started now."""

    def parent_failed(self, parent: WorkerCore | None, error: BaseException) -> None:
        """A supervisor has given up: its parent fails."""


class SupervisingHost(Host, Protocol):
    """A runner, to a supervisor."""

    rng: Random

    def report(self, core: WorkerCore, what: str, error: BaseException) -> None:
        """Log what a worker's own code raised, and tell those who listen for errors."""

    def worker_stopped(self) -> None:
        """A worker is gone, and made again or not."""


class _Child(msgspec.Struct, eq=False):
    """A child of a supervisor: who makes it, and its present life."""

    factory: Factory
    core: WorkerCore


class Supervisor:
    """The children of one `supervise` call, and what happens when one of them fails.

    1. A failed child is stopped like any other: its requesters are told, jobs it had not started wait for its
       successor.
    2. With `one_for_one` each child is recovered for itself. Otherwise failures are handled one after the other,
       because what one of them replaces may be what has failed meanwhile.
    3. A factory that raises counts like a failure of what it was to make.
    """

    def __init__(
        self, nursery: Nursery, parent: WorkerCore | None, factories: tuple[Factory, ...], policy: RestartPolicy
    ) -> None:
        self._nursery = nursery
        self._parent = parent
        self._factories = factories
        self._policy = policy
        self._intensity = Intensity(policy)
        self._children: list[_Child] = []
        self._failed: dict[WorkerCore, str] = {}
        self._busy = False
        self._apart = policy.strategy == "one_for_one"

    @property
    def names(self) -> list[str]:
        """Names of the children."""
        return [child.core.name for child in self._children]

    async def start(self) -> None:
        """Make and add the children, in order."""
        for factory in self._factories:
            self._children.append(_Child(factory, await self._make(factory)))

    def child_failed(self, core: WorkerCore, error: str) -> bool:
        """Take note of a failure. Whether something will be done about it."""
        return self._policy.restart != "temporary" and self._note(core, error)

    def child_returned(self, core: WorkerCore) -> bool:
        """Take note of a child whose `run()` has returned. Whether something will be done about it."""
        return self._policy.restart == "permanent" and self._note(core, "its run() returned")

    def exhausted(self) -> bool:
        """Whether the failure that was noted last makes it give up."""
        before = len(self._failed) - 1 if self._apart else 0
        return self._intensity.exhausted(self._nursery.host.tasks.now(), more=before)

    def _note(self, core: WorkerCore, error: str) -> bool:
        if self._child(core) is None:
            return False
        self._failed[core] = error
        if self._apart or not self._busy:
            self._busy = True
            self._nursery.recovering[core] = None
            self._nursery.host.tasks.spawn(self._recover, core)
        return True

    def _child(self, core: WorkerCore) -> _Child | None:
        return next((child for child in self._children if child.core is core), None)

    async def _recover(self, first: WorkerCore) -> None:
        try:
            await self._restart(first, self._failed.pop(first))
            while self._failed and not self._apart:
                core = next(iter(self._failed))
                await self._restart(core, self._failed.pop(core))
        except BaseException as error:
            if is_cancellation(error):
                raise
            self._give_up(error)
        finally:
            self._busy = False
            del self._nursery.recovering[first]
            self._nursery.host.worker_stopped()

    async def _restart(self, core: WorkerCore, error: str) -> None:
        failed = self._child(core)
        if failed is None:  # replaced together with another one meanwhile, or given up on
            return
        host = self._nursery.host
        count = self._count(core.name, error)
        affected = self._policy.affected(self._children.index(failed), len(self._children))
        children = [child for position in affected if self._restarts(child := self._children[position], failed)]
        for child in reversed(children):
            self._failed.pop(child.core, None)
            await self._nursery.stop(child.core, f"restarted because worker {core.name!r} failed")
        await anyio.sleep(self._policy.backoff.delay(count, host.rng))
        if not self._nursery.may_restart(self._parent):
            return
        log().info("restarting workers", workers=[child.core.name for child in children], restart=count, error=error)
        for child in children:
            await self._make_again(child)

    def _count(self, name: str, error: str) -> int:
        """Count a failure. How many there were lately.

        Raises:
            SupervisionError: More than the policy allows.
        """
        host, policy = self._nursery.host, self._policy
        count = self._intensity.failed(host.tasks.now())
        if count is None:
            who = f"worker {self._parent.name!r}" if self._parent else f"runner {host.name!r}"
            raise SupervisionError(who, name, policy.max_restarts, policy.period, error)
        return count

    def _restarts(self, child: _Child, failed: _Child) -> bool:
        """Whether a child is made again: not one that has ended by itself or was removed."""
        return child is failed or child.core in self._failed or child.core.state in ALIVE

    async def _make_again(self, child: _Child) -> None:
        """Make a child anew, as often as its factory fails and the policy allows."""
        host = self._nursery.host
        while child in self._children and self._nursery.may_restart(self._parent):
            try:
                child.core = await self._make(child.factory, replaces=child.core)
            except BaseException as error:
                if is_cancellation(error):
                    raise
                host.report(child.core, "could not be made again", error)
                count = self._count(child.core.name, str(describe(error)))
                await anyio.sleep(self._policy.backoff.delay(count, host.rng))
            else:
                return

    async def _make(self, factory: Factory, replaces: WorkerCore | None = None) -> WorkerCore:
        worker = factory()
        if replaces is not None and worker is replaces.instance:
            raise RunnerStateError(
                f"the factory of worker {replaces.name!r} gave the same object again: make a new one"
            )
        return await self._nursery.add(worker, parent=self._parent, supervisor=self)

    def _give_up(self, error: BaseException) -> None:
        self._children.clear()
        self._nursery.parent_failed(self._parent, error)
