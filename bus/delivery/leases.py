"""Leases: jobs taken for the workers of this process, from queues or straight, renewed while they run, and settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio

from bus.delivery.claims import Claim, Claims, ClaimStatistics, InformedRunners
from bus.delivery.revocation import Revocation
from bus.errors import DataLostError, DecodeError, TransportError
from bus.local.dead_letters import DEAD_LETTERED
from bus.log import log
from bus.membership.liveness import Liveness
from bus.messages import (
    TERMINAL_MESSAGES,
    BusDataLostMessage,
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobRequestMessage,
    BusJobRunningMessage,
    BusJobWantedMessage,
    ErrorInfo,
    JobStatus,
)
from bus.transport.framing import number_of
from bus.transport.node import Node
from bus.transport.outbox import Lease, Outbox, Settling
from bus.transport.system_answers import answered_by_bus, gave_up, in_use, later, returned
from bus.transport.transport import Delivery, Settlement, Transport

PASSED_ON = 30.0
"""Seconds for which nothing is taken from a queue after a frame of it was returned for others to verify."""

PATIENCE = 30.0
"""Seconds until a job begins although its requester has not confirmed it: one that is no worker of ours never does."""


class Leases:
    """Holds claims on jobs while they run here.

    * A claim ends after the network has stored its answer, not earlier.
    * While a lease is ours, nobody else runs the job. Once it is lost, the job is stopped here, and nothing of it is
      sent any more.
    * A job that was asked for at most once is held without a lease: nobody else is given it.

    Args:
        node: Who it works for.
        transport: The network.
        outbox: Sends the settlements.
        liveness: Knows which requesters are gone.
        revocation: Takes what was cancelled out of queues that nobody serves.
        max_deliver: Deliveries of one job before it is given up on.
        prefetch: Most jobs of one worker that are claimed in one go.
        lease: Seconds for which an unknown requester may stay away before its job is stopped.
    """

    def __init__(
        self,
        node: Node,
        transport: Transport,
        outbox: Outbox,
        liveness: Liveness,
        revocation: Revocation,
        *,
        max_deliver: int,
        prefetch: int,
        lease: float,
    ) -> None:
        self.claims = Claims()
        self.informed = InformedRunners()
        self._node = node
        self._transport = transport
        self._outbox = outbox
        self._liveness = liveness
        self._revocation = revocation
        self._max_deliver = max_deliver
        self._prefetch = prefetch
        self._lease = lease
        self._served: dict[str, Callable[[], int]] = {}
        self._reading_since = 0.0
        self._passing: dict[str, float] = {}

    def statistics(self) -> ClaimStatistics:
        """How much there is now."""
        return self.claims.statistics(given_up=len(self._revocation), introductions=len(self.informed))

    def all(self) -> list[Lease]:
        """All claims that are held, ending, or to be settled. It may be called from any thread."""
        return [*self.claims.all(), *self.claims.ending, *self._outbox.settling]

    def free(self, name: str) -> int:
        """How many jobs the worker of that name can start now."""
        free_slots = self._served.get(name)
        return max(free_slots() - self.claims.waiting(name), 0) if free_slots is not None else 0

    def serves(self, name: str) -> bool:
        """Whether the worker of that name in this process takes jobs."""
        local = self._node.registry.get(name)
        here = local is not None and local.active and local.runner == self._node.registry.runner_name
        return here and self._node.reaches(name)

    def serve(self, name: str, free_slots: Callable[[], int]) -> None:
        """Claim jobs for a worker, as many as it has slots for."""
        self._served[name] = free_slots
        self.capacity_changed(name)

    def unserve(self, name: str) -> None:
        """Claim no more jobs for a worker."""
        self.informed.forget(worker=name)
        if self._served.pop(name, None) is not None:
            self._transport.demand(name, 0)
            for claim in self.claims.all():
                if claim.waiting and claim.request.target == name:
                    self.give_back(claim.request)

    def unserve_all(self) -> None:
        """Claim no more jobs."""
        for name in tuple(self._served):
            self.unserve(name)

    def capacity_changed(self, name: str) -> None:
        """A worker has more or fewer slots free than before."""
        if name in self._served:
            self._transport.demand(name, 0 if name in self._passing else min(self.free(name), self._prefetch))

    async def receive(self) -> Sequence[Delivery]:
        """Read what has come; see `Transport.receive`. The runner is notified of what the network has lost."""
        self._reading_since = self._node.tasks.now()
        try:
            return await self._transport.receive()
        except TransportError as error:
            if isinstance(error, DataLostError):
                log().error("accepted messages are lost: jobs that were under way end as failed", error=str(error))
                self._node.tell_runners(BusDataLostMessage(source=self._node.registry.runner_name))
            for name in self._served:  # a claim for us may be lost with its answer, and our demand with it
                self.capacity_changed(name)
            raise

    def claimed(self, request: BusJobRequestMessage, delivery: Delivery, frame_id: str, now: float) -> None:
        """Run a job that came from a queue, unless it was cancelled, given up on, or is here already.

        Raises:
            DecodeError: It was done here and is no redelivery: somebody has put the same frame into the queue again.
        """
        since = delivery.since or self._reading_since
        if now >= since + self._transport.ack_wait:  # we stood still while it lay here unread
            self.claims.refused += 1
            self.settle(delivery, Settlement.NAK, now)
            return
        request.attempt = delivery.attempt
        if self._repeated(request, delivery, frame_id, since, now):
            return
        done = self.claims.is_done(frame_id)
        if done and delivery.attempt == 1:
            raise DecodeError(f"frame {frame_id} was taken from this queue before, and its job done", "replayed")
        name = request.target or ""
        if not self._node.reaches(name):
            self.settle(delivery, Settlement.NAK, now)
            return
        request.attempt = self.claims.number(request, delivery.attempt)
        claim = self.claims.hold(request, delivery, frame_id, since, now)
        reason = self.claims.forbidden(request, frame_id)
        if reason is not None:
            self._answer_for(request, JobStatus.CANCELLED, ErrorInfo(type="JobCancelled", message=reason))
        elif done:  # its requester ignores this answer, unless the network has lost the first one
            self.claims.repeated += 1
            message = "it was done here before, and its answer is not kept any more"
            self._answer_for(request, JobStatus.FAILED, ErrorInfo(type="AnswerForgotten", message=message))
        elif (delivery.count or delivery.attempt) > self._max_deliver:
            message = f"given up after {self._max_deliver} deliveries: each of its performers died or lost its lease"
            self._answer_for(request, JobStatus.FAILED, ErrorInfo(type=DEAD_LETTERED, message=message))
        elif request.origin == self._node.address or self.informed.covers(request.origin, name, frame_id):
            self._node.deliver(request)
        else:
            self.claims.wait(claim)
            self.send(_running(claim))
        self.capacity_changed(name)

    def wanted(self, message: BusJobWantedMessage, frame_id: str) -> None:
        """Begin a job whose requester confirms that it still wants it."""
        name = message.target or ""
        if message.listed:
            self.informed.add(message.origin, name, frame_id)
        claim = self.claims.find((name, message.origin, message.source, message.job_id))
        if claim is not None and claim.waiting and claim.request.attempt == message.attempt:
            claim.request.timeout = message.timeout
            self._begin(claim)

    def send(self, message: Any) -> None:
        """Send a performer's message about a job to its requester, as long as the claim is ours."""
        claim = self._of_answer(message)
        if claim is None:  # its lease was lost: somebody else answers
            return
        if claim.delivery is None:
            self._node.put("direct", message.destination, message)
            claim.events += hasattr(message, "sequence")
            if isinstance(message, TERMINAL_MESSAGES):
                self.claims.end(claim, message)
                self.claims.release(claim)
        elif isinstance(message, TERMINAL_MESSAGES):
            self.claims.end(claim, message)
            if claim.delivery.attempt > message.attempt:  # it came again meanwhile: another may have had it before
                self._node.send_to(message.destination, message)
                message = later(message, claim.delivery.attempt)
            self._answer(claim, message)
        else:
            self._node.send_to(message.destination, message)

    def _answer(self, claim: Claim, answer: Any) -> None:
        """Send the answer to a job from a queue: its claim ends when the network has stored the answer."""
        address = claim.request.origin
        if address == self._node.address:
            self._node.send_to(address, answer)
            self._answered(claim, answer)
        elif gave_up(answer):
            self._node.put("inbox", address, answer, accepted=partial(self._answered, claim, answer))
        else:
            self._node.put("inbox", address, answer, accepted=partial(self._settled, claim), settles=claim)

    def _of_answer(self, message: Any) -> Claim | None:
        """The claim under which a message may go out; None if its lease was lost, be it by our own clock alone."""
        claim = self.claims.of_answer(message)
        leased = claim is not None and claim.delivery is not None
        if claim is not None and leased and self._node.tasks.now() >= claim.renewed + self._transport.ack_wait:
            self._check(claim, ours=False)  # we stood still for longer than it lasts
            claim = None
        self.claims.refused += claim is None
        message.asked = claim and claim.request.asked
        return claim

    def asked(self, request: BusJobRequestMessage, frame_id: str, now: float) -> None:
        """Run a job that came straight from its requester, or return it at once."""
        if self.claims.held(request) is not None:
            self._node.send_to(request.origin, in_use(request))
            return
        name = request.target or ""
        self.claims.hold(request, None, frame_id, now, now)
        reason = self.claims.forbidden(request, frame_id)
        serves = self.serves(name)
        room = self._node.deliver(request, force=False) if serves and reason is None else None
        if reason is not None:
            self._answer_for(request, JobStatus.CANCELLED, ErrorInfo(type="JobCancelled", message=reason))
        elif room is not None and room.refuses:
            full = ErrorInfo(type="MailboxFullError", message=str(room.refusal()), retryable=True)
            self._answer_for(request, JobStatus.FAILED, full)
        elif room is not None or not serves:
            self.give_back(request)

    def inquired(self, inquiry: BusJobInquiryMessage) -> None:
        """Say what is known of a job to a requester that has received nothing of it for a while."""
        claim, answer = self.claims.held(inquiry), self.claims.remembered(inquiry, inquiry.frame_id)
        if claim is not None and claim.frame_id == inquiry.frame_id:
            self._node.send_to(inquiry.origin, _running(claim))
        elif answer is not None:
            self._node.put("inbox", inquiry.origin, answer)
        else:
            self._node.send_to(inquiry.origin, returned(inquiry, may_have_run=True))

    def give_back(self, request: BusJobRequestMessage) -> bool:
        """Return a job that was not started to where it came from. False if it came from this process."""
        claim = self.claims.held(request)
        if claim is None:
            return False
        if claim.delivery is not None:
            self.claims.end(claim)
            self._settle(claim, Settlement.NAK)
        else:
            self.claims.release(claim)
            self._node.send_to(request.origin, returned(request, may_have_run=False))
        return True

    def pass_on(self, delivery: Delivery) -> bool:
        """Return a frame that we cannot verify to its queue, for others to try. False if enough have tried."""
        if delivery.attempt >= self._max_deliver:
            return False
        now = self._node.tasks.now()
        self._passing[delivery.queue] = now + PASSED_ON
        self.settle(delivery, Settlement.NAK, now)
        return True

    def resume(self, now: float | None = None) -> None:
        """Claim again from the queues whose frames were passed on: those whose time is over by `now`, or all."""
        for name, until in tuple(self._passing.items()):
            if now is None or now >= until:
                del self._passing[name]
                self.capacity_changed(name)

    def settle(self, delivery: Delivery, how: Settlement, renewed: float) -> None:
        """End a claim, as long as its lease lasts, and claim another job in its place."""
        self._outbox.settle(Settling(delivery, how, renewed))
        self.capacity_changed(delivery.queue)

    def _settled(self, claim: Claim) -> None:
        self.claims.release(claim)
        self.capacity_changed(claim.request.target or "")

    def _answered(self, claim: Claim, answer: Any) -> None:
        """End the claim of a job whose answer is safe."""
        self._settle(claim, Settlement.TERM if gave_up(answer) else Settlement.ACK)

    def _settle(self, claim: Claim, how: Settlement) -> None:
        self.claims.release(claim)
        if claim.delivery is not None:
            self.settle(claim.delivery, how, claim.renewed)

    def forbid(self, cancel: BusJobCancelMessage, origin: str, frame_id: str) -> bool:
        """Do not run a job that is cancelled before it is claimed. False if the one here was asked for later."""
        key = (cancel.target or "", origin, cancel.source, cancel.job_id)
        reason = cancel.reason or "cancelled"
        if origin == self._node.address and not self._node.reaches(key[0]):
            self._revocation.add(key, frame_id)
        claim = self.claims.find(key)
        if claim is None:
            forgotten = self.claims.forbid(key, reason, frame_id)
            if forgotten is not None:
                self.informed.forget(runner=forgotten[1], worker=forgotten[0])
        elif number_of(claim.frame_id) > number_of(frame_id):
            return False
        elif claim.waiting:
            self._answer_for(claim.request, JobStatus.CANCELLED, ErrorInfo(type="JobCancelled", message=reason))
        return True

    def stop_orphans(self) -> None:
        """Stop the jobs whose requesters are gone. A requester that is not known yet has a lease's time to appear."""
        now = self._node.tasks.now()
        for claim in self.claims.all():
            if now - claim.since > self._lease and self._liveness.is_gone(claim.request.origin, now):
                self._stop(claim, "the runner of its requester is gone")
            elif claim.waiting and now - claim.since > PATIENCE:
                self._begin(claim)

    async def run(self) -> None:
        """Renew the leases, until cancelled."""
        period = pause = self._transport.ack_wait / 3
        while True:
            await anyio.sleep(pause)
            pause = period
            self.resume(self._node.tasks.now())
            for claim in self.claims.all():
                if claim.delivery is None and self._node.connected:  # else these messages would pile up
                    self.send(_running(claim))
            leases = [lease for lease in self.all() if lease.delivery is not None]
            stuck = self._outbox.stuck(self._node.tasks.now())
            if leases and stuck:
                log().warning("nothing can be sent: leases are not renewed, so that others may have the jobs")
                self._check_all(leases)
            elif leases:
                now = self._node.tasks.now()
                try:
                    renewed = await self._transport.extend([lease.delivery for lease in leases if lease.delivery])
                except TransportError:
                    if self._node.closing:  # it failed because the bus is stopping
                        return
                    pause = period / 8
                    self._check_all(leases)
                    continue
                for lease, ours in zip(leases, renewed, strict=True):
                    if ours:
                        lease.renewed = now
                self._check_all(leases, renewed)

    def _check_all(self, leases: Sequence[Lease], renewed: Sequence[bool] | None = None) -> None:
        """Stop the jobs whose leases were not renewed; without an answer to that, those whose time is over."""
        if renewed is None:
            now = self._node.tasks.now()
            renewed = [now - lease.renewed < self._transport.ack_wait for lease in leases]
        for lease, ours in zip(leases, renewed, strict=True):
            if isinstance(lease, Claim):
                self._check(lease, ours=ours)

    def _begin(self, claim: Claim) -> None:
        self.claims.go_on(claim)
        self._node.deliver(claim.request)
        self.capacity_changed(claim.request.target or "")

    def _repeated(
        self, request: BusJobRequestMessage, delivery: Delivery, frame_id: str, since: float, now: float
    ) -> bool:
        """Whether the job is here, or was: then it does not run again."""
        known = self.claims.held(request)
        if known is not None:
            if known.frame_id != frame_id:
                claim = self.claims.answering(request, delivery, frame_id, since, now)
                self._answer(claim, in_use(request))
                return True
            self.claims.repeated += 1
            if (old := known.delivery) is not None and (delivery.attempt > old.attempt or delivery.token == old.token):
                known.delivery, known.renewed = delivery, since  # our lease had ended unnoticed, or was forgotten
                self.capacity_changed(delivery.queue)
            else:
                self.settle(delivery, Settlement.ACK, now)
            return True
        answer = self.claims.remembered(request, frame_id)
        if answer is None:
            return False
        self.claims.repeated += 1
        if request.origin == self._node.address:  # its answer did not travel, so it cannot be lost
            self.settle(delivery, Settlement.ACK, now)
            return True
        self._node.put("inbox", request.origin, answer)
        answer = later(answer, max(delivery.attempt, answer.attempt + 1))
        claim = self.claims.answering(request, delivery, frame_id, since, now)
        self._answer(claim, answer)
        return True

    def _answer_for(self, request: BusJobRequestMessage, status: JobStatus, error: ErrorInfo) -> None:
        """Answer a job that its worker never sees."""
        self.send(answered_by_bus(request, status, error))

    def _check(self, claim: Claim, *, ours: bool) -> None:
        request = claim.request
        if self.claims.held(request) is not claim:
            return
        if not ours:
            self.claims.lose(claim)
            self.capacity_changed(request.target or "")  # if it was not begun, no handler ends to free its slot
            self._stop(claim, "its lease was lost: another worker has it, or will")
        else:
            self.send(_running(claim))

    def _stop(self, claim: Claim, reason: str) -> None:
        request = claim.request
        if claim.waiting:
            self._answer_for(request, JobStatus.CANCELLED, ErrorInfo(type="JobCancelled", message=reason))
            return
        self._node.deliver(
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
        begun=not claim.waiting,
        asked=request.asked,
    )
