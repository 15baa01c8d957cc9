"""Topics: who in this process follows which."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from bus.messages import BusTopicMessage
from bus.wire.values import travel


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
