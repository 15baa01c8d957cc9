"""The registry: who serves which name, here and elsewhere, and who wants to know."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec

from bus.local.tasks import is_cancellation
from bus.log import log, text_of
from bus.messages import WorkerRegistryEntry
from bus.names import nearest

WATCH_TIMEOUT = 10.0
"""Seconds a watch handler may take: whoever starts and stops workers waits for it."""


class WorkerReadyData(msgspec.Struct, frozen=True):
    """A worker that is ready.

    Attributes:
        worker_name: Its name.
        runner: Name of the runner that hosts it.
        parent: Name of its parent, None for a root worker.
        active: Whether it takes jobs.
        started_at: Unix time when it became ready.
        address: Address of its runner on the network; empty in process.
        topics: The topics it follows.
    """

    worker_name: str
    runner: str
    parent: str | None = None
    active: bool = True
    started_at: float | None = None
    address: str = ""
    topics: tuple[str, ...] = ()


class WorkerLostData(msgspec.Struct, frozen=True):
    """A worker that is gone.

    Attributes:
        worker_name: Its name.
        runner: Name of the runner that hosted it.
        reason: Why, for people.
    """

    worker_name: str
    runner: str
    reason: str | None = None


class WorkerErrorData(msgspec.Struct, frozen=True):
    """A worker that failed or reported an error.

    Attributes:
        worker_name: Its name.
        error: Description of the error.
        restarting: Whether its supervisor starts it again.
    """

    worker_name: str
    error: str
    restarting: bool = False


ReadyHandler = Callable[[WorkerReadyData], Awaitable[None] | None]
LostHandler = Callable[[WorkerLostData], Awaitable[None] | None]
ChangeListener = Callable[[WorkerReadyData | WorkerLostData], None]


class RegistryStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `WorkerRegistry`: names here, names elsewhere, watches, topics that are followed elsewhere.

    All are bounded by their owners.
    """

    local_workers: int
    remote_workers: int
    watches: int
    topics: int = 0


class WorkerRegistry:
    """All workers one runner knows, by name; one name may be served by several runners.

    Look-ups cost one dictionary access, whatever the number of workers. Watchers are told once for each worker that
    comes up and once for each that goes, in that order.
    """

    def __init__(self, runner_name: str) -> None:
        self.serving: dict[str, None] = {}
        """The names that somebody serves who takes jobs now; it changes with what is registered, in `_changed`."""
        self._runner_name = runner_name
        self._local: dict[str, WorkerReadyData] = {}
        self._remote: dict[str, dict[str, WorkerReadyData]] = {}
        self._followers: dict[str, dict[str, dict[str, None]]] = {}  # topic, address, names of workers
        self._watches: dict[str, dict[ReadyHandler, LostHandler | None]] = {}
        self._listeners: list[ChangeListener] = []

    @property
    def runner_name(self) -> str:
        """Name of the runner that owns this registry."""
        return self._runner_name

    @property
    def local_workers(self) -> list[str]:
        """Names of the workers of this runner."""
        return list(self._local)

    @property
    def remote_workers(self) -> list[str]:
        """Names of the workers of other runners, each once."""
        return list(self._remote)

    def get(self, worker_name: str) -> WorkerReadyData | None:
        """The worker of that name: the local one if there is one, else one of the remote ones, else None."""
        local = self._local.get(worker_name)
        if local is not None:
            return local
        replicas = self._remote.get(worker_name)
        return next(iter(replicas.values())) if replicas else None

    def replicas(self, worker_name: str) -> list[WorkerReadyData]:
        """Every runner's worker of that name, the local one first."""
        local = self._local.get(worker_name)
        remote = self._remote.get(worker_name)
        return [*([local] if local else ()), *(remote.values() if remote else ())]

    def remote_replicas(self, worker_name: str) -> list[WorkerReadyData]:
        """The workers of that name on other runners."""
        return list(self._remote.get(worker_name, {}).values())

    def local(self) -> list[WorkerReadyData]:
        """The workers of this runner."""
        return list(self._local.values())

    def entries(self) -> list[WorkerRegistryEntry]:
        """The workers of this runner, as they are announced to others."""
        return [
            WorkerRegistryEntry(
                name=data.worker_name,
                parent=data.parent,
                active=data.active,
                started_at=data.started_at,
                topics=data.topics,
            )
            for data in self._local.values()
        ]

    def followers(self, topic: str) -> tuple[str, ...]:
        """Addresses of the other runners on which a worker follows a topic, each once."""
        return tuple(self._followers.get(topic, ()))

    def __contains__(self, worker_name: object) -> bool:
        return worker_name in self._local or worker_name in self._remote

    def available(self, worker_name: str) -> bool:
        """Whether somebody serves that name and takes jobs now."""
        return worker_name in self.serving

    def who_is_alive(self, worker_name: str) -> str:
        """A sentence for error messages: the names nearest to a name that nobody serves."""
        known = [name for name in dict.fromkeys([*self._local, *self._remote]) if name[0] != "_"]  # those are clients
        if not known:
            return "no worker is registered"
        close = nearest(worker_name, known)
        shown = ", ".join(repr(name) for name in (close or known)[:8])
        return f"did you mean {shown}?" if close else f"registered are {shown}{', ...' if len(known) > 8 else ''}"  # noqa: PLR2004

    async def watch(self, worker_name: str, handler: ReadyHandler, lost: LostHandler | None = None) -> None:
        """Be told when a worker comes up, and with `lost` when it goes.

        The same handler for the same name twice is one watch. If the worker is there already, `handler` is called
        before this returns.

        Args:
            worker_name: Whom to watch.
            handler: Called with `WorkerReadyData`; sync or async. What it raises is logged; it is cancelled after 10 s.
            lost: Called with `WorkerLostData`.
        """
        watches = self._watches.setdefault(worker_name, {})
        if handler in watches:
            return
        watches[handler] = lost
        for data in self.replicas(worker_name):
            await _call(handler, data)

    async def unwatch(self, worker_name: str, handler: ReadyHandler) -> None:
        """Stop telling `handler`. Does nothing if it was not watching."""
        watches = self._watches.get(worker_name, {})
        watches.pop(handler, None)
        if not watches:
            self._watches.pop(worker_name, None)

    async def register(self, data: WorkerReadyData) -> bool:
        """Enter a worker, or the change of one. True if its runner was not known to serve this name."""
        local = data.runner == self._runner_name
        table = self._local if local else self._remote.setdefault(data.worker_name, {})
        key = data.worker_name if local else data.runner
        known = table.get(key)
        if known is not None and known.address != data.address:  # another life of that runner
            await self.unregister(data.worker_name, data.runner, reason="its runner restarted")
            return await self.register(data)
        table[key] = data
        if not local:
            self._unfollow(known)
            for topic in data.topics:
                self._followers.setdefault(topic, {}).setdefault(data.address, {})[data.worker_name] = None
        if known != data:
            self._changed(data)
        if known is None:
            for ready in tuple(self._watches.get(data.worker_name, ())):
                await _call(ready, data)
        return known is None

    async def unregister(self, worker_name: str, runner: str | None = None, *, reason: str | None = None) -> bool:
        """Remove a worker of this or another runner. False if it was not there."""
        runner = runner or self._runner_name
        if runner == self._runner_name:
            data = self._local.pop(worker_name, None)
        else:
            replicas = self._remote.get(worker_name, {})
            data = replicas.pop(runner, None)
            if not replicas:
                self._remote.pop(worker_name, None)
            self._unfollow(data)
        if data is None:
            return False
        gone = WorkerLostData(worker_name=worker_name, runner=runner, reason=reason)
        self._changed(gone)
        for lost in tuple(self._watches.get(worker_name, {}).values()):
            if lost is not None:
                await _call(lost, gone)
        return True

    async def replace_runner(self, runner: str, address: str, entries: list[WorkerRegistryEntry]) -> None:
        """Take over another runner's whole list of workers."""
        if runner == self._runner_name:
            return
        named = {entry.name: entry for entry in entries}
        for name in [name for name, replicas in self._remote.items() if runner in replicas and name not in named]:
            await self.unregister(name, runner, reason="its runner no longer has it")
        for entry in entries:
            await self.register(
                WorkerReadyData(entry.name, runner, entry.parent, entry.active, entry.started_at, address, entry.topics)
            )

    async def forget_runner(self, runner: str, *, reason: str | None = None) -> None:
        """Remove all workers of another runner."""
        names = [name for name, replicas in self._remote.items() if runner in replicas]
        for name in names:
            await self.unregister(name, runner, reason=reason)

    def listen(self, listener: ChangeListener) -> None:
        """Call `listener` at once for every change, before the watchers. It must not raise."""
        self._listeners.append(listener)

    def unlisten(self, listener: ChangeListener) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def statistics(self) -> RegistryStatistics:
        """How much is in the registry now."""
        watches = sum(len(watches) for watches in self._watches.values())
        return RegistryStatistics(len(self._local), len(self._remote), watches, len(self._followers))

    def _unfollow(self, data: WorkerReadyData | None) -> None:
        if data is None:
            return
        for topic in dict.fromkeys(data.topics):
            addresses = self._followers[topic]
            del addresses[data.address][data.worker_name]
            if not addresses[data.address]:
                del addresses[data.address]
            if not addresses:
                del self._followers[topic]

    def _changed(self, change: WorkerReadyData | WorkerLostData) -> None:
        if any(data.active for data in self.replicas(change.worker_name)):
            self.serving[change.worker_name] = None
        else:
            self.serving.pop(change.worker_name, None)
        for listener in tuple(self._listeners):
            listener(change)


async def _call(handler: Callable[[Any], Awaitable[None] | None], data: object) -> None:
    try:
        result = handler(data)
        if inspect.isawaitable(result):
            with anyio.move_on_after(WATCH_TIMEOUT) as patience:
                await result
            if patience.cancelled_caught:
                log().error("watch handler took too long and was cancelled", handler=text_of(handler))
    except BaseException as error:  # one watcher's defect must not hide the news from the others
        if is_cancellation(error):
            raise
        log().error("watch handler failed", handler=text_of(handler), error=text_of(error), exc_info=True)
