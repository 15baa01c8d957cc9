"""How long a runner lives: as long as a call of `run()`, or in the background of a block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio import CancelScope, get_cancelled_exc_class

from actors.jobs.errors import RunnerStateError

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup

    from bus import WorkerBus, WorkerRegistry


class Living(Protocol):
    """A runner, as its scope has it live."""

    name: str
    bus: WorkerBus
    registry: WorkerRegistry
    begun: anyio.Event
    failure: BaseException | None
    running: bool

    async def connect(self) -> None:
        """Start its bus; returns early if it is ended while it waits for the network."""

    async def live(self, task_group: TaskGroup) -> None:
        """Run everything in a task group, from the first worker to the last."""

    def finish(self, reason: str, *, at_once: bool = False) -> None:
        """Begin to end."""


class Scope:
    """One life of a runner. Whoever cancels it ends it in order, like any other end, and is told afterwards."""

    def __init__(self, living: Living) -> None:
        self._living = living
        self._used = False
        self._over = anyio.Event()
        self._background: TaskGroup | None = None

    async def run(self) -> None:
        """Live until ended, and raise what the runner failed with."""
        self._require_new()
        self._used = True
        living, bus = self._living, self._living.bus
        await bus.attach(living.registry)
        owns_bus = not bus.started
        try:
            if owns_bus:
                await living.connect()
            if bus.started:  # else it was ended while it waited for the network
                await self._run()
        finally:
            if owns_bus:
                await bus.stop()
            bus.detach(living.registry)
        if living.failure is not None:
            raise living.failure

    async def enter(self) -> None:
        """Live in the background; returns when the workers added so far were started, raises what `run()` raises."""
        self._require_new()
        self._background = anyio.create_task_group()
        await self._background.__aenter__()
        self._background.start_soon(self._run_in_background)
        try:
            await self._living.begun.wait()
        except BaseException as error:
            await self.leave(type(error), error, error.__traceback__)
            raise
        if self._living.failure is not None:
            await self.leave(None, None, None)

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End gracefully and wait; at once if the body raised. What the body raised goes on as it is."""
        self._living.finish("its context was left", at_once=error is not None)
        assert self._background is not None
        suppressed = error is None
        if isinstance(error, get_cancelled_exc_class()):
            suppressed = bool(await self._background.__aexit__(kind, error, trace))
        else:
            await self._background.__aexit__(None, None, None)
        if self._living.failure is not None and suppressed:
            raise self._living.failure from None
        return suppressed

    def _require_new(self) -> None:
        if self._used:
            raise RunnerStateError(f"runner {self._living.name!r} has been run before: make a new one")

    async def _run(self) -> None:
        interrupted: BaseException | None = None
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._live)
            try:
                await self._over.wait()
            except BaseException as error:  # noqa: BLE001 - re-raised once everybody has been told
                interrupted = error
                self._living.finish("the runner was cancelled", at_once=True)
            with CancelScope(shield=True):
                while not self._over.is_set():
                    with contextlib.suppress(get_cancelled_exc_class()):  # a bare asyncio task may be cancelled again
                        await self._over.wait()
        if interrupted is not None:
            raise interrupted

    async def _live(self) -> None:
        """Run everything, shielded from whoever cancels `run()`."""
        living = self._living
        try:
            with CancelScope(shield=True):
                async with anyio.create_task_group() as task_group:
                    await living.live(task_group)
        except BaseException as error:  # noqa: BLE001 - raised by `run()`
            living.failure = living.failure or error
        finally:
            living.running = False
            self._over.set()

    async def _run_in_background(self) -> None:
        living = self._living
        try:
            await self.run()
        except Exception as error:  # noqa: BLE001 - raised where the context is entered or left
            living.failure = error
            if living.begun.is_set():
                assert self._background is not None
                self._background.cancel_scope.cancel()
        finally:
            living.begun.set()
