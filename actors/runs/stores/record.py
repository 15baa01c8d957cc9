"""How a run is kept: its record, and where its parts lie. Pure."""

from __future__ import annotations

import hashlib
import re

import msgspec

from actors.runs.errors import RunLostError, RunStoreError
from actors.runs.run import Lease, RunEvent, RunEventType, RunState, RunStatus
from bus import ErrorInfo

LAST_MOMENT = 2**44 - 1
"""Milliseconds of Unix time: what eleven hexadecimal digits can say. What is later counts as this."""

MOST_TEXT = 8192
"""Letters of an error that are kept. It is part of the record, which is written again at each sign of life."""


class Record(msgspec.Struct, frozen=True):
    """A run as it is kept.

    Attributes:
        status: What is known of it.
        beat: Counts every change and every sign of life of its owner.
    """

    status: RunStatus
    beat: int = 0


encode_record = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
_is_id = re.compile(r"[0-9a-f]{11}-[0-9a-f]{10}").fullmatch


def decode_record(run_id: str, value: bytes) -> Record:
    """The record that was kept.

    Raises:
        RunStoreError: It is none.
    """
    try:
        return _decode(value)
    except msgspec.DecodeError as error:
        raise RunStoreError(f"the record of run {run_id} is broken, or of a later version: {error}") from error


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


def last_event(record: Record, offset: int = 0) -> RunEvent:
    """The terminal event of a run that has ended. It follows from the record: anybody can add it, whoever died."""
    status = record.status
    kind = RunEventType.RUN_CANCELLED if status.state is RunState.CANCELLED else RunEventType.GROUP_COMPLETED
    error = msgspec.structs.asdict(status.error) if status.error is not None else None
    data = {"state": status.state.value, "error": error}
    return RunEvent(offset, kind, None, data, status.attempts, status.finished_at or 0.0)


def kept_error(error: ErrorInfo | None) -> ErrorInfo | None:
    """An error as it can be kept: of bounded length, and without letters that are none."""
    if error is None:
        return None
    trace = _kept_text(error.traceback) if error.traceback is not None else None
    return msgspec.structs.replace(
        error, type=_kept_text(error.type), message=_kept_text(error.message), traceback=trace
    )


def _kept_text(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT // 2]} [...] {text[-MOST_TEXT // 2 :]}"


def run_key(run_id: str) -> str:
    """Where the record of a run is kept."""
    return f"run/{run_id}"


def request_key(run_id: str) -> str:
    """Where it is kept what a run is to do."""
    return f"request/{run_id}"


def open_key(run_id: str) -> str:
    """What there is for each run that has not ended, or is being entered: so nobody need look at all the others."""
    return f"open/{run_id}"


def over_key(run_id: str, over_at: float) -> str:
    """What there is for each run that is to be forgotten at some time, in the order of these times."""
    return f"over/{stamp(over_at)}-{run_id}"


def result_key(run_id: str, attempt: int) -> str:
    """Where the result of an attempt is kept."""
    return f"result/{run_id}/{attempt}"


def event_key(run_id: str, offset: int) -> str:
    """Where an event is kept."""
    return f"event/{run_id}/{offset:010}"


def claim_key(idempotency_key: str) -> str:
    """Where the run of an idempotency key is noted."""
    return "key/" + hashlib.blake2b(idempotency_key.encode(), digest_size=20).hexdigest()


def stamp(time: float) -> str:
    """A time as a text that sorts like it."""
    return f"{int(min(max(time, 0.0) * 1000, LAST_MOMENT)):011x}"


def is_id(run_id: str) -> bool:
    """Whether a text may be the id of a run: nothing else reaches a database."""
    return _is_id(run_id) is not None
