"""Dead letters, for code without an event loop."""

from __future__ import annotations

from actors.sync.loop_thread import LoopThread
from bus import DeadLetter, DeadLetters


class SyncDeadLetters:
    """The dead letters of a network; as `DeadLetters`."""

    def __init__(self, thread: LoopThread, letters: DeadLetters) -> None:
        self._thread = thread
        self._letters = letters

    def oldest(self, *, worker_name: str | None = None, most: float = 100, after: str = "") -> list[DeadLetter]:
        """The oldest letters, oldest first; as `DeadLetters.oldest`."""
        return self._thread.call(self._letters.oldest, worker_name=worker_name, most=most, after=after)

    def get(self, letter_id: str) -> DeadLetter | None:
        """One letter; None if there is none of that id."""
        return self._thread.call(self._letters.get, letter_id)

    def discard(self, letter_id: str) -> bool:
        """Throw one away. False if there was none."""
        return self._thread.call(self._letters.discard, letter_id)

    def purge(self, *, worker_name: str | None = None) -> int:
        """Throw all away, or all for one worker, and return how many there were."""
        return self._thread.call(self._letters.purge, worker_name=worker_name)
