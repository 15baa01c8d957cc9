"""How messages travel between actors: buses, messages, the registry."""

import typing as _typing

from bus.backoff import Backoff
from bus.delivery.direct import JOB_LOST
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
from bus.local.bus import AsyncQueueBus, BusStatistics, WorkerBus
from bus.local.dead_letters import DEAD_LETTERED, DeadFrame, DeadFrames, DeadLetter, DeadLetters, KeepsDeadLetters
from bus.local.registry import WorkerErrorData, WorkerLostData, WorkerReadyData, WorkerRegistry
from bus.local.subscriber import BusSubscriber
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
    WorkerRegistryEntry,
)
from bus.names import check_name, nearest
from bus.network.bus import NetworkBus, ServerBus
from bus.transport.transport import Delivery, Outgoing, Settlement, Transport
from bus.url import BusOptions, open_bus
from bus.wire.annotations import AnnotationError
from bus.wire.codec import register_message
from bus.wire.converter import Converter, convert, converter_of
from bus.wire.known import register_type
from bus.wire.packing import dumps, loads
from bus.wire.values import PayloadError, travel

if _typing.TYPE_CHECKING:
    from bus.nats.bus import NatsBus
    from bus.redis.bus import RedisBus

__all__ = [
    "DEAD_LETTERED",
    "JOB_LOST",
    "AccessDeniedError",
    "AnnotationError",
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
    "BusOptions",
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
    "Converter",
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
    "ServerBus",
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
    "converter_of",
    "dumps",
    "loads",
    "nearest",
    "open_bus",
    "register_message",
    "register_type",
    "travel",
]


def __getattr__(name: str) -> object:
    if name == "RedisBus":  # each loads its client library: only for who asks
        from bus.redis.bus import RedisBus  # noqa: PLC0415

        return RedisBus
    if name == "NatsBus":
        from bus.nats.bus import NatsBus  # noqa: PLC0415

        return NatsBus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
