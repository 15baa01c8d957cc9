"""The errors of the bus: one tree under `BusError`, each with typed fields and its own message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

Fault = Literal["caller", "remote", "system"]

Refusal = Literal[
    "oversized",
    "malformed",
    "unsigned",
    "unknown_key",
    "altered",
    "misdirected",
    "replayed",
    "misattributed",
    "undecodable",
    "undeliverable",
]
"""Why a frame was refused; `bus.refusals.RefusalStatistics` says what each means."""


class Portable:
    """Lets an exception be pickled and copied, whatever its `__init__` takes: with its text and all its attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """How pickle and copy make it again."""
        return _again, (type(self), self.args), self.__dict__  # type: ignore[attr-defined] # every exception has these


def _again(kind: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    error = kind.__new__(kind)
    error.args = arguments
    return error


_inner: Callable[[BaseExceptionGroup[Any]], tuple[BaseException, ...]] = vars(BaseExceptionGroup)["exceptions"].__get__
"""What is in a group, whatever its class says about that."""


def flattened(error: BaseException) -> list[BaseException]:
    """What is in an exception group, and in the groups in it, in order; the exception alone if it is none.

    Nothing that a user's class defines is asked.
    """
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if issubclass(type(each), BaseExceptionGroup):
            waiting.extend(reversed(_inner(cast("BaseExceptionGroup[Any]", each))))
        else:
            found.append(each)
    return found


class BusError(Portable, Exception):
    """Root of everything the bus raises.

    Attributes:
        retryable: Whether the same call may succeed later without a change by the caller.
        fault: Whose doing it was: the caller's, the remote side's, or the system's between them.
    """

    retryable: ClassVar[bool] = False
    fault: ClassVar[Fault] = "caller"


class InvalidNameError(BusError, ValueError):
    """A name breaks the one rule for names. Nothing was registered or sent."""

    def __init__(self, kind: str, name: object) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f"{kind} {name!r} is not a valid name: use 1 to 128 printable characters")


class DuplicateNameError(BusError, ValueError):
    """A name is taken. The first holder keeps it; nothing changed."""

    def __init__(self, kind: str, name: str, holder: str, advice: str = "choose another name") -> None:
        self.kind = kind
        self.name = name
        self.holder = holder
        super().__init__(f"{kind} {name!r} is already taken by {holder}: {advice}")


class EncodeError(BusError, TypeError):
    """A value cannot travel. Nothing was sent.

    Attributes:
        path: Where the value sits, e.g. `payload.items[3].when`.
        reason: What is wrong with it and what to use instead.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path} cannot travel: {reason}")


class DecodeError(BusError, ValueError):
    """A frame that must not be read, or cannot be: not one of ours, not signed by us, or of a type not known here.

    Attributes:
        reason: What is wrong with it, in one word.
        sender: The address it says it comes from, as far as that could be read: anybody may have written it.
    """

    fault = "remote"

    def __init__(self, message: str, reason: Refusal = "undecodable", sender: str = "") -> None:
        self.reason: Refusal = reason
        self.sender = sender
        super().__init__(message)


class MailboxFullError(BusError):
    """A mailbox had no room, at once (`when_full="refuse"`) or until the wait ran out. Nothing was queued."""

    retryable = True
    fault = "remote"

    def __init__(self, worker_name: str, capacity: int) -> None:
        self.worker_name = worker_name
        self.capacity = capacity
        super().__init__(
            f"the mailbox of worker {worker_name!r} is full ({capacity} waiting): "
            "send slower, or raise its mailbox_size or max_concurrency"
        )


class BusNotStartedError(BusError, RuntimeError):
    """The bus was used before `start()` or after `stop()`. Nothing was sent."""

    def __init__(self, action: str) -> None:
        super().__init__(
            f"cannot {action}: the bus is not started; use it inside `async with runner:`, "
            "while runner.run() is running, or after `await bus.start()`"
        )


class TransportError(BusError):
    """The network did not accept or deliver something in time. It may or may not have been stored."""

    retryable = True
    fault: ClassVar[Fault] = "system"


class BrokerError(BusError, RuntimeError):
    """A broker of our own could not be started, or was used in a state that does not allow it. None is left running."""

    fault = "system"


class AccessDeniedError(TransportError):
    """The broker is there and does not let us in, or refuses a right that is needed. Nothing was sent.

    While a bus starts this is raised, as nothing but another password, or more rights, would help; one that had been
    connected before tries again as in any outage.
    """

    retryable = False
    fault = "caller"


class DataLostError(TransportError):
    """The network is there again, but what it had stored is not: frames it had accepted never come."""


class PartlySentError(TransportError):
    """Some frames were not accepted, because of where they go; all others that were sent with them are stored.

    Attributes:
        missing: Ids of the frames that may not be stored.
    """

    def __init__(self, reason: str, missing: tuple[str, ...]) -> None:
        self.missing = missing
        super().__init__(reason)
