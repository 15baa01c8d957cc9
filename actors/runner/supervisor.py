"""Supervision: children that are made again when they fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from actors.jobs.errors import RunnerStateError, SupervisionError
from actors.jobs.lifecycle import ALIVE
from actors.jobs.policies import Intensity, RestartPolicy
from bus.local.tasks import is_cancellation
from bus.log import log

if TYPE_CHECKING:
    from actors.runner.roster import Roster
    from actors.worker.worker import BaseWorker


Factory = Callable[[], "BaseWorker"]
"""Makes a worker; called again for each restart, and must give it the same name every time."""


class Supervisor:
    """The children of one `supervise` call, and what happens when one of them fails.

    Failures are handled one after the other. A failed child is stopped like any other: its requesters are told, jobs it
    had not started wait for its successor.
    """

    def __init__(
        self, roster: Roster, parent: BaseWorker | None, factories: tuple[Factory, ...], policy: RestartPolicy
    ) -> None:
        self._roster = roster
        self._parent = parent
        self._factories = factories
        self._policy = policy
        self._intensity = Intensity(policy)
        self._children: list[BaseWorker] = []
        self._failed: dict[BaseWorker, str] = {}

    @property
    def names(self) -> list[str]:
        """Names of the children."""
        return [child.name for child in self._children]

    async def start(self) -> None:
        """Make and add the children, in order."""
        for factory in self._factories:
            self._children.append(await self._make(factory))

    def child_failed(self, child: BaseWorker, error: str) -> bool:
        """Take note of a failure. Whether something will be done about it."""
        if child not in self._children:
            return False
        self._failed[child] = error
        if self not in self._roster.recovering:
            self._roster.recovering[self] = None
            self._roster.host.tasks.spawn(self._recover)
        return True

    def exhausted(self) -> bool:
        """Whether the next failure makes it give up."""
        return self._intensity.exhausted(self._roster.host.tasks.now())

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
            del self._roster.recovering[self]
            self._roster.host.worker_stopped()

    async def _restart(self, failed: BaseWorker, error: str) -> None:
        if failed not in self._children:  # replaced together with another one meanwhile
            return
        host = self._roster.host
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
            await self._roster.stop(child, f"restarted because worker {failed.name!r} failed")
        await anyio.sleep(self._policy.backoff.delay(count, host.rng))
        if not self._roster.may_restart(self._parent):
            return
        log().info("restarting workers", workers=[child.name for child in old], restart=count, error=error)
        for position in positions:
            self._children[position] = await self._make(self._factories[position], replaces=self._children[position])

    def _restarts(self, child: BaseWorker, failed: BaseWorker) -> bool:
        """Whether a child is made again: not one that has ended by itself or was removed."""
        return child is failed or child in self._failed or child._state in ALIVE

    async def _make(self, factory: Factory, replaces: BaseWorker | None = None) -> BaseWorker:
        worker = factory()
        if replaces is not None and worker is replaces:
            raise RunnerStateError(f"the factory of worker {worker.name!r} gave the same object again: make a new one")
        await self._roster.add(worker, parent=self._parent, supervisor=self)
        return worker

    def _give_up(self, error: BaseException) -> None:
        self._children.clear()
        self._roster.parent_failed(self._parent, error)
