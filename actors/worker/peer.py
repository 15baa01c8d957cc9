"""The verbs of a worker towards other workers: messages, children, activation, watches, topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from actors.worker.dispatch import takes_place
from bus import (
    BusActivateWorkerMessage,
    BusDeactivateWorkerMessage,
    BusMessage,
    BusTopicMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    WorkerLostData,
    WorkerReadyData,
    WorkerRegistry,
    check_name,
    travel,
)

if TYPE_CHECKING:
    from actors.jobs.policies import RestartPolicy
    from actors.runner.runner import WorkerRunner
    from actors.runner.supervisor import Factory
    from actors.worker.worker import BaseWorker, WorkerActivationArgs
    from bus.local.mailbox import Room


class Peer:
    """Reaches other workers by name."""

    _active: bool
    _parent: str | None
    _room: Room | None
    _watched: dict[str, None] | None

    @property
    def name(self) -> str:
        """The name others reach it under."""
        raise NotImplementedError

    @property
    def registry(self) -> WorkerRegistry:
        """The registry of its runner."""
        raise NotImplementedError

    def _host_for(self, action: str) -> WorkerRunner:
        raise NotImplementedError

    def _on_ready(self, data: WorkerReadyData) -> None:
        raise NotImplementedError

    def _on_lost(self, data: WorkerLostData) -> None:
        raise NotImplementedError

    async def send_bus_message(self, message: BusMessage) -> None:
        """Send any message; waits and raises as `WorkerBus.send`."""
        host = self._host_for("send a message")
        if not isinstance(message, BusMessage):
            raise TypeError(f"a BusMessage is needed, not {message!r:.100}")
        room = self._room
        if message.target == self.name and takes_place(message) and room is not None and room.taken >= room.capacity:
            raise room.refusal()  # who waits for room in his own mailbox waits for himself
        await host.bus.send(message)

    async def send_bus_error_message(self, error: str) -> None:
        """Report an error: to the parent's `on_worker_failed`, or, from a root worker, to the runners' `on_error`."""
        host = self._host_for("report an error")
        if self._parent is not None:
            host.bus.post(BusWorkerLocalErrorMessage(source=self.name, target=self._parent, error=error))
        else:
            host.bus.post(BusWorkerErrorMessage(source=self.name, target=host.name, error=error))

    async def add_workers(self, *workers: BaseWorker, watch: bool = True) -> None:
        """Add children: they start now, end before this worker does, and are stopped with it.

        Args:
            workers: New workers.
            watch: Whether this worker's `on_worker_ready` and `on_worker_lost` are called for them.

        Raises:
            DuplicateNameError: A name is taken; the workers named before it were added.
            RunnerStateError: A worker was added before, or this one is not in a running runner.
        """
        await self._host_for("add workers").add_children(cast("BaseWorker", self), workers, watch=watch)

    async def supervise(self, *factories: Factory, restart: RestartPolicy | None = None) -> None:
        """Add children that are made again when their `start()` or `run()` raises; this worker watches them.

        Args:
            factories: Functions without arguments that make one worker each, of the same name every time.
            restart: Whom to make again, how often and how soon; the default is `RestartPolicy()`. When it gives up,
                this worker fails with `SupervisionError`.
        """
        await self._host_for("supervise workers").supervise_children(cast("BaseWorker", self), factories, restart)

    async def activate_worker(
        self, worker_name: str, *, args: WorkerActivationArgs | None = None, deactivate_self: bool = False
    ) -> None:
        """Make a worker active; its `on_activated` gets `args`.

        Args:
            worker_name: Whom.
            args: What to hand over.
            deactivate_self: Become inactive first, so that the two are never active together.
        """
        check_name("worker name", worker_name)
        if deactivate_self and self._active:
            await self.deactivate_worker(self.name)
        message = BusActivateWorkerMessage(source=self.name, target=worker_name, args=args.to_dict() if args else None)
        await self.send_bus_message(message)

    async def deactivate_worker(self, worker_name: str) -> None:
        """Make a worker inactive: it gets no new jobs or data messages; those wait. Jobs that run go on."""
        check_name("worker name", worker_name)
        await self.send_bus_message(BusDeactivateWorkerMessage(source=self.name, target=worker_name))

    async def watch_workers(self, *worker_names: str) -> None:
        """Be told when these come up (`on_worker_ready`; at once for those that are) and go (`on_worker_lost`)."""
        registry = self._host_for("watch workers").registry
        if self._watched is None:
            self._watched = {}
        for worker_name in worker_names:
            self._watched[check_name("worker name", worker_name)] = None
            await registry.watch(worker_name, self._on_ready, self._on_lost)

    async def unwatch_workers(self, *worker_names: str) -> None:
        """Stop being told."""
        for worker_name in worker_names:
            if self._watched is not None:
                self._watched.pop(worker_name, None)
            await self.registry.unwatch(worker_name, self._on_ready)

    async def publish(self, topic: str, data: Any = None) -> int:
        """Send `data` to every worker with a `@subscribe(topic)` method, each a copy, in the order published.

        Over a network each other runner that has a follower gets it once, and no other runner does. It is stored and
        sent again until the network has it, so it arrives in order and once, as long as that runner lives. It does not
        reach a follower that this runner does not know of: not yet, or not any more, after it has ended or this runner
        was cut off for five leases. One that has 10,000 messages more than its mailbox holds waiting drops and counts
        it. Nobody is told whether it was handled.

        Returns:
            How many subscribers in this process got it; those elsewhere are not counted.

        Raises:
            EncodeError: It cannot travel, or is too big for the network; nobody got it.
            MailboxFullError: A subscriber in this process had no room within 30 seconds, or so much waits to be sent to
                another runner that there was none. Those before it got it; other runners come first.
        """
        host = self._host_for("publish")
        message = BusTopicMessage(source=self.name, topic=check_name("topic", topic), data=travel(data, "data"))
        return await host.bus.publish(message)
