"""How a run is kept: its record, and where its parts lie. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from actors.runs.errors import RunLostError
from actors.runs.run import Lease, RunEvent, RunEventType, RunState, RunStatus


class Record(msgspec.Struct, frozen=True):
    """A run as it is kept.

    Attributes:
        status: What is known of it.
        beat: Counts every change and every sign of life of its owner.
        events: How many of its events count, once it has ended; -1 before.
    """

    status: RunStatus
    beat: int = 0
    events: int = -1


encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(Record).decode


def lease_of(record: Record) -> Lease:
    """The lease that a record shows."""
    status = record.status
    owner = status.owner if status.state is RunState.RUNNING else ""
    return Lease(status.run_id, owner, status.attempts, record.beat, status.cancel_requested_at is not None)


def require(record: Record, lease: Lease) -> None:
    """Refuse an owner that has lost the run.

    Raises:
        RunLostError: It has.
    """
    status = record.status
    if status.state is not RunState.RUNNING or status.attempts != lease.attempt:
        raise RunLostError(status.run_id, lease.attempt)


def last_event(record: Record) -> RunEvent:
    """The terminal event of a run that has ended. It is not stored: so there is exactly one, whoever died."""
    status = record.status
    kind = RunEventType.RUN_CANCELLED if status.state is RunState.CANCELLED else RunEventType.GROUP_COMPLETED
    error = msgspec.structs.asdict(status.error) if status.error is not None else None
    data = {"state": status.state.value, "error": error}
    return RunEvent(record.events, kind, None, data, status.attempts, status.finished_at or 0.0)


def event_key(run_id: str, offset: int) -> str:
    """Where an event is kept."""
    return f"event/{run_id}/{offset:010}"


def key_of(idempotency_key: str) -> str:
    """Where the run of an idempotency key is noted."""
    return "key/" + hashlib.blake2b(idempotency_key.encode(), digest_size=20).hexdigest()


def is_id(run_id: str) -> bool:
    """Whether a text may be the id of a run: nothing else reaches a database."""
    return bool(run_id) and all(letter in "0123456789abcdef-" for letter in run_id)


def is_over(status: RunStatus, now: float) -> bool:
    """Whether a run has ended and its time to live with it."""
    return status.ttl is not None and status.finished_at is not None and status.finished_at + status.ttl <= now
