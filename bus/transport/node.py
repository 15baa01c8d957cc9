"""What the parts of a network bus need of the node they work for: a port that its session implements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bus.local.mailbox import Room
from bus.local.registry import WorkerRegistry
from bus.local.tasks import Tasks
from bus.messages import BusMessage
from bus.transport.outbox import Lease
from bus.transport.transport import Lane


class Node(Protocol):
    """One process on a network, from its start to its stop."""

    @property
    def address(self) -> str:
        """Name of the runner and this life of it."""

    @property
    def registry(self) -> WorkerRegistry:
        """Who serves which name, here and elsewhere."""

    @property
    def tasks(self) -> Tasks:
        """Where work runs; it has the clock."""

    @property
    def connected(self) -> bool:
        """Whether the network can be reached, as far as is known."""

    @property
    def closing(self) -> bool:
        """Whether the network is being left: what fails from now on fails because of that."""

    def reaches(self, name: str) -> bool:
        """Whether a name is served in this process."""

    def deliver(self, message: BusMessage, *, force: bool = True) -> Room | None:
        """Hand a message to its target in this process; what the network has accepted must fit, and is forced.

        Returns:
            None if it was delivered, or dropped and counted; else the room to wait for.
        """

    def put(
        self,
        lane: Lane,
        to: str,
        message: BusMessage,
        *,
        bounded: bool = False,
        accepted: Callable[[], None] | None = None,
        settles: Lease | None = None,
    ) -> str:
        """Send a message by a lane.

        Args:
            lane: The lane.
            to: An address, or the name of a queue.
            message: The message.
            bounded: Whether it takes a place: look whether there is room before.
            accepted: Called once the network has stored it. Nothing says when a message of the lane `direct` has gone.
            settles: A lease on a job that it answers: the claim ends with the storing, as long as the lease lasts.

        Returns:
            Id of the frame.

        Raises:
            EncodeError: The message cannot travel, and is no answer.
        """

    def send_to(self, address: str, message: BusMessage) -> None:
        """Send a message to one life of a runner, which may be this one."""

    def tell_runners(self, message: BusMessage) -> None:
        """Hand a message to the runner of this process."""
