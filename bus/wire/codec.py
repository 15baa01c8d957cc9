"""Frames: messages as bytes. The header comes first, so that a frame is routed, verified and refused before its body.

    version (1 byte) | length of the header (4 bytes, big-endian) | header | body | signature (32 bytes, or none)

The header is a MessagePack array, the body a map of the fields of the message that the header lacks. The signature
covers everything before it, and the lane by which the frame goes.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Annotated, TypeGuard, TypeVar

import msgspec

from bus.errors import DecodeError, DuplicateNameError, EncodeError
from bus.messages import BusDataMessage, BusLocalMessage, BusMessage, BusSystemMessage, ErrorInfo, WorkerRegistryEntry
from bus.wire.known import know, own_type, tag_of
from bus.wire.packing import encode_packed, pack, unpack
from bus.wire.shapes import StructRecord, explain
from bus.wire.signing import MAC_BYTES
from bus.wire.values import travel_message

if TYPE_CHECKING:
    from bus.wire.signing import Signer

__all__ = ["MAX_MESSAGE_BYTES", "VERSION", "Header", "decode", "decode_header", "encode", "register_message"]


MessageT = TypeVar("MessageT", bound=type[BusMessage])

VERSION = 1
"""Version of the format of frames: their first byte."""

MAX_MESSAGE_BYTES = 2**20
"""Most bytes a frame has by default: 1 MiB, what NATS servers accept as they come."""

_PREFIX = struct.Struct(">BI")

# What no float can hold exactly counts nothing.
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.0)]


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What a frame says before its body.

    Attributes:
        type: Tag of the type of the message.
        id: Id of the frame, by which doubles are told.
        source: As in the message.
        target: As in the message.
        origin: Address of the runner that sent it, `name#incarnation`.
        destination: Address of the runner whose inbox it goes to; empty for the other lanes.
        job_id: The job it belongs to, if any.
        attempt: Which delivery of the job.
        sequence: Its place among the events of the job.
        timeout: Seconds left until the deadline of the job when it was sent.
        trace: Trace context, W3C `traceparent`.
        key_id: Id of the key it is signed with; empty if it is not.
    """

    type: str
    id: str
    source: str
    target: str | None = None
    origin: str = ""
    destination: str = ""
    job_id: str | None = None
    attempt: _Count = 1
    sequence: _Count = 0
    timeout: _Seconds | None = None
    trace: str | None = None
    key_id: str = ""


_decode_header = msgspec.msgpack.Decoder(Header).decode

_ADDRESS_FIELDS = ("source", "target", "origin", "destination")
_JOB_FIELDS = ("job_id", "attempt", "sequence", "timeout", "trace")

# Fields of built-in messages that hold values of users; the others hold what their annotation says.
_USER_FIELDS = frozenset({"payload", "response", "update", "data", "args"})

# Fields of built-in messages that never travel.
_LOCAL_FIELDS = frozenset({"cause"})


class _Layout(StructRecord):
    """Where the fields of one type of message go.

    Attributes:
        built_in: Whether the bus itself declares it.
        head: The fields in the header, but for the addresses that every message has.
        native: The fields in the body that hold what their annotation says, with their keys.
        user: The fields in the body that hold any value that travels, with their keys.
    """

    def __init__(self, cls: type[BusMessage], tag: str) -> None:
        super().__init__(cls, tag)
        self.built_in = cls.__module__ == BusMessage.__module__
        # A user's own field may be called job_id too: only those that the bus declares belong in the header.
        declared = [base.__struct_fields__ for base in cls.__mro__ if _is_built_in(base)]
        self.head = tuple(name for name in _JOB_FIELDS if any(name in fields for fields in declared))
        body = {name: key for name, key in self.names.items() if name not in _ADDRESS_FIELDS + self.head}
        if self.built_in:
            body = {name: key for name, key in body.items() if name not in _LOCAL_FIELDS}
        self.native = tuple((name, key) for name, key in body.items() if self.built_in and name not in _USER_FIELDS)
        self.user = tuple((name, key) for name, key in body.items() if not self.built_in or name in _USER_FIELDS)


def _is_built_in(cls: type) -> TypeGuard[type[BusMessage]]:
    return cls.__module__ == BusMessage.__module__ and issubclass(cls, BusMessage)


class _Messages:
    """The types of messages that travel, by tag and by class."""

    def __init__(self) -> None:
        self.by_tag: dict[str, _Layout] = {}
        self.by_class: dict[type, _Layout] = {}

    def add(self, cls: type[BusMessage], tag: str | None) -> None:
        """Register a class. Defined anew, as by a reload, it replaces its former self.

        Raises:
            DuplicateNameError: Another class has the tag; it keeps it.
        """
        layout = _Layout(cls, tag or tag_of(cls))
        former = self.by_tag.get(layout.tag)
        if former is not None:
            if tag_of(former.cls) != tag_of(cls):
                holder = f"{former.cls.__module__}.{former.cls.__qualname__}"
                raise DuplicateNameError("message tag", layout.tag, holder, "give one of them another tag=")
            self.by_class.pop(former.cls, None)
        self.by_tag[layout.tag] = self.by_class[cls] = layout


_MESSAGES = _Messages()


def register_message(cls: MessageT, *, tag: str | None = None) -> MessageT:
    """Let messages of `cls` travel over networks. Usable as a decorator. Every process that uses it must register it.

    Args:
        cls: A subclass of `BusDataMessage` or `BusSystemMessage`. Its fields hold values that can travel.
        tag: What names it on the wire; by default `module:qualname`.

    Returns:
        `cls`, unchanged.

    Raises:
        DuplicateNameError: Another class has the tag; it keeps it.
        TypeError: It is no such subclass, or a local message, which never leaves its process.
    """
    if not issubclass(cls, BusDataMessage | BusSystemMessage):
        msg = f"{cls!r} cannot be registered: derive it from BusDataMessage or BusSystemMessage"
        raise TypeError(msg)
    if issubclass(cls, BusLocalMessage):
        msg = f"{cls!r} cannot be registered: a BusLocalMessage never leaves its process"
        raise TypeError(msg)
    _MESSAGES.add(cls, tag)
    know(cls)
    return cls


def encode(
    message: BusMessage,
    *,
    id: str,  # noqa: A002 the word for it everywhere else
    origin: str,
    destination: str | None = None,
    lane: str = "",
    signer: Signer | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> bytes:
    """Return `message` as a frame.

    Args:
        message: The message. Its own `origin` is not sent.
        id: Id of the frame.
        origin: Address of the runner that sends it, `name#incarnation`.
        destination: Address of the runner whose inbox it goes to, by default the message's own.
        lane: By which it goes; only the signature says so.
        signer: Signs the frame; without one it is not signed.
        max_message_bytes: Most bytes the frame may have.

    Raises:
        EncodeError: A value in it cannot travel, its type is local or not registered, or the frame is too big.
    """
    cls = type(message)
    layout = _MESSAGES.by_class.get(cls)
    if layout is None:
        raise EncodeError(cls.__qualname__, _why_not(cls))
    if not layout.built_in:
        message = travel_message(layout, message, cls.__qualname__)
    head = {name: getattr(message, name) for name in layout.head}
    if head.get("timeout") is not None:
        head["timeout"] = max(0.0, head["timeout"])
    key_id = "" if signer is None else signer.key_id
    if destination is None:
        destination = message.destination
    header = Header(layout.tag, id, message.source, message.target, origin, destination, key_id=key_id, **head)
    fields = {}
    for name, key in layout.native:
        field = getattr(message, name)
        if field is not None:  # every built-in field that may be None is None by default
            fields[key] = field
    for name, key in layout.user:
        fields[key] = pack(getattr(message, name, msgspec.UNSET), name)
    try:
        packed_header = encode_packed(header)
        body = encode_packed(fields)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(cls.__qualname__, str(error)) from error
    frame = _PREFIX.pack(VERSION, len(packed_header)) + packed_header + body
    if signer is not None:
        frame += signer.sign(frame, lane)
    if len(frame) > max_message_bytes:
        reason = (
            f"as a frame it has {len(frame)} bytes, more than max_message_bytes={max_message_bytes}: "
            "send less at a time, or where to find it"
        )
        raise EncodeError(cls.__qualname__, reason)
    return frame


def _why_not(cls: type) -> str:
    if issubclass(cls, BusLocalMessage):
        return "a BusLocalMessage never leaves its process: send it to a worker of this process"
    return f"it is not registered: call bus.register_message({cls.__qualname__}) in every process that uses it"


def decode_header(
    data: bytes, *, lane: str = "", verifier: Signer | None = None, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> tuple[Header, memoryview]:
    """Return the header of a frame, verified, and its body, not yet decoded.

    Args:
        data: The frame.
        lane: By which it came.
        verifier: Holds the keys that are trusted; without one every frame is, signed or not.
        max_message_bytes: Most bytes the frame may have.

    Raises:
        DecodeError: The frame is too big, of another version, broken, not signed, or not by a known key.
    """
    if len(data) > max_message_bytes:
        msg = f"a frame of {len(data)} bytes is more than max_message_bytes={max_message_bytes}"
        raise DecodeError(msg, "oversized")
    if len(data) < _PREFIX.size:
        msg = f"a frame of {len(data)} bytes is cut short"
        raise DecodeError(msg, "malformed")
    version, length = _PREFIX.unpack_from(data)
    if version != VERSION:
        msg = f"a frame of version {version} cannot be read: this process reads version {VERSION}"
        raise DecodeError(msg, "malformed")
    start = _PREFIX.size + length
    view = memoryview(data)
    try:
        header = _decode_header(view[_PREFIX.size : start])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the header of a frame is broken: {error}"
        raise DecodeError(msg, "malformed") from error
    end = len(data) - MAC_BYTES if header.key_id else len(data)
    if start > end:
        msg = f"a frame of {len(data)} bytes is cut short"
        raise DecodeError(msg, "malformed", header.origin)
    if verifier is not None:
        _verify(header, view[:end], view[end:], lane, verifier)
    return header, view[start:end]


def _verify(header: Header, signed: memoryview, mac: memoryview, lane: str, verifier: Signer) -> None:
    if verifier.verify(header.key_id, signed, mac, lane):
        return
    sender = f"a frame from {header.source!r:.100} at {header.origin!r:.100}"
    if not header.key_id:
        raise DecodeError(f"{sender} is not signed", "unsigned", header.origin)
    if not verifier.knows(header.key_id):
        raise DecodeError(f"{sender} is signed with a key unknown here", "unknown_key", header.origin)
    msg = f"{sender} was altered after it was signed, or moved to another lane"
    raise DecodeError(msg, "altered", header.origin)


def decode(header: Header, body: bytes | memoryview) -> BusMessage:
    """Return the message of a frame that `decode_header` has taken apart.

    Raises:
        DecodeError: Its type or that of an object in it is unknown here, or its fields do not fit.
    """
    layout = _MESSAGES.by_tag.get(header.type)
    if layout is None:
        msg = f"message tag {header.type!r:.100} is unknown here: call bus.register_message on its class here too"
        raise DecodeError(msg)
    fields = unpack(body)
    if type(fields) is not dict:
        msg = f"the body of a {layout.cls.__qualname__} is {type(fields).__name__}, not a map of its fields"
        raise DecodeError(msg)
    for name in _ADDRESS_FIELDS + layout.head:
        fields[layout.names[name]] = getattr(header, name)
    try:
        message: BusMessage = layout.build(fields)
    except Exception as error:  # a user's message may have a __post_init__, which may raise anything
        where, why = explain(error)
        msg = f"a {layout.cls.__qualname__} does not fit its class: {f'{where}: ' if where else ''}{why}"
        raise DecodeError(msg) from error
    return message


for _cls in tuple(vars(sys.modules[BusMessage.__module__]).values()):
    if (
        isinstance(_cls, type)
        and _is_built_in(_cls)
        and not issubclass(_cls, BusLocalMessage)
        and _cls.__name__[0] != "_"
    ):
        _MESSAGES.add(_cls, _cls.__name__)

# Messages of users may hold what messages of the bus hold.
own_type(ErrorInfo, "ErrorInfo")
own_type(WorkerRegistryEntry, "WorkerRegistryEntry")
