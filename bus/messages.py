"""The messages that travel on a bus: a closed set, plus the types that users derive from it."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec.structs import force_setattr

from bus.log import LONGEST_TRACEBACK, said

MOST_CHUNKS = 64
"""Chunks that share a frame."""


class JobStatus(StrEnum):
    """How a job ended. Compares equal to its plain string.

    Attributes:
        COMPLETED: The handler returned or responded.
        CANCELLED: The job was stopped: by its requester, or because its performer stopped.
        FAILED: It could not be done: nobody served it in time, its deadline passed, its payload was refused.
        ERROR: The handler raised.
    """

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERROR = "error"


class ErrorInfo(msgspec.Struct, frozen=True):
    """What went wrong in a job, as it travels.

    Attributes:
        type: Name of the exception's class.
        message: Its text, at most 1,000 characters; like the others made one if it is none.
        traceback: Its traceback, if the performer's runner sends them (`tracebacks=True`).
        retryable: Whether the same job may succeed when asked for again.
        worker: Who met it, if that was another than who answered: the worker that does a job inside the job.
    """

    type: str
    message: str
    traceback: str | None = None
    retryable: bool = False
    worker: str | None = None

    def __post_init__(self) -> None:
        """Make what users say texts that can be told everywhere: no error may be lost by its text."""
        force_setattr(self, "type", said(self.type, 200))
        force_setattr(self, "message", said(self.message))
        if self.traceback is not None:
            force_setattr(self, "traceback", said(self.traceback, LONGEST_TRACEBACK))
        if self.worker is not None:
            force_setattr(self, "worker", said(self.worker))
        force_setattr(self, "retryable", self.retryable is True)

    def __str__(self) -> str:
        text = f"{self.type}: {self.message}" if self.message else self.type
        return f"{text} (on worker {self.worker!r})" if self.worker is not None else text


class _MessageType(msgspec.StructMeta):
    """Lets `@dataclass` stand on a message class: msgspec has already made what it would make."""

    _MADE = frozenset({"__match_args__", "__init__", "__repr__", "__eq__"})

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> type:
        for attribute, value in tuple(namespace.items()):
            if isinstance(value, dataclasses.Field):
                del namespace[attribute]
                if value.default_factory is not dataclasses.MISSING:
                    namespace[attribute] = msgspec.field(default_factory=value.default_factory)
                elif value.default is not dataclasses.MISSING:
                    namespace[attribute] = value.default
        return super().__new__(mcs, name, bases, namespace, **options)

    def __setattr__(cls, name: str, value: object) -> None:
        if name not in cls._MADE:
            super().__setattr__(name, value)


class BusMessage(msgspec.Struct, kw_only=True, metaclass=_MessageType):
    """Base of everything on a bus.

    Attributes:
        source: Name of the worker, client or runner that sent it.
        target: Name of the recipient; None reaches every subscriber that listens.
        origin: Address of the runner it came from; empty when it came from this process. Set by the bus.
        destination: Address of the runner it must reach; empty means wherever the target is.
    """

    urgent: ClassVar[bool] = False

    source: str
    target: str | None = None
    origin: str = ""
    destination: str = ""


class BusDataMessage(BusMessage):
    """A message of normal priority: handled in order, one at a time."""


class BusSystemMessage(BusMessage):
    """A message that overtakes data messages and is handled while a data hook is still blocked."""

    urgent: ClassVar[bool] = True


class _Reasoned:
    """Mixin: the message says why, in words of a user's that are made a text which can be told everywhere."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name in ("reason", "error"):
            words = getattr(self, name, None)
            if words is not None:
                setattr(self, name, said(words))


class BusLocalMessage:
    """Mixin: the message never leaves the process and may carry anything."""

    __slots__ = ()


class BusActivateWorkerMessage(BusDataMessage, kw_only=True):
    """Makes a worker active; `args` reach its `on_activated`."""

    args: dict[str, Any] | None = None


class BusDeactivateWorkerMessage(BusDataMessage, kw_only=True):
    """Makes a worker inactive: it gets no new jobs or data messages."""


class BusEndMessage(_Reasoned, BusSystemMessage, kw_only=True):
    """Asks the runners of a session to end gracefully.

    Attributes:
        reason: Why, for people.
        session: The session to end; None means only the runner that hosts the source.
    """

    reason: str | None = None
    session: str | None = None


class BusEndWorkerMessage(_Reasoned, BusSystemMessage, kw_only=True):
    """Tells a worker to end gracefully: its children first, its running jobs drained."""

    reason: str | None = None


class BusCancelMessage(_Reasoned, BusSystemMessage, kw_only=True):
    """Asks the runners of a session to stop at once. Fields as in `BusEndMessage`."""

    reason: str | None = None
    session: str | None = None


class BusCancelWorkerMessage(_Reasoned, BusSystemMessage, kw_only=True):
    """Tells a worker to stop at once: its jobs are cancelled."""

    reason: str | None = None


class BusDataLostMessage(BusSystemMessage, BusLocalMessage, kw_only=True):
    """Tells the runner of this process that the network has lost what it had stored."""


class BusAddWorkerMessage(BusSystemMessage, BusLocalMessage, kw_only=True):
    """Asks the runner of this process to add a worker object."""

    worker: Any


class BusWorkerRegistryMessage(BusSystemMessage, kw_only=True):
    """A runner's list of workers: all of it, or the part of that index out of so many."""

    runner: str
    workers: list[WorkerRegistryEntry]
    version: int = 0
    part: tuple[int, int] = (0, 1)


class BusWorkerReadyMessage(BusSystemMessage, kw_only=True):
    """A worker is ready, or changed between active and inactive."""

    runner: str
    worker_name: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None
    version: int = 0
    topics: tuple[str, ...] = ()


class BusWorkerLostMessage(_Reasoned, BusSystemMessage, kw_only=True):
    """A worker is gone."""

    runner: str
    worker_name: str
    reason: str | None = None
    version: int = 0


class BusRunnerBeatMessage(BusSystemMessage, kw_only=True):
    """A runner is alive. `version` counts the changes of its list; `leaving` says goodbye, `asks` asks for one back."""

    runner: str
    version: int = 0
    leaving: bool = False
    asks: bool = False


class BusRegistryRequestMessage(BusSystemMessage, kw_only=True):
    """Asks one runner for its list of workers."""


class BusWorkerErrorMessage(_Reasoned, BusSystemMessage, kw_only=True):
    """A root worker reports an error."""

    error: str


class BusWorkerLocalErrorMessage(_Reasoned, BusSystemMessage, BusLocalMessage, kw_only=True):
    """A child reports an error to its parent."""

    error: str


class BusJobRequestMessage(BusDataMessage, kw_only=True):
    """Asks a worker to do a job.

    Attributes:
        job_id: Identity of the job; shared by all members of a group.
        job_name: Which handler; None means `on_job_request`.
        payload: The caller's value.
        timeout: Seconds left until the deadline when this was sent; None for none.
        window: How many events (updates, chunks) may be sent before the requester grants more.
        attempt: 1, and one more for each redelivery.
        lineage: Inside what it was asked for, outermost first: `job@worker` for a job, `@worker` for a hook.
        trace: Trace context, W3C `traceparent`.
        trace_state: What belongs to it, W3C `tracestate`.
        run: The run it is part of.
        delivery: `at_least_once` or `at_most_once`; None is the bus's setting.
        asked: Tells this time from others that it is asked for under an id that its requester chose; answers repeat it.
    """

    job_id: str
    job_name: str | None = None
    payload: Any = None
    timeout: float | None = None
    window: int = 256
    attempt: int = 1
    lineage: tuple[str, ...] = ()
    trace: str | None = None
    delivery: str | None = None
    asked: str | None = None
    trace_state: str | None = None
    run: str | None = None


class _JobEventMessage(BusDataMessage, kw_only=True):
    """What the events of one job share: `sequence` counts from 0 within an `attempt`."""

    job_id: str
    sequence: int = 0
    attempt: int = 1
    asked: str | None = None


class BusJobResponseMessage(_JobEventMessage, kw_only=True):
    """The one terminal answer to a job.

    Attributes:
        status: How it ended.
        response: What its handler answered.
        error: What went wrong; None if it completed.
        cause: The exception itself, in the process where it was raised: it never travels.
    """

    status: JobStatus
    response: Any = None
    error: ErrorInfo | None = None
    cause: Any = None


class BusJobResponseUrgentMessage(BusJobResponseMessage, kw_only=True):
    """A response that overtakes queued hooks and data of other jobs."""

    urgent: ClassVar[bool] = True


class BusJobUpdateMessage(_JobEventMessage, kw_only=True):
    """Progress of a job."""

    update: Any = None


class BusJobUpdateUrgentMessage(BusJobUpdateMessage, kw_only=True):
    """An update that overtakes queued hooks and data of other jobs."""

    urgent: ClassVar[bool] = True


class BusJobStreamStartMessage(_JobEventMessage, kw_only=True):
    """A job begins to stream."""

    data: Any = None


class BusJobStreamDataMessage(_JobEventMessage, kw_only=True):
    """One chunk of a stream."""

    data: Any = None


class BusJobStreamChunksMessage(_JobEventMessage, kw_only=True):
    """Consecutive chunks of a stream, on their way in one frame: each as bytes, the first of them has `sequence`."""

    chunks: Annotated[list[bytes], msgspec.Meta(max_length=MOST_CHUNKS)]


class BusJobStreamEndMessage(_JobEventMessage, kw_only=True):
    """The stream ended, and with it the job: `data` is the response."""

    data: Any = None


class BusJobStreamCreditMessage(BusSystemMessage, kw_only=True):
    """The requester has room for events of this attempt up to, not including, sequence `limit`."""

    job_id: str
    limit: int
    attempt: int = 1


class BusJobUpdateRequestMessage(BusDataMessage, kw_only=True):
    """Asks the performer for an update."""

    job_id: str


class BusJobCancelMessage(_Reasoned, BusSystemMessage, kw_only=True):
    """Cancels a job."""

    job_id: str
    reason: str | None = None


class BusJobRunningMessage(BusSystemMessage, kw_only=True):
    """A performer holds a job, of which `events` were sent; it is not `begun` before it is wanted.

    Who does not know the job cancels it.
    """

    job_id: str
    attempt: int = 1
    events: int = 0
    begun: bool = True
    asked: str | None = None


class BusJobWantedMessage(BusSystemMessage, kw_only=True):
    """The requester still waits for a job; `timeout` is left. If `listed`, its runner knows whom to tell of cancels."""

    job_id: str
    attempt: int = 1
    timeout: float | None = None
    listed: bool = False


class BusJobInquiryMessage(BusSystemMessage, kw_only=True):
    """Asks the runner of a performer what has become of a job that runs at most once: what that frame asked for."""

    job_id: str
    frame_id: str = ""


class BusJobReturnedMessage(BusSystemMessage, kw_only=True):
    """The runner of a performer does not have a job that runs at most once; unless it `may_have_run`, it never will."""

    job_id: str
    may_have_run: bool = False


class BusJobLostMessage(BusSystemMessage, BusLocalMessage, kw_only=True):
    """The bus tells a requester in this process that a job will get no answer."""

    job_id: str
    error: ErrorInfo


class BusTopicMessage(BusDataMessage, kw_only=True):
    """Something published on a topic. Without a target it is for all who follow that where it arrives."""

    topic: str
    data: Any = None


JOB_TALK = (_JobEventMessage, BusJobStreamCreditMessage, BusJobRunningMessage)
"""What the two ends of one job say to each other, and nobody else has to hear."""

TERMINAL_MESSAGES = (BusJobResponseMessage, BusJobStreamEndMessage)
"""The messages that end a job."""

RUNNER_MESSAGES = (
    BusEndMessage,
    BusCancelMessage,
    BusAddWorkerMessage,
    BusDataLostMessage,
    BusWorkerRegistryMessage,
    BusWorkerReadyMessage,
    BusWorkerLostMessage,
    BusRunnerBeatMessage,
    BusRegistryRequestMessage,
)
"""The messages between runners; workers do not see them."""


class WorkerRegistryEntry(msgspec.Struct, frozen=True):
    """One worker in a snapshot of a runner.

    Attributes:
        name: The worker's name.
        parent: Name of its parent, None for a root worker.
        active: Whether it takes jobs.
        bridged: Always False for workers without a media pipeline; kept for compatibility.
        started_at: Unix time when it became ready.
        topics: The topics it follows (at most 100).
    """

    name: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None
    topics: tuple[str, ...] = ()
