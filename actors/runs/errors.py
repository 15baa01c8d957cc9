"""What can go wrong with runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.jobs.errors import ActorError

if TYPE_CHECKING:
    from actors.runs.run import RunStatus


class RunError(ActorError):
    """The root of the errors of runs."""


class RunStoreError(RunError):
    """The store cannot be reached, is full or broken. What it had accepted it still has; the same may work later."""

    retryable = True


class RunNotFoundError(RunError, LookupError):
    """There is no such run, or not any more.

    Attributes:
        run_id: Which.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id!r}: it was never submitted here, was deleted, or its time is over")
        self.run_id = run_id


class RunStateError(RunError):
    """The run's state does not allow that."""


class RunValueError(RunError):
    """A value that is kept of a run has an object of a type that this process does not know. It stays where it is.

    Attributes:
        run_id: Which.
    """

    def __init__(self, run_id: str, what: str, reason: str) -> None:
        super().__init__(f"{what} of run {run_id!r} cannot be read here: {reason}")
        self.run_id = run_id


class RunConflictError(RunError):
    """Another request was submitted under that idempotency key.

    Attributes:
        idempotency_key: The key.
        run_id: The run that has it.
    """

    def __init__(self, idempotency_key: str, run_id: str) -> None:
        super().__init__(
            f"idempotency key {idempotency_key!r} belongs to run {run_id}, which does something else: "
            "use one key for one request"
        )
        self.idempotency_key = idempotency_key
        self.run_id = run_id


class RunLostError(RunError):
    """Another owner has taken the run: what this one has to say does not count any more.

    Attributes:
        run_id: Which.
        attempt: The attempt that is over.
    """

    def __init__(self, run_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} at run {run_id!r} is over: another owner has it, or it has ended")
        self.run_id = run_id
        self.attempt = attempt


class RunFailedError(RunError):
    """The run failed, or was cancelled: there is no result.

    Attributes:
        status: What is known of it.
    """

    def __init__(self, status: RunStatus) -> None:
        why = f": {status.error.message}" if status.error is not None else ""
        super().__init__(f"run {status.run_id!r} is {status.state.value}{why}")
        self.status = status
