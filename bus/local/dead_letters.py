"""Dead letters: jobs that were given up on, kept by the network until somebody looks at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from bus.errors import BusError, DecodeError
from bus.messages import BusJobRequestMessage
from bus.wire.codec import MAX_MESSAGE_BYTES, decode, decode_header

if TYPE_CHECKING:
    from bus.wire.signing import Signer


class DeadFrame(msgspec.Struct, frozen=True):
    """A frame that was given up on.

    Attributes:
        place: Where the network keeps it.
        queue: Name of its queue.
        body: The bytes.
        attempt: How often it was claimed.
        died_at: Unix time, by the clock of the network.
        history: How each claim that the network knows of ended, oldest first, in words.
    """

    place: str
    queue: str
    body: bytes
    attempt: int
    died_at: float
    history: Sequence[str] = ()


class DeadFrames(Protocol):
    """The dead letters of a network, as frames. Both methods may raise `TransportError`."""

    async def oldest(self, most: int, after: str = "") -> Sequence[DeadFrame]:
        """At most `most` letters, the oldest first; only such as follow the place `after`, or a ValueError."""

    async def discard(self, place: str) -> bool:
        """Throw a letter away. False if it was not there."""


@runtime_checkable
class KeepsDeadLetters(Protocol):
    """A transport that shows what was given up on."""

    @property
    def dead_frames(self) -> DeadFrames:
        """The dead letters of all queues."""


DEAD_LETTERED = "DeadLettered"
"""Type of the error that a requester gets for a job that was given up on."""

PAGE = 100
"""Letters asked of the network at a time."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A job that was given up on, or a frame in a queue that is none.

    Attributes:
        id: By which it is found again.
        worker_name: For whom it was.
        attempts: How often it was given to a performer.
        died_at: Unix time, by the clock of the network.
        history: How its claims ended, as far as the network knows, oldest first.
        job_id: The job; None if the frame cannot be read.
        job_name: Its name, None if it has none.
        requester: Who asked.
        payload: What it was asked with.
        problem: Why the frame cannot be read; None if it can.
    """

    id: str
    worker_name: str
    attempts: int
    died_at: float
    history: tuple[str, ...] = ()
    job_id: str | None = None
    job_name: str | None = None
    requester: str | None = None
    payload: Any = None
    problem: str | None = None


class _NoFrames:
    async def oldest(self, most: int, after: str = "") -> list[DeadFrame]:  # noqa: ARG002 - there are none
        return []

    async def discard(self, place: str) -> bool:  # noqa: ARG002 - there are none
        return False


_NONE = _NoFrames()


class DeadLetters:
    """The dead letters of a network. About 10,000 are kept; beyond that the oldest is forgotten.

    Every method may raise `TransportError` if the network does not answer; a letter to be discarded may be gone then.
    """

    def __init__(
        self,
        keeper: object = None,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        verifier: Signer | None = None,
    ) -> None:
        self._keeper = keeper
        self._max_bytes = max_message_bytes
        self._verifier = verifier

    async def oldest(self, *, worker_name: str | None = None, most: float = 100, after: str = "") -> list[DeadLetter]:
        """The oldest letters, oldest first.

        Args:
            worker_name: Only those for this worker.
            most: How many at most; infinity for all.
            after: Only those that follow the letter of this id: how to read on.

        Raises:
            ValueError: `after` is no id of a letter.
        """
        letters: list[DeadLetter] = []
        while len(letters) < most and (frames := await self._frames().oldest(PAGE, after)):
            after = frames[-1].place
            letters += [self._letter(frame) for frame in frames if worker_name in {None, frame.queue}]
        return letters[: None if most == math.inf else int(most)]

    async def get(self, letter_id: str) -> DeadLetter | None:
        """One letter; None if there is none of that id."""
        return next((letter for letter in await self.oldest(most=math.inf) if letter.id == letter_id), None)

    async def discard(self, letter_id: str) -> bool:
        """Throw one away. False if there was none."""
        return await self._frames().discard(letter_id)

    async def purge(self, *, worker_name: str | None = None) -> int:
        """Throw all away, or all for one worker, and return how many there were."""
        doomed = await self.oldest(worker_name=worker_name, most=math.inf)
        return sum([await self.discard(letter.id) for letter in doomed])

    def _frames(self) -> DeadFrames:
        if isinstance(self._keeper, KeepsDeadLetters):
            return self._keeper.dead_frames
        if self._keeper is None:
            return _NONE
        raise BusError(f"{self._keeper!r} keeps no dead letters")

    def _letter(self, frame: DeadFrame) -> DeadLetter:
        known = DeadLetter(frame.place, frame.queue, frame.attempt, frame.died_at, tuple(frame.history))
        try:
            header, body = decode_header(
                frame.body, lane="queue", verifier=self._verifier, max_message_bytes=self._max_bytes
            )
            request = decode(header, body)
            if not isinstance(request, BusJobRequestMessage):
                raise DecodeError(f"a {type(request).__name__} is no job request")  # noqa: TRY301 - told like the others
        except DecodeError as error:
            return msgspec.structs.replace(known, problem=str(error))
        return msgspec.structs.replace(
            known,
            job_id=request.job_id,
            job_name=request.job_name,
            requester=request.source,
            payload=request.payload,
        )
