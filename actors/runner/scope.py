"""How long a runner lives: as long as a call of `run()`, or as a block; in a task of its own either way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import anyio
from anyio import CancelScope, get_cancelled_exc_class

from actors.jobs.errors import RunnerStateError
from bus.local.home import Body, GroupHome, Home, body_here

if TYPE_CHECKING:
    from collections.abc import Callable

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
    ends: bool
    told: Callable[[], None] | None
    """Called whenever it is told to end, or fails."""
    home: Home | None
    """Where it lives, or has lived."""

    def require_here(self) -> None:
        """Refuse to be used from another event loop."""

    async def connect(self) -> None:
        """Start its bus; returns early if it is ended while it waits for the network."""

    async def live(self, task_group: TaskGroup) -> None:
        """Run everything in a task group, from the first worker to the last."""

    def finish(self, reason: str, *, at_once: bool = False) -> None:
        """Begin to end."""

    def failed(self, error: BaseException) -> None:
        """Begin to end at once, since it cannot go on."""


class Scope:
    """One life of a runner. Whoever cancels it ends it in order, like any other end, and is told afterwards."""

    def __init__(self, living: Living) -> None:
        self._living = living
        self._connecting: CancelScope | None = None
        self._body: Body | None = None

    def require_new(self) -> None:
        """Refuse to live twice.

        Raises:
            RunnerStateError: It does, or has.
        """
        if self._living.home is not None:
            raise RunnerStateError(f"runner {self._living.name!r} has been run before: make a new one")

    async def run(self) -> None:
        """Live until ended, and raise what the runner failed with."""
        home = self._begin()
        await self._until_ended(home)
        if self._living.failure is not None:
            raise self._living.failure

    async def enter(self) -> None:
        """Live in the background; returns when the workers added so far were started, raises what `run()` raises."""
        home, living = self._begin(), self._living
        try:
            await living.begun.wait()
        except BaseException:
            self._give_up("its context was not entered")
            await home.wait()
            raise
        if living.failure is not None:
            await home.wait()
            raise living.failure
        self._body = body_here()
        if living.ends:
            self._body.cancel()

    async def leave(self, error: BaseException | None) -> bool:
        """End gracefully and wait; at once if the body raised. What the body raised goes on as it is.

        Returns:
            Whether the error is nothing but what told the body that the runner ends.

        Raises:
            BaseException: What the runner failed with, if that ended the body or the body has ended well.
            RunnerStateError: The caller lives in another event loop; or, on trio, is not the task that has entered.
        """
        self._living.require_here()
        living, home, body = self._living, self._living.home, self._body
        assert home is not None
        self._body = None
        elsewhere: RuntimeError | None = None
        told, rest = False, error
        try:
            if body is not None:
                told, rest = body.leave(error)
        except RuntimeError as misplaced:
            self._body, elsewhere = body, misplaced
        living.finish("its context was left", at_once=rest is not None)
        await self._until_ended(home)
        if elsewhere is not None:
            raise RunnerStateError(
                f"runner {living.name!r} has ended, but {elsewhere}: let one task do both, or start "
                "runner.run in a nursery and end it with runner.end()"
            )
        failure = living.failure
        if failure is not None and failure is not rest:
            if rest is None:
                raise failure from None
            if told and not isinstance(rest, get_cancelled_exc_class()):
                raise failure  # the body has failed since the runner had
            rest.add_note(f"the runner failed too: {type(failure).__name__}: {failure}")
        if rest is not None and rest is not error:
            raise rest
        return rest is None and error is not None

    def _begin(self) -> Home:
        self.require_new()
        self._living.told = self._told
        self._connecting = CancelScope()
        home = self._living.home = Home(self._live, f"runner {self._living.name}")
        return home

    def _told(self) -> None:
        """Cancel the body, unless it is the body that ends the runner: then it may go on until that has ended."""
        body = self._body
        if body is not None and (self._living.failure is not None or not body.here):
            body.cancel()

    async def _until_ended(self, home: Home) -> None:
        try:
            await home.ended.wait()
        except BaseException:
            self._give_up("the runner was cancelled")
            await home.wait()
            raise

    def _give_up(self, reason: str) -> None:
        assert self._connecting is not None
        self._living.finish(reason, at_once=True)
        self._connecting.cancel()

    async def _live(self) -> None:
        """Everything from the bus's start to its stop; what fails is raised where the runner was begun."""
        living, bus = self._living, self._living.bus
        try:
            await bus.attach(living.registry)
            try:
                assert self._connecting is not None
                with self._connecting:
                    await living.connect()
                if bus.started:  # else it was ended while it waited for the network
                    await self._live_connected()
            finally:
                await bus.take_back(living.registry)
        except BaseException as error:  # noqa: BLE001 - raised by `run()`
            living.failure = living.failure or error
        finally:
            living.running = False
            living.begun.set()
            if self._body is not None:
                self._body.cancel()

    async def _live_connected(self) -> None:
        tasks = GroupHome(f"workers of runner {self._living.name}", self._broken)
        try:
            await self._living.live(await tasks.open())
        finally:
            await tasks.close()

    def _broken(self) -> None:
        self._living.finish("something of the machinery has failed", at_once=True)
