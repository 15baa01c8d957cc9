"""How messages travel between actors: buses, messages, the registry."""

import typing as _typing

from bus.bus import BusStatistics, WorkerBus
from bus.codec import register_message
from bus.dead_letters import DEAD_LETTERED, DeadLetter, DeadLetters
from bus.direct import JOB_LOST
from bus.errors import (
    AccessDeniedError,
    BrokerError,
    BusError,
    BusNotStartedError,
    DecodeError,
    DuplicateNameError,
    EncodeError,
    InvalidNameError,
    MailboxFullError,
    TransportError,
)
from bus.local import AsyncQueueBus
from bus.messages import (
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDataLostMessage,
    BusDataMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobInquiryMessage,
    BusJobLostMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobReturnedMessage,
    BusJobRunningMessage,
    BusJobStreamChunksMessage,
    BusJobStreamCreditMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusJobWantedMessage,
    BusLocalMessage,
    BusMessage,
    BusRegistryRequestMessage,
    BusRunnerBeatMessage,
    BusSystemMessage,
    BusTopicMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerLostMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    ErrorInfo,
    JobStatus,
)
from bus.names import check_name, nearest
from bus.network import NetworkBus
from bus.registry import WorkerErrorData, WorkerLostData, WorkerReadyData, WorkerRegistry
from bus.registry_entry import WorkerRegistryEntry
from bus.retry import Backoff
from bus.shapes import register_type
from bus.subscriber import BusSubscriber
from bus.transport import DeadFrame, DeadFrames, Delivery, KeepsDeadLetters, Outgoing, Settlement, Transport
from bus.url import open_bus
from bus.values import PayloadError, convert, travel

if _typing.TYPE_CHECKING:
    from bus.nats_bus import NatsBus
    from bus.redis_bus import RedisBus

__all__ = [
    "DEAD_LETTERED",
    "JOB_LOST",
    "AccessDeniedError",
    "AsyncQueueBus",
    "Backoff",
    "BrokerError",
    "BusActivateWorkerMessage",
    "BusAddWorkerMessage",
    "BusCancelMessage",
    "BusCancelWorkerMessage",
    "BusDataLostMessage",
    "BusDataMessage",
    "BusDeactivateWorkerMessage",
    "BusEndMessage",
    "BusEndWorkerMessage",
    "BusError",
    "BusJobCancelMessage",
    "BusJobInquiryMessage",
    "BusJobLostMessage",
    "BusJobRequestMessage",
    "BusJobResponseMessage",
    "BusJobResponseUrgentMessage",
    "BusJobReturnedMessage",
    "BusJobRunningMessage",
    "BusJobStreamChunksMessage",
    "BusJobStreamCreditMessage",
    "BusJobStreamDataMessage",
    "BusJobStreamEndMessage",
    "BusJobStreamStartMessage",
    "BusJobUpdateMessage",
    "BusJobUpdateRequestMessage",
    "BusJobUpdateUrgentMessage",
    "BusJobWantedMessage",
    "BusLocalMessage",
    "BusMessage",
    "BusNotStartedError",
    "BusRegistryRequestMessage",
    "BusRunnerBeatMessage",
    "BusStatistics",
    "BusSubscriber",
    "BusSystemMessage",
    "BusTopicMessage",
    "BusWorkerErrorMessage",
    "BusWorkerLocalErrorMessage",
    "BusWorkerLostMessage",
    "BusWorkerReadyMessage",
    "BusWorkerRegistryMessage",
    "DeadFrame",
    "DeadFrames",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Delivery",
    "DuplicateNameError",
    "EncodeError",
    "ErrorInfo",
    "InvalidNameError",
    "JobStatus",
    "KeepsDeadLetters",
    "MailboxFullError",
    "NatsBus",
    "NetworkBus",
    "Outgoing",
    "PayloadError",
    "RedisBus",
    "Settlement",
    "Transport",
    "TransportError",
    "WorkerBus",
    "WorkerErrorData",
    "WorkerLostData",
    "WorkerReadyData",
    "WorkerRegistry",
    "WorkerRegistryEntry",
    "check_name",
    "convert",
    "nearest",
    "open_bus",
    "register_message",
    "register_type",
    "travel",
]


def __getattr__(name: str) -> object:
    if name == "RedisBus":  # each loads its client library: only for who asks
        from bus.redis_bus import RedisBus  # noqa: PLC0415

        return RedisBus
    if name == "NatsBus":
        from bus.nats_bus import NatsBus  # noqa: PLC0415

        return NatsBus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
