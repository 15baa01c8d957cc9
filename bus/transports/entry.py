"""One queued frame on its way through a broker: its states, and which may follow which."""

from __future__ import annotations

from enum import Enum


class EntryState(Enum):
    """Where a queued frame stands."""

    READY = "ready"
    """Waits for a node with a free slot."""
    CLAIMED = "claimed"
    """One node works on it, until it settles or its lease ends."""
    DELETED = "deleted"
    """Done; gone from the broker."""
    DEAD = "dead"
    """Given up on; listed with the dead letters."""


TRANSITIONS: dict[EntryState, tuple[EntryState, ...]] = {
    # READY -> DELETED happens only where the broker takes the late ack of a claim that had already ended.
    EntryState.READY: (EntryState.CLAIMED, EntryState.DELETED),
    EntryState.CLAIMED: (EntryState.READY, EntryState.DELETED, EntryState.DEAD),
    EntryState.DELETED: (),
    EntryState.DEAD: (),
}


class Entry:
    """A queued frame, its state and how often it was claimed.

    Attributes:
        queue: Name of its queue.
        id: The frame's id.
        body: The bytes.
        state: Where it stands.
        attempt: How often it was claimed: with the entry itself, the identity of a claim.
        lease_end: When the present claim ends unless renewed, on the clock of `anyio.current_time()`.
    """

    __slots__ = ("attempt", "body", "id", "lease_end", "queue", "state")

    def __init__(self, queue: str, frame_id: str, body: bytes) -> None:
        self.queue = queue
        self.id = frame_id
        self.body = body
        self.state = EntryState.READY
        self.attempt = 0
        self.lease_end = 0.0

    def move(self, state: EntryState) -> None:
        """Change state.

        Raises:
            RuntimeError: That state may not follow the present one; the entry is unchanged.
        """
        if state not in TRANSITIONS[self.state]:
            msg = f"{self!r} cannot become {state.value}"
            raise RuntimeError(msg)
        self.state = state

    def __repr__(self) -> str:
        return f"<Entry {self.id!r} of queue {self.queue!r}: {self.state.value}, attempt {self.attempt}>"
