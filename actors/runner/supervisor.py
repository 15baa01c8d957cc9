"""Supervision: children that are made again when they fail."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Protocol

import anyio

from actors.host import Host
from actors.jobs.errors import RunnerStateError, SupervisionError
from actors.jobs.lifecycle import ALIVE
from actors.jobs.policies import Intensity, RestartPolicy
from actors.worker.worker import BaseWorker, Factory
from bus.local.tasks import is_cancellation
from bus.log import log

if TYPE_CHECKING:
    from actors.worker.core import WorkerCore


class Nursery(Protocol):
    """Where a supervisor adds workers and stops them: a roster."""

    recovering: dict[Supervisor, None]
    """The supervisors that are at work now."""

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

    def worker_stopped(self) -> None:
        """A worker is gone, and made again or not."""


class Supervisor:
    """The children of one `supervise` call, and what happens when one of them fails.

    Failures are handled one after the other. A failed child is stopped like any other: its requesters are told, jobs it
    had not started wait for its successor.
    """

    def __init__(
        self, nursery: Nursery, parent: WorkerCore | None, factories: tuple[Factory, ...], policy: RestartPolicy
    ) -> None:
        self._nursery = nursery
        self._parent = parent
        self._factories = factories
        self._policy = policy
        self._intensity = Intensity(policy)
        self._children: list[WorkerCore] = []
        self._failed: dict[WorkerCore, str] = {}

    @property
    def names(self) -> list[str]:
        """Names of the children."""
        return [child.name for child in self._children]

    async def start(self) -> None:
        """Make and add the children, in order."""
        for factory in self._factories:
            self._children.append(await self._make(factory))

    def child_failed(self, child: WorkerCore, error: str) -> bool:
        """Take note of a failure. Whether something will be done about it."""
        if child not in self._children:
            return False
        self._failed[child] = error
        if self not in self._nursery.recovering:
            self._nursery.recovering[self] = None
            self._nursery.host.tasks.spawn(self._recover)
        return True

    def exhausted(self) -> bool:
        """Whether the next failure makes it give up."""
        return self._intensity.exhausted(self._nursery.host.tasks.now())

    async def _recover(self) -> None:
        try:
            while self._failed:
                child = next(iter(self._failed))
                await self._restart(child, self._failed.pop(child))
        except BaseException as error:
            if is_cancellation(error):
                raise
            self._give_up(error)  # also a factory that raises is a failure of the parent
        finally:
            del self._nursery.recovering[self]
            self._nursery.host.worker_stopped()

    async def _restart(self, failed: WorkerCore, error: str) -> None:
        if failed not in self._children:  # replaced together with another one meanwhile
            return
        host = self._nursery.host
        count = self._intensity.failed(host.tasks.now())
        if count is None:
            raise SupervisionError(
                f"worker {self._parent.name!r}" if self._parent else f"runner {host.name!r}",
                failed.name,
                self._policy.max_restarts,
                self._policy.period,
                error,
            )
        positions = [
            position
            for position in self._policy.affected(self._children.index(failed), len(self._children))
            if self._restarts(self._children[position], failed)
        ]
        old = [self._children[position] for position in positions]
        for child in reversed(old):
            self._failed.pop(child, None)
            await self._nursery.stop(child, f"restarted because worker {failed.name!r} failed")
        await anyio.sleep(self._policy.backoff.delay(count, host.rng))
        if not self._nursery.may_restart(self._parent):
            return
        log().info("restarting workers", workers=[child.name for child in old], restart=count, error=error)
        for position in positions:
            self._children[position] = await self._make(self._factories[position], replaces=self._children[position])

    def _restarts(self, child: WorkerCore, failed: WorkerCore) -> bool:
        """Whether a child is made again: not one that has ended by itself or was removed."""
        return child is failed or child in self._failed or child.state in ALIVE

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
