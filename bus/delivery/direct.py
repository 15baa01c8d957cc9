"""Jobs asked of other runners at most once: who has which, and what becomes of those that get no answer."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from bus.delivery.leases import Leases
from bus.errors import EncodeError
from bus.local.mailbox import Room
from bus.local.registry import WorkerLostData, WorkerReadyData
from bus.membership.liveness import Liveness
from bus.messages import (
    TERMINAL_MESSAGES,
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobLostMessage,
    BusJobRequestMessage,
    BusJobReturnedMessage,
    BusJobRunningMessage,
    ErrorInfo,
)
from bus.transport.node import Node
from bus.transport.outbox import CAPACITY, DirectOutbox

Key = tuple[str, str, str]
"""Worker, requester, job id."""

JOB_LOST = "JobLost"
"""Type of the error of a job whose performer or answer was lost."""

_Talk = Any
"""A message of `JOB_TALK`: what a performer says about a job."""


class DirectStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a `Direct`.

    Attributes:
        asked: Jobs that another runner has, or was asked for.
        parked: Jobs that wait for somebody to take them (requests that can wait do so beyond 10,000).
        waiting: Frames that wait to be sent.
        lost: Jobs that were given up as lost so far.
    """

    asked: int
    parked: int
    waiting: int
    lost: int


class _Ask(msgspec.Struct):
    """One job that was asked for, and what is known of it.

    Attributes:
        key: What it is known by.
        request: Its request.
        deadline: When it must be over.
        address: The runner that has it; empty while it waits for one.
        frame_id: Id of the frame in which it was asked for.
        refused: The runners that have returned it.
        sent: When it was asked for.
        seen: When its performer last sent something of it.
        inquired: When its performer was last asked about it.
        expected: How many events have come without a gap.
        known: How many events were sent, as far as is known.
        total: The number of the last event, once that has come.
        early: Numbers of the events that came after a gap.
        gap_since: Since when an event is missing.
        gone_since: Since when the runner of its performer is gone.
    """

    key: Key
    request: BusJobRequestMessage
    deadline: float
    address: str = ""
    frame_id: str = ""
    refused: tuple[str, ...] = ()
    sent: float = 0.0
    seen: float = 0.0
    inquired: float = 0.0
    expected: int = 0
    known: int = 0
    total: int | None = None
    early: dict[int, None] | None = None
    gap_since: float | None = None
    gone_since: float | None = None


class Direct:
    """Asks one known replica for each job, and makes sure that each job ends.

    * A request goes straight to its performer. It is never sent to a second one unless the first says that it has not
      begun the job and never will.
    * While nobody is known to take jobs of that name, or all are full, the job waits here: the broker stores nothing
      of it.
    * A job fails as lost when the runner of its performer is gone, when its performer knows nothing of it, or when one
      of its events stays missing: nobody can tell then whether it has run.

    Args:
        node: Who it works for.
        leases: Knows whether a worker here can take a job.
        liveness: Knows which performers are gone.
        outbox: Sends the requests.
        lease: Seconds of silence after which a performer is asked about a job.
    """

    def __init__(self, node: Node, leases: Leases, liveness: Liveness, outbox: DirectOutbox, *, lease: float) -> None:
        self._node = node
        self._outbox = outbox
        self._leases = leases
        self._liveness = liveness
        self._lease = lease
        self._asked: dict[Key, _Ask] = {}
        self._parked: dict[str, dict[Key, _Ask]] = {}
        self._room = Room("the network", CAPACITY, node.tasks)
        self._load: dict[str, int] = {}
        self._turn = 0
        self._lost = 0

    def statistics(self) -> DirectStatistics:
        """How much there is now."""
        return DirectStatistics(len(self._asked), self._room.taken, self._outbox.waiting, self._lost)

    def ask(self, request: BusJobRequestMessage, *, force: bool, not_here: bool = False) -> Room | None:
        """Ask for a job, as soon as there is somebody to do it. Returns the room to wait for if there is none."""
        left = math.inf if request.timeout is None else request.timeout
        name = request.target or ""
        ask = _Ask((name, request.source, request.job_id), request, self._node.tasks.now() + left)
        if not_here:
            ask.refused = (self._node.address,)
        # It overtakes none of those that wait, unless it is asked for inside a job for which they may be waiting.
        lines_up = name in self._parked and not any(entry.endswith(f"@{name}") for entry in request.lineage)
        address = "" if lines_up else self._choose(ask)
        if not address and not not_here and self._leases.serves(name):
            return self._node.deliver(request, force=force)
        room = self._outbox.room if address else self._room
        if room.taken >= room.capacity and not force:
            return room
        if address:
            self._send(ask, address)
        else:
            self._park(ask)
        return None

    def asked(self) -> list[Key]:
        """The jobs that have not ended."""
        return [*self._asked, *(key for parked in self._parked.values() for key in parked)]

    def cancel(self, message: BusJobCancelMessage) -> bool:
        """Pass a cancellation on to the runner that has the job. False if the job is none of these."""
        key = (message.target or "", message.source, message.job_id)
        ask = self._asked.get(key)
        if ask is not None:
            self._drop(ask)
            self._node.put("inbox", ask.address, message)
            self._released(key[0], ask.address)
            return True
        ask = self._parked.get(key[0], {}).get(key)
        if ask is not None:
            self._unpark(ask)
        return ask is not None

    def receive(self, message: _Talk, now: float) -> bool:
        """Note what a performer says about a job. False if another runner has the job: then it is not passed on."""
        ask = self._asked.get((message.source, message.target or "", message.job_id))
        if ask is None or getattr(message, "asked", None) not in {None, ask.request.asked}:
            return True
        if message.origin != ask.address:
            return False
        ask.seen = now
        if isinstance(message, BusJobRunningMessage):
            ask.known = max(ask.known, message.events)
        elif hasattr(message, "sequence"):
            self._take(ask, message, now)
        if ask.known <= ask.expected:
            ask.gap_since = None
        elif ask.gap_since is None:
            ask.gap_since = now
        if ask.total is not None and ask.expected > ask.total:
            self._drop(ask)
            if message.source in self._parked:
                self._released(message.source, message.origin)
        return True

    def returned(self, message: BusJobReturnedMessage) -> None:
        """Ask another runner for a job that was returned, unless the first may have begun it."""
        ask = self._asked.get((message.source, message.target or "", message.job_id))
        if ask is None or message.origin != ask.address:
            return
        if message.may_have_run and ask.inquired == ask.sent:
            return  # it speaks of an earlier time that it was asked, and gave the job back
        if message.may_have_run:
            self._fail(ask, self._loss(ask, "its performer knows nothing of it"))
            return
        self._drop(ask)
        ask.refused = (*ask.refused, ask.address)
        ask.request.attempt += 1  # tells what the first one has said of it from what the next one says
        self._place(ask)

    def changed(self, change: WorkerReadyData | WorkerLostData) -> None:
        """Try again with what waits for a name that somebody serves now."""
        if not isinstance(change, WorkerReadyData) or change.worker_name not in self._parked:
            return
        for ask in list(self._parked[change.worker_name].values()):
            ask.refused = tuple(address for address in ask.refused if address != change.address)
            self._retry(ask)

    def check(self, now: float) -> None:
        """Give up what is lost, ask about what is silent, and try again with what nobody took.

        It is called at every heartbeat.
        """
        for ask in list(self._asked.values()):
            if self._asked.get(ask.key) is not ask:
                continue  # it has ended with another one
            if self._liveness.is_alive(ask.address):
                ask.gone_since = None
            elif ask.gone_since is None:
                ask.gone_since = now  # what it sent last may be on its way
            else:
                self._fail(ask, self._loss(ask, "the runner of its performer is gone"))
                continue
            if ask.gap_since is not None and now - ask.gap_since > self._lease:
                self._fail(ask, self._loss(ask, "an answer of its performer was lost"))
            elif now - max(ask.seen, ask.inquired) > self._lease:
                ask.inquired = now
                self._inquire(ask)
        for name in list(self._parked):
            for ask in list(self._parked.get(name, {}).values()):
                ask.refused = ()
            self._released(name, "")

    # --- placing ---

    def _choose(self, ask: _Ask) -> str:
        """The replica with the fewest jobs of ours, in turn; empty if none can be asked."""
        name = ask.key[0]
        addresses = [
            address
            for replica in self._node.registry.remote_replicas(name)
            if replica.active and (address := replica.address) not in ask.refused and self._liveness.is_alive(address)
        ]
        if len(addresses) > 1:
            self._turn += 1
            first = self._turn % len(addresses)
            addresses = addresses[first:] + addresses[:first]
            return min(addresses, key=lambda address: self._load.get(address, 0))
        return addresses[0] if addresses else ""

    def _send(self, ask: _Ask, address: str) -> None:
        """Ask one replica.

        Raises:
            EncodeError: The request cannot travel; nothing has changed.
        """
        now = self._node.tasks.now()
        if ask.deadline != math.inf:
            ask.request.timeout = max(ask.deadline - now, 0.0)
        ask.frame_id = self._node.put("direct", address, ask.request, bounded=True)
        ask.address = address
        ask.sent = ask.seen = ask.inquired = now
        ask.gone_since = None
        self._asked[ask.key] = ask
        self._load[address] = self._load.get(address, 0) + 1

    def _place(self, ask: _Ask) -> None:
        """Ask whoever can take a job, in this process or another, or let the job wait."""
        name = ask.key[0]
        address = self._choose(ask)
        here = self._node.address not in ask.refused and self._leases.serves(name)
        if here and (not address or self._leases.free(name) > 0):
            if ask.deadline != math.inf:
                ask.request.timeout = max(ask.deadline - self._node.tasks.now(), 0.0)
            if self._node.deliver(ask.request, force=False) is not None:
                self._park(ask)
        elif address:
            try:
                self._send(ask, address)
            except EncodeError as error:
                self._fail(ask, ErrorInfo(type=type(error).__name__, message=str(error)))
        else:
            self._park(ask)

    def _retry(self, ask: _Ask) -> None:
        """Look again for somebody to take a job, if it still waits."""
        if self._parked.get(ask.key[0], {}).get(ask.key) is ask:
            self._unpark(ask)
            self._place(ask)

    def _released(self, name: str, address: str) -> None:
        """Let two waiting jobs try, as a replica has one job less: so those that wait are soon placed."""
        for ask in list(self._parked.get(name, {}).values())[:2]:
            ask.refused = tuple(each for each in ask.refused if each != address)
            self._retry(ask)

    def _park(self, ask: _Ask) -> None:
        ask.address = ""
        self._parked.setdefault(ask.key[0], {})[ask.key] = ask
        self._room.taken += 1

    def _unpark(self, ask: _Ask) -> None:
        name = ask.key[0]
        del self._parked[name][ask.key]
        if not self._parked[name]:
            del self._parked[name]
        self._room.give()

    # --- ending ---

    def _take(self, ask: _Ask, message: _Talk, now: float) -> None:
        """Note that an event has come."""
        sequence = message.sequence
        if sequence >= ask.known:
            ask.known = sequence + 1
        if isinstance(message, TERMINAL_MESSAGES):
            ask.total = sequence
        if sequence > ask.expected:
            ask.early = ask.early or {}
            ask.early[sequence] = None
        elif sequence == ask.expected:
            ask.expected += 1
            ask.gap_since = now
            while ask.early and ask.expected in ask.early:
                del ask.early[ask.expected]
                ask.expected += 1

    def _inquire(self, ask: _Ask) -> None:
        request = ask.request
        inquiry = BusJobInquiryMessage(
            source=request.source, target=request.target, job_id=request.job_id, frame_id=ask.frame_id
        )
        self._node.put("inbox", ask.address, inquiry)

    def _loss(self, ask: _Ask, why: str) -> ErrorInfo:
        self._lost += 1
        message = f"{why} ({ask.address}): asked for at most once, it may or may not have run"
        return ErrorInfo(type=JOB_LOST, message=message, retryable=True)

    def _fail(self, ask: _Ask, error: ErrorInfo) -> None:
        """Tell a requester that there will be no answer, and the performer to stop."""
        worker, requester, job_id = ask.key
        self._node.deliver(BusJobLostMessage(source=worker, target=requester, job_id=job_id, error=error))
        self.cancel(BusJobCancelMessage(source=requester, target=worker, job_id=job_id, reason=error.message))

    def _drop(self, ask: _Ask) -> None:
        del self._asked[ask.key]
        load = self._load[ask.address] - 1
        if load:
            self._load[ask.address] = load
        else:
            del self._load[ask.address]
