"""The claimer: takes jobs for the workers of a process, from queues or straight, keeps their leases, settles them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from bus.claims import Claim, Claims
from bus.dead_letters import DEAD_LETTERED
from bus.errors import TransportError
from bus.messages import (
    TERMINAL_MESSAGES,
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobReturnedMessage,
    BusJobRunningMessage,
    ErrorInfo,
    JobStatus,
)
from bus.transport import Delivery, Settlement, Transport

if TYPE_CHECKING:
    from bus.network import NetworkBus
    from bus.outbox import Outbox


class Claimer:
    """Holds claims on jobs while they run here.

    A claim ends after its answer is safe with the network, not earlier. While its lease is ours nobody else runs the
    job; once it is not, the job is stopped here and nothing of it is sent any more. A job that was asked for at most
    once is held without a lease: nobody else is given it.
    """

    def __init__(
        self, bus: NetworkBus, transport: Transport, outbox: Outbox, *, max_deliver: int, prefetch: int, lease: float
    ) -> None:
        self.claims = Claims()
        self._bus = bus
        self._transport = transport
        self._outbox = outbox
        self._max_deliver = max_deliver
        self._prefetch = prefetch
        self._lease = lease
        self._served: dict[str, Callable[[], int]] = {}

    def free(self, name: str) -> int:
        """How many jobs the worker of that name could start now."""
        free_slots = self._served.get(name)
        return free_slots() if free_slots is not None else 0

    def serves(self, name: str) -> bool:
        """Whether the worker of that name in this process takes jobs."""
        local = self._bus.registry.get(name)
        here = local is not None and local.active and local.runner == self._bus.registry.runner_name
        return here and self._bus.reaches(name)

    def serve(self, name: str, free_slots: Callable[[], int]) -> None:
        """Claim jobs for a worker, as many as it has slots for."""
        self._served[name] = free_slots
        self.capacity_changed(name)

    def unserve(self, name: str) -> None:
        """Claim no more jobs for a worker."""
        if self._served.pop(name, None) is not None:
            self._transport.demand(name, 0)

    def unserve_all(self) -> None:
        """Claim no more jobs."""
        for name in tuple(self._served):
            self.unserve(name)

    def capacity_changed(self, name: str) -> None:
        """A worker has more or fewer slots free than before."""
        if name in self._served:
            self._transport.demand(name, min(self.free(name), self._prefetch))

    async def receive(self) -> Sequence[Delivery]:
        """What has come; see `Transport.receive`."""
        try:
            return await self._transport.receive()
        except TransportError:
            for name in self._served:  # what was claimed for us may be lost with its answer, and our demand with it
                self.capacity_changed(name)
            raise

    def claimed(self, request: BusJobRequestMessage, delivery: Delivery, now: float) -> None:
        """A job came from a queue: run it, unless it was cancelled, given up, or is here already."""
        request.attempt = delivery.attempt
        if self._repeated(request, delivery, now):
            return
        name = request.target or ""
        if not self._bus.reaches(name):
            self.settle(delivery, Settlement.NAK, now)
            return
        self.claims.hold(request, delivery, now)
        reason = self.claims.forbidden(request)
        if reason is not None:
            self._answer_for(request, JobStatus.CANCELLED, ErrorInfo(type="JobCancelled", message=reason))
        elif delivery.attempt > self._max_deliver:
            message = f"given up after {self._max_deliver} deliveries: each of its performers died or lost its lease"
            self._answer_for(request, JobStatus.FAILED, ErrorInfo(type=DEAD_LETTERED, message=message))
        else:
            self._bus.deliver(request)
        self.capacity_changed(name)

    def asked(self, request: BusJobRequestMessage, now: float) -> None:
        """A job came straight from its requester: run it, or say at once that it is not taken."""
        request.attempt = 1
        if self.claims.held(request) is not None:
            self.claims.repeated += 1
            return
        given = self.claims.remembered(request)
        if given is not None:  # asked for anew: what led up to the answer is not waited for
            self.claims.repeated += 1
            self._bus.answer_again(request, msgspec.structs.replace(given, sequence=0))
            return
        name = request.target or ""
        self.claims.hold(request, None, now)
        reason = self.claims.forbidden(request)
        serves = self.serves(name)
        room = self._bus.deliver(request, force=False) if serves and reason is None else None
        if reason is not None:
            self._answer_for(request, JobStatus.CANCELLED, ErrorInfo(type="JobCancelled", message=reason))
        elif room is not None and room.refuses:
            full = ErrorInfo(type="MailboxFullError", message=str(room.refusal()), retryable=True)
            self._answer_for(request, JobStatus.FAILED, full)
        elif room is not None or not serves:
            self.give_back(request)
        self.capacity_changed(name)

    def inquired(self, inquiry: BusJobInquiryMessage) -> None:
        """A requester has not heard of a job for a while: say what is known of it."""
        claim, answer = self.claims.held(inquiry), self.claims.remembered(inquiry)
        if claim is not None:
            self._bus.send_to(inquiry.origin, _running(claim))
        elif answer is not None:
            self._bus.answer_again(inquiry, answer)
        else:
            self._bus.send_to(inquiry.origin, _returned(inquiry, may_have_run=True))

    def told(self, claim: Claim, message: Any) -> None:
        """Something was sent of a job that was asked for at most once."""
        claim.events += hasattr(message, "sequence")
        if isinstance(message, TERMINAL_MESSAGES):
            self.claims.release(claim, message)

    def answered(self, claim: Claim, answer: Any) -> Callable[[], None]:
        """A job from a queue has its answer. Returns what to do once that is safe."""
        self.claims.release(claim, answer)
        gave_up = answer.__class__ is BusJobResponseMessage and answer.error and answer.error.type == DEAD_LETTERED
        how = Settlement.TERM if gave_up else Settlement.ACK

        delivery = claim.delivery
        assert delivery is not None
        return lambda: self.settle(delivery, how, claim.renewed)

    def give_back(self, request: BusJobRequestMessage) -> bool:
        """Return a job that was not started to where it came from. False if that is this process."""
        claim = self.claims.held(request)
        if claim is None:
            return False
        self.claims.release(claim)
        if claim.delivery is not None:
            self.settle(claim.delivery, Settlement.NAK, claim.renewed)
        else:
            self._bus.send_to(request.origin, _returned(request, may_have_run=False))
        return True

    def settle(self, delivery: Delivery, how: Settlement, renewed: float) -> None:
        """End a claim, as long as its lease lasts, and claim another in its place."""
        self._outbox.settle(delivery, how, renewed + self._transport.ack_wait)
        self.capacity_changed(delivery.queue)

    def forbid(self, cancel: BusJobCancelMessage, origin: str) -> None:
        """Do not run a job that is cancelled before it is claimed."""
        key = (cancel.target or "", origin, cancel.source, cancel.job_id)
        self.claims.forbid(key, cancel.reason or "cancelled")

    def stop_orphans(self) -> None:
        """Stop the jobs whose requesters are gone. A requester we have never heard has a lease's time to show up."""
        now = self._bus.tasks.now()
        for claim in self.claims.all():
            if now - claim.since > self._lease and self._bus.is_gone(claim.request.origin):
                self._stop(claim.request, "the runner of its requester is gone")

    async def run(self) -> None:
        """Keep the leases, until cancelled."""
        period = pause = self._transport.ack_wait / 3
        while True:
            await anyio.sleep(pause)
            pause = period
            claims = self.claims.all()
            for claim in claims:
                if claim.delivery is None:
                    self._bus.post(_running(claim))
            claims, leased = [claim for claim in claims if claim.delivery], [claim.delivery for claim in claims]
            if claims:
                now = self._bus.tasks.now()
                try:
                    kept = await self._transport.extend([delivery for delivery in leased if delivery])
                except TransportError:
                    pause = period / 8
                    kept = [now - claim.renewed < self._transport.ack_wait for claim in claims]
                for claim, ours in zip(claims, kept, strict=True):
                    if ours and pause == period:
                        claim.renewed = now
                    self._check(claim, ours=ours)

    def _repeated(self, request: BusJobRequestMessage, delivery: Delivery, now: float) -> bool:
        """Whether the job is here, or was: then it does not run again."""
        known = self.claims.held(request)
        if known is not None:
            self.claims.repeated += 1
            if known.delivery is not None and delivery.attempt > known.delivery.attempt:
                known.delivery, known.renewed = delivery, now  # our lease had ended unnoticed: go on under the new one
                self.capacity_changed(delivery.queue)
            else:
                self.settle(delivery, Settlement.ACK, now)
            return True
        answer = self.claims.remembered(request)
        if answer is None:
            return False
        self.claims.repeated += 1
        if delivery.attempt != answer.attempt + 1:
            # Another had it in between, or it was asked for anew: what led up to our answer is not waited for any more.
            answer = msgspec.structs.replace(answer, attempt=delivery.attempt, sequence=0)
        self._bus.answer_again(request, answer)
        self.settle(delivery, Settlement.ACK, now)
        return True

    def _answer_for(self, request: BusJobRequestMessage, status: JobStatus, error: ErrorInfo) -> None:
        """Answer a job that its worker never sees."""
        self._bus.post(
            BusJobResponseMessage(
                source=request.target or "",
                target=request.source,
                destination=request.origin,
                job_id=request.job_id,
                attempt=request.attempt,
                status=status,
                error=error,
            )
        )

    def _check(self, claim: Claim, *, ours: bool) -> None:
        request = claim.request
        if self.claims.held(request) is not claim:
            return
        if not ours:
            self.claims.release(claim)
            self._stop(request, "its lease was lost: another worker has it, or will")
        else:
            self._bus.post(_running(claim))

    def _stop(self, request: BusJobRequestMessage, reason: str) -> None:
        self._bus.deliver(
            BusJobCancelMessage(
                source=request.source,
                target=request.target,
                origin=request.origin,
                job_id=request.job_id,
                reason=reason,
            )
        )


def _running(claim: Claim) -> BusJobRunningMessage:
    request = claim.request
    return BusJobRunningMessage(
        source=request.target or "",
        target=request.source,
        destination=request.origin,
        job_id=request.job_id,
        attempt=request.attempt,
        events=claim.events,
    )


def _returned(request: BusJobRequestMessage | BusJobInquiryMessage, *, may_have_run: bool) -> BusJobReturnedMessage:
    return BusJobReturnedMessage(
        source=request.target or "", target=request.source, job_id=request.job_id, may_have_run=may_have_run
    )
