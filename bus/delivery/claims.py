"""Claims: the jobs a process holds for requesters, and what it remembers of those that have ended. Pure."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Any

import msgspec

from bus.messages import BusJobInquiryMessage, BusJobRequestMessage
from bus.transport.framing import number_of
from bus.transport.transport import Delivery

MAX_REMEMBERED = 1024
"""Answers, cancellations and attempts that are remembered for requests which come again, or late: they come within a
lease, or not at all."""

MAX_DONE = 10_000
"""Ids of answered request frames that are remembered, to recognise a frame that somebody puts into its queue again."""

Key = tuple[str, str, str, str]
"""What a job is known by: worker, address of the requester's runner, requester, job id."""


class ClaimState(Enum):
    """Where a claim stands."""

    HELD = "held"
    """Its worker has the job, or is about to get it."""
    WAITING = "waiting"
    """The job is not begun before its requester has confirmed that it still wants it."""
    ENDING = "ending"
    """The job is over. Its lease is still ours, until the network has the answer."""
    ENDED = "ended"
    """Nothing is left of it: it was settled, given back or lost."""


TRANSITIONS: dict[ClaimState, tuple[ClaimState, ...]] = {
    ClaimState.HELD: (ClaimState.WAITING, ClaimState.ENDING, ClaimState.ENDED),
    ClaimState.WAITING: (ClaimState.HELD, ClaimState.ENDING, ClaimState.ENDED),
    ClaimState.ENDING: (ClaimState.ENDED,),
    ClaimState.ENDED: (),
}


class Claim(msgspec.Struct):
    """One job held for a requester.

    Attributes:
        delivery: The claim on its queue; None if the job was asked for at most once.
        request: The job.
        frame_id: Id of the frame that it came in.
        renewed: When its lease was last renewed, on our clock; the broker cannot have renewed it earlier.
        since: When it was claimed.
        events: How many of its events and answers were sent.
        state: Where it stands.
    """

    delivery: Delivery | None
    request: BusJobRequestMessage
    frame_id: str
    renewed: float
    since: float
    events: int = 0
    state: ClaimState = ClaimState.HELD

    @property
    def waiting(self) -> bool:
        """Whether the job is not begun yet."""
        return self.state is ClaimState.WAITING

    def move(self, state: ClaimState) -> None:
        """Change state.

        Raises:
            RuntimeError: That state may not follow the present one; the claim is unchanged.
        """
        if state not in TRANSITIONS[self.state]:
            msg = f"{self!r} cannot become {state.value}"
            raise RuntimeError(msg)
        self.state = state

    def __repr__(self) -> str:
        request = self.request
        return f"<Claim on job {request.job_id!r} of {request.target!r}: {self.state.value}, attempt {request.attempt}>"


class ClaimStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Claims`.

    Attributes:
        held: Jobs held now (at most what the workers of the process may run or prefetch).
        remembered: Answers that are remembered (at most 1,024).
        done: Ids of answered request frames that are remembered (at most 10,000).
        repeated: Requests that came again while their job was held or remembered.
        refused: Messages that were not sent because the lease of their job was lost.
        waiting: Jobs held that are not begun before their requesters confirm that they still want them.
        ending: Jobs that are over, while the network does not have their answers yet.
        forbidden: Cancellations that are remembered for requests which have not come (at most 1,024).
        lost: Jobs whose lease was lost and whose last attempt is remembered (at most 1,024).
        given_up: Jobs asked for here and cancelled, that may wait in a queue that nobody serves (at most 10,000).
        introductions: Pairs of a runner and a worker here that the runner knows of (at most 10,000).
    """

    held: int
    remembered: int
    done: int
    repeated: int
    refused: int
    waiting: int
    ending: int
    forbidden: int
    lost: int
    given_up: int
    introductions: int


class Claims:
    """The table of claims, with the answers of those that have ended."""

    def __init__(self) -> None:
        self._held: dict[Key, Claim] = {}
        self._ending: dict[int, Claim] = {}
        self._waiting: dict[str, int] = {}
        self._answers: OrderedDict[Key, tuple[str, Any]] = OrderedDict()
        self._forbidden: OrderedDict[Key, tuple[str, int]] = OrderedDict()
        self._done: OrderedDict[str, None] = OrderedDict()
        self._lost: OrderedDict[Key, int] = OrderedDict()
        self.repeated = 0
        self.refused = 0

    def hold(
        self, request: BusJobRequestMessage, delivery: Delivery | None, frame_id: str, renewed: float, since: float
    ) -> Claim:
        """Enter a new claim."""
        claim = self._held[_key(request)] = Claim(delivery, request, frame_id, renewed, since)
        return claim

    def wait(self, claim: Claim) -> None:
        """Note that a job is not begun yet."""
        self._move(claim, ClaimState.WAITING)

    def go_on(self, claim: Claim) -> None:
        """Note that a job that waited may begin."""
        self._move(claim, ClaimState.HELD)

    def waiting(self, name: str) -> int:
        """How many jobs of a worker are not begun yet."""
        return self._waiting.get(name, 0)

    def held(self, request: BusJobRequestMessage | BusJobInquiryMessage) -> Claim | None:
        """The claim on the same job, if there is one."""
        return self._held.get(_key(request))

    def find(self, key: Key) -> Claim | None:
        """The claim on a job, if there is one."""
        return self._held.get(key)

    def of_answer(self, message: Any) -> Claim | None:
        """The claim under which a performer sent a message; None if that one is lost, even if there is a new one."""
        claim = self._held.get((message.source, message.destination, message.target or "", message.job_id))
        return claim if claim is not None and claim.request.attempt == message.attempt else None

    def all(self) -> list[Claim]:
        """The claims that are held."""
        return list(self._held.values())

    @property
    def ending(self) -> list[Claim]:
        """The claims whose jobs are over, while the network does not have the answer yet."""
        return list(self._ending.values())

    def release(self, claim: Claim) -> None:
        """Forget a claim."""
        self._move(claim, ClaimState.ENDED)
        self._ending.pop(id(claim), None)
        if self._held.get(_key(claim.request)) is claim:
            del self._held[_key(claim.request)]

    def end(self, claim: Claim, answer: Any = None) -> None:
        """Note that the job of a claim is over here, and remember its answer."""
        key = _key(claim.request)
        self._move(claim, ClaimState.ENDING)
        if self._held.get(key) is claim:
            del self._held[key]
        self._ending[id(claim)] = claim
        if answer is not None:
            self._answers[key] = (claim.frame_id, answer)
            while len(self._answers) > MAX_REMEMBERED:
                self._answers.popitem(last=False)
            if claim.delivery is not None:
                self._done[claim.frame_id] = None
            while len(self._done) > MAX_DONE:
                self._done.popitem(last=False)

    def _move(self, claim: Claim, state: ClaimState) -> None:
        """Change the state of a claim, and count those that wait."""
        waited = claim.waiting
        claim.move(state)
        if waited or state is ClaimState.WAITING:
            name = claim.request.target or ""
            waiting = self._waiting.pop(name, 0) + (-1 if waited else 1)
            if waiting:
                self._waiting[name] = waiting

    def answering(
        self, request: BusJobRequestMessage, delivery: Delivery, frame_id: str, renewed: float, since: float
    ) -> Claim:
        """Enter a claim on a job that does not run: its answer is known, and only has to be stored by the network."""
        claim = Claim(delivery, request, frame_id, renewed, since)
        self.end(claim)
        return claim

    def lose(self, claim: Claim) -> None:
        """Forget a claim that is not ours any more, and remember its attempt."""
        self.release(claim)
        self._lost[_key(claim.request)] = claim.request.attempt
        while len(self._lost) > MAX_REMEMBERED:
            self._lost.popitem(last=False)

    def number(self, request: BusJobRequestMessage, attempt: int) -> int:
        """The number of a new attempt, never one that was used here, even if the broker has forgotten a delivery."""
        return max(attempt, self._lost.pop(_key(request), 0) + 1)

    def forbid(self, key: Key, reason: str, frame_id: str) -> Key | None:
        """Remember a cancellation that came before its request. Returns the job of another that is forgotten for it."""
        self._forbidden[key] = reason, number_of(frame_id)
        return self._forbidden.popitem(last=False)[0] if len(self._forbidden) > MAX_REMEMBERED else None

    def forbidden(self, request: BusJobRequestMessage, frame_id: str) -> str | None:
        """Why a request must not run; None if it may, as one that was sent after the cancellation."""
        reason, number = self._forbidden.pop(_key(request), (None, 0))
        return reason if number_of(frame_id) <= number else None

    def remembered(self, request: BusJobRequestMessage | BusJobInquiryMessage, frame_id: str) -> Any:
        """The answer to the request in that frame; None if none is remembered."""
        answered, answer = self._answers.get(_key(request), ("", None))
        return answer if answered == frame_id else None

    def is_done(self, frame_id: str) -> bool:
        """Whether the request in that frame was answered here."""
        return frame_id in self._done

    def statistics(self, *, given_up: int, introductions: int) -> ClaimStatistics:
        """How much there is now; what others count is handed in."""
        return ClaimStatistics(
            len(self._held),
            len(self._answers),
            len(self._done),
            self.repeated,
            self.refused,
            sum(self._waiting.values()),
            len(self._ending),
            len(self._forbidden),
            len(self._lost),
            given_up,
            introductions,
        )


def _key(request: BusJobRequestMessage | BusJobInquiryMessage) -> Key:
    return (request.target or "", request.origin, request.source, request.job_id)


MAX_INTRODUCTIONS = 10_000
"""Pairs of a runner and a worker that are remembered; a runner that is forgotten is asked once more."""


class InformedRunners:
    """The runners that know of workers here, each since one of its frames.

    A runner numbers its frames, and sends the cancellation of a request to all runners that it knows to serve the name.
    So a request that it sent after it knew of us is wanted, unless its cancellation has come. An older request may have
    been cancelled before there was anybody to notify: its requester has to be asked.
    """

    def __init__(self) -> None:
        self._since: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def add(self, runner: str, worker: str, frame_id: str) -> None:
        """Note that a runner has said, in that frame, that it knows of a worker here."""
        self._since[runner, worker] = number_of(frame_id)
        if len(self._since) > MAX_INTRODUCTIONS:
            self._since.popitem(last=False)

    def covers(self, runner: str, worker: str, frame_id: str) -> bool:
        """Whether a frame was sent after its runner knew of that worker."""
        since = self._since.get((runner, worker))
        return since is not None and number_of(frame_id) > since

    def forget(self, runner: str | None = None, worker: str | None = None) -> None:
        """Forget all pairs of a runner that may not know us any more, or of a worker that has gone, or of both."""
        for known in [each for each in self._since if runner in {None, each[0]} and worker in {None, each[1]}]:
            del self._since[known]
