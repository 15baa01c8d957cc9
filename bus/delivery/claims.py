"""The jobs a process holds for others: answered once, and remembered for a while. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from bus.messages import BusJobInquiryMessage, BusJobRequestMessage
from bus.transport.framing import number_of
from bus.transport.transport import Delivery

MAX_REMEMBERED = 1024
"""Answers and cancellations kept for requests that come again, or late: within a lease, or not at all."""

MAX_DONE = 10_000
"""Ids of request frames whose jobs were answered here, by which a frame that is put into its queue again is known."""

Key = tuple[str, str, str, str]
"""Worker, address of the requester's runner, requester, job id."""


class Claim(msgspec.Struct):
    """One job held for a requester.

    Attributes:
        delivery: The claim on its queue; None if the job was asked for at most once.
        request: The job.
        frame_id: Id of the frame it came in by its queue.
        renewed: When its lease was last renewed, on our clock; on the broker's it cannot have been earlier.
        since: When it was claimed.
        events: How many of its events and answers were sent.
        waiting: Whether it is not begun before its requester has said that it still waits for it.
    """

    delivery: Delivery | None
    request: BusJobRequestMessage
    frame_id: str
    renewed: float
    since: float
    events: int = 0
    waiting: bool = False


class ClaimStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Claims`.

    Attributes:
        held: Jobs held now (at most what the workers of the process may run or prefetch).
        remembered: Answers kept (at most 1,024).
        done: Ids kept of frames whose jobs were answered (at most 10,000).
        repeated: Requests that came again while held or remembered.
        refused: Messages of jobs whose lease was lost; they were not sent.
        waiting: Jobs held that are not begun before their requesters say that they still wait for them.
        ending: Jobs that are over, while the network does not have their answers yet.
        forbidden: Cancellations kept for requests that have not come (at most 1,024).
        lost: Numbers of attempts kept of jobs whose lease was lost (at most 1,024).
        given_up: Jobs asked for here and cancelled, that may wait in a queue that nobody serves (at most 10,000).
        introductions: Runners that are known to know a worker here, each pair once (at most 10,000).
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
    """The table of claims, and of the answers to those that have ended."""

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
        """The job is not begun yet."""
        claim.waiting = True
        name = claim.request.target or ""
        self._waiting[name] = self._waiting.get(name, 0) + 1

    def go_on(self, claim: Claim) -> None:
        """It may begin, or is over."""
        if claim.waiting:
            claim.waiting = False
            name = claim.request.target or ""
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]

    def waiting(self, name: str) -> int:
        """How many jobs of a worker are not begun yet."""
        return self._waiting.get(name, 0)

    def held(self, request: BusJobRequestMessage | BusJobInquiryMessage) -> Claim | None:
        """The claim on the same job, if there is one."""
        return self._held.get(_key(request))

    def find(self, key: Key) -> Claim | None:
        """The claim on a job."""
        return self._held.get(key)

    def of_answer(self, message: Any) -> Claim | None:
        """The claim under which a performer's message was sent; None if that is lost, also if there is a new one."""
        claim = self._held.get((message.source, message.destination, message.target or "", message.job_id))
        return claim if claim is not None and claim.request.attempt == message.attempt else None

    def all(self) -> list[Claim]:
        """Every claim."""
        return list(self._held.values())

    @property
    def ending(self) -> list[Claim]:
        """The claims whose jobs are over, while the network does not have the answer yet."""
        return list(self._ending.values())

    def release(self, claim: Claim) -> None:
        """Forget a claim."""
        self.go_on(claim)
        self._ending.pop(id(claim), None)
        if self._held.get(_key(claim.request)) is claim:
            del self._held[_key(claim.request)]

    def end(self, claim: Claim, answer: Any = None) -> None:
        """The job of a claim is over here; its answer is remembered. The lease is still ours until `release`."""
        key = _key(claim.request)
        self.go_on(claim)
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

    def answering(
        self, request: BusJobRequestMessage, delivery: Delivery, frame_id: str, renewed: float, since: float
    ) -> Claim:
        """A claim on a job that is not begun: its answer is known, and only has to become safe with the network."""
        claim = Claim(delivery, request, frame_id, renewed, since)
        self.end(claim)
        return claim

    def lose(self, claim: Claim) -> None:
        """End a claim that is not ours any more."""
        self.release(claim)
        self._lost[_key(claim.request)] = claim.request.attempt
        while len(self._lost) > MAX_REMEMBERED:
            self._lost.popitem(last=False)

    def number(self, request: BusJobRequestMessage, attempt: int) -> int:
        """The number of a new attempt: never one that was used here, also if the broker has forgotten a delivery."""
        return max(attempt, self._lost.pop(_key(request), 0) + 1)

    def forbid(self, key: Key, reason: str, frame_id: str) -> Key | None:
        """A cancellation came before its request, which must not run. Returns what is forgotten for it."""
        self._forbidden[key] = reason, number_of(frame_id)
        return self._forbidden.popitem(last=False)[0] if len(self._forbidden) > MAX_REMEMBERED else None

    def forbidden(self, request: BusJobRequestMessage, frame_id: str) -> str | None:
        """Why a request must not run; None if it may, as one that was sent after the cancellation may."""
        reason, number = self._forbidden.pop(_key(request), (None, 0))
        return reason if number_of(frame_id) <= number else None

    def remembered(self, request: BusJobRequestMessage | BusJobInquiryMessage, frame_id: str) -> Any:
        """The answer given to what that frame asked for, None if there is none."""
        answered, answer = self._answers.get(_key(request), ("", None))
        return answer if answered == frame_id else None

    def is_done(self, frame_id: str) -> bool:
        """Whether the job of a request frame was answered here."""
        return frame_id in self._done

    def statistics(self, *, given_up: int, introductions: int) -> ClaimStatistics:
        """How much there is now, beside what its owner counts."""
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
"""Pairs of a runner and a worker here; who is forgotten is asked once more."""


class InformedRunners:
    """From which of its frames on the runner of a requester has known that a worker here takes jobs.

    A runner numbers its frames, and sends the cancellation of a request to all that it knows to serve the name. So a
    request that it has sent since is wanted, unless its cancellation has come. Of an older one nobody can tell: it may
    have been given up before there was anybody to tell.
    """

    def __init__(self) -> None:
        self._since: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def add(self, runner: str, worker: str, frame_id: str) -> None:
        """A runner has said, in that frame, that it knows of a worker here."""
        self._since[runner, worker] = number_of(frame_id)
        if len(self._since) > MAX_INTRODUCTIONS:
            self._since.popitem(last=False)

    def covers(self, runner: str, worker: str, frame_id: str) -> bool:
        """Whether a frame was sent since then."""
        since = self._since.get((runner, worker))
        return since is not None and number_of(frame_id) > since

    def forget(self, runner: str | None = None, worker: str | None = None) -> None:
        """A runner may not know us any more, or a worker has gone; what is not given means all."""
        for known in [each for each in self._since if runner in {None, each[0]} and worker in {None, each[1]}]:
            del self._since[known]
