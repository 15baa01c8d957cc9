"""The jobs a process holds for others: answered once, and remembered for a while. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from bus.messages import BusJobInquiryMessage, BusJobRequestMessage
from bus.transport import Delivery

MAX_REMEMBERED = 1024
"""Answers and cancellations kept for requests that come again, or late: within a lease, or not at all."""

Key = tuple[str, str, str, str]
"""Worker, address of the requester's runner, requester, job id."""


class Claim(msgspec.Struct):
    """One job held for a requester.

    Attributes:
        delivery: The claim on its queue; None if the job was asked for at most once.
        request: The job.
        renewed: When its lease was last renewed, on our clock; on the broker's it cannot have been earlier.
        since: When it was claimed.
        events: How many of its events and answers were sent.
    """

    delivery: Delivery | None
    request: BusJobRequestMessage
    renewed: float
    since: float
    events: int = 0


class ClaimStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Claims`.

    Attributes:
        held: Jobs held now (at most what the workers of the process may run or prefetch).
        remembered: Answers kept (at most 1,024).
        repeated: Requests that came again while held or remembered.
        refused: Messages of jobs whose lease was lost; they were not sent.
    """

    held: int
    remembered: int
    repeated: int
    refused: int


class Claims:
    """The table of claims, and of the answers to those that have ended."""

    def __init__(self) -> None:
        self._held: dict[Key, Claim] = {}
        self._answers: OrderedDict[Key, Any] = OrderedDict()
        self._forbidden: OrderedDict[Key, str] = OrderedDict()
        self.repeated = 0
        self.refused = 0

    def hold(self, request: BusJobRequestMessage, delivery: Delivery | None, now: float) -> None:
        """Enter a new claim."""
        self._held[_key(request)] = Claim(delivery, request, now, now)

    def held(self, request: BusJobRequestMessage | BusJobInquiryMessage) -> Claim | None:
        """The claim on the same job, if there is one."""
        return self._held.get(_key(request))

    def of_answer(self, message: Any) -> Claim | None:
        """The claim on the job that a performer's message belongs to."""
        return self._held.get((message.source, message.destination, message.target or "", message.job_id))

    def all(self) -> list[Claim]:
        """Every claim."""
        return list(self._held.values())

    def release(self, claim: Claim, answer: Any = None) -> None:
        """End a claim; its answer is remembered."""
        key = _key(claim.request)
        if self._held.get(key) is claim:
            del self._held[key]
        if answer is not None:
            self._answers[key] = answer
            while len(self._answers) > MAX_REMEMBERED:
                self._answers.popitem(last=False)

    def forbid(self, key: Key, reason: str) -> None:
        """A cancellation came before its request: when that comes, it must not run."""
        if key not in self._held:
            self._forbidden[key] = reason
            while len(self._forbidden) > MAX_REMEMBERED:
                self._forbidden.popitem(last=False)

    def forbidden(self, request: BusJobRequestMessage) -> str | None:
        """Why a request must not run; None if it may."""
        return self._forbidden.pop(_key(request), None)

    def remembered(self, request: BusJobRequestMessage | BusJobInquiryMessage) -> Any:
        """The answer given to an earlier delivery of the same job, None if there is none."""
        return self._answers.get(_key(request))

    def statistics(self) -> ClaimStatistics:
        """How much there is now."""
        return ClaimStatistics(len(self._held), len(self._answers), self.repeated, self.refused)


def _key(request: BusJobRequestMessage | BusJobInquiryMessage) -> Key:
    return (request.target or "", request.origin, request.source, request.job_id)
