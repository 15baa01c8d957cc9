"""Topics: who in this process follows which, and sending what is published to those elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bus.errors import MailboxFullError
from bus.mailbox import Room
from bus.messages import BusTopicMessage
from bus.values import travel

if TYPE_CHECKING:
    from bus.network import NetworkBus


class Topics:
    """The followers of each topic in this process."""

    def __init__(self) -> None:
        self._followers: dict[str, dict[str, None]] = {}
        self._followed: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        """Topics that are followed."""
        return len(self._followers)

    def follow(self, topic: str, name: str) -> None:
        """Enter a follower."""
        self._followers.setdefault(topic, {})[name] = None
        self._followed.setdefault(name, {})[topic] = None

    def followed(self, topic: str) -> bool:
        """Whether somebody in this process follows a topic."""
        return topic in self._followers

    def forget(self, name: str) -> None:
        """Remove a follower from all its topics."""
        for topic in self._followed.pop(name, ()):
            followers = self._followers[topic]
            del followers[name]
            if not followers:
                del self._followers[topic]

    def copies(self, message: BusTopicMessage) -> Iterator[BusTopicMessage]:
        """What was published, a copy for each follower, made when it is its turn: in between some may have gone."""
        for name in tuple(self._followers.get(message.topic, ())):
            if name in self._followers.get(message.topic, ()):
                yield replace(message, target=name, data=travel(message.data, "data"))


async def publish_elsewhere(bus: NetworkBus, message: BusTopicMessage) -> None:
    """Send what was published once to each other runner that has a follower.

    Raises:
        EncodeError: It is too big for a message.
        MailboxFullError: More waits to be sent to one of them than may, for 30 seconds; those before it get it.
    """
    for address in bus.registry.followers(message.topic):
        send = partial(_publish_to, bus, address, message)
        room = send()
        if room is not None:
            try:
                await bus._send_later(room, send)
            except MailboxFullError:
                if address in bus.registry.followers(message.topic):
                    raise


def _publish_to(bus: NetworkBus, address: str, message: BusTopicMessage) -> Room | None:
    """Send to one runner, unless its followers are gone. The room to wait for if there is none now."""
    if address not in bus.registry.followers(message.topic):
        return None
    room = bus._outbox.full("inbox", address)
    if room is None:
        bus.put("inbox", address, message, bounded=True)
    return room
