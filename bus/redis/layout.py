"""What is stored where on a Redis server, and the scripts that change it, each as one step.

Every key begins with the namespace and a colon. Behind that:

=================  ==========  =========================================================================================
`queue:{queue}`    stream      Frames that were sent to a queue. Fields: `i` id, `b` bytes.
`again:{queue}`    stream      Frames that went back to the queue, which are read first. Fields: `i`, `b`, `a` attempts
                               so far, `h` their history: a line for each with its number, the owner of the claim, how
                               it ended, and the time in milliseconds.
`served`           set         The queues that exist.
`bells:{queue}`    set         The nodes that are notified of the next frame of the queue, instead of reading it.
`id:{frame}`       string      A frame was put into a queue under this id. Expires after two minutes.
`inbox:{node}`     stream      Frames for one node. Fields: `f` a frame, `e` one for everyone, `d` a direct one, as
                               many of them as there are frames; `q` the name of a queue that has a frame; `n` wakes the
                               node, no more. Expires if the node shows no sign of life.
`nodes`            sorted set  The nodes that are alive, by the time in milliseconds at which they are forgotten.
`lease:{owner}`    string      Milliseconds that the leases of a consumer last. Expires like the inbox.
`born`             string      When all this began. Another value means that everything before it was lost.
`dead`             stream      Dead letters, about 10,000. Fields: `q` queue, `i`, `b`, `a`, `h`.
=================  ==========  =========================================================================================

All streams but `dead` have one consumer group. In an inbox it has one consumer, in the streams of a queue one for each
node that serves the queue.

The life of a queued frame: `put` adds an entry to the stream of its queue; a read by the group makes it a claim, whose
lease is the time since it was read or last renewed, by the server's clock; `settle` ends the claim. A frame that goes
back becomes a new entry, in the stream that is read first. So an entry belongs to one claim for all its life, unless
the server loses power before it has written that one down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha1
from importlib.resources import files
from re import fullmatch
from typing import NamedTuple

from bus.names import check_name, key_part
from bus.redis.client import Command

GROUP = "actorbus"
"""Name of the consumer group of every stream."""


class RedisLayout:
    """The keys of one namespace.

    Args:
        namespace: Buses of different namespaces on one server do not meet.

    Raises:
        InvalidNameError: It is no name.
    """

    def __init__(self, namespace: str) -> None:
        self.prefix = key_part(check_name("namespace", namespace)) + ":"
        self.served = f"{self.prefix}served"
        self.inboxes = f"{self.prefix}inbox:"
        self.nodes = f"{self.prefix}nodes"
        self.born = f"{self.prefix}born"
        self.dead = f"{self.prefix}dead"

    def sent(self, queue: str) -> str:
        """The stream of what was sent to a queue."""
        return f"{self.prefix}queue:{queue}"

    def returned(self, queue: str) -> str:
        """The stream of what went back to a queue."""
        return f"{self.prefix}again:{queue}"

    def streams(self, queues: Iterable[str]) -> list[str]:
        """The streams of some queues, in the order in which they are to be read."""
        return [stream for queue in queues for stream in (self.returned(queue), self.sent(queue))]

    def waiting(self, queue: str) -> str:
        """The nodes that wait to be notified of the next frame of a queue."""
        return f"{self.prefix}bells:{queue}"

    def inbox(self, node: str) -> str:
        """The stream of frames for a node."""
        return f"{self.inboxes}{node}"

    def lease(self, owner: str) -> str:
        """How long the leases of a consumer last."""
        return f"{self.prefix}lease:{owner}"


class Entry(NamedTuple):
    """An entry of a stream.

    Attributes:
        id: Where it stands: milliseconds and a number, with a dash between them.
        parts: Names and values of its fields by turns; None if it was deleted after it had been read.
    """

    id: bytes
    parts: Sequence[bytes] | None

    @property
    def fields(self) -> Iterable[tuple[bytes, bytes]]:
        """Names and values of its fields, in their order; a name may come more than once."""
        parts = self.parts or ()
        return zip(parts[::2], parts[1::2], strict=True)


def entries_of(reply: Iterable[tuple[bytes, Sequence[bytes] | None]] | None) -> list[Entry]:
    """The entries in a reply that lists them."""
    return [Entry(entry, parts) for entry, parts in reply or ()]


class StoredFrame(NamedTuple):
    """A frame of a queue or of the dead letters, as it is stored. What others have written there may lack everything.

    Attributes:
        body: The bytes.
        attempts: How often it was claimed and did not end as done.
        history: How those claims ended, in lines.
        queue: Name of the queue, of a dead letter.
    """

    body: bytes
    attempts: int
    history: str
    queue: str

    @classmethod
    def of(cls, entry: Entry) -> StoredFrame:
        """The frame that an entry holds."""
        fields = dict(entry.fields)
        attempts = fields.get(b"a", b"")
        return cls(
            body=fields.get(b"b", b""),
            attempts=int(attempts) if fullmatch(rb"\d{1,6}", attempts) else 0,
            history=fields.get(b"h", b"").decode(errors="replace"),
            queue=fields.get(b"q", b"").decode(errors="replace"),
        )


class Heartbeat(NamedTuple):
    """What a heartbeat returns.

    Attributes:
        born: When what the server stores began.
        had_inbox: Whether the inbox of the node was there.
    """

    born: bytes
    had_inbox: bool

    @classmethod
    def of(cls, reply: bytes) -> Heartbeat:
        """The reply of the script."""
        return cls(reply.removesuffix(b" anew"), not reply.endswith(b" anew"))


def _text(name: str) -> str:
    return files("bus.redis").joinpath("scripts", f"{name}.lua").read_text("utf-8")


_SHARED = _text("shared")


class Script:
    """A step that the server does as one, in Lua for Redis from 7.0 and Valkey from 7.2. Its file says what it takes.

    Args:
        name: Name of the file, without its ending.
    """

    def __init__(self, name: str) -> None:
        self.text = _SHARED + _text(name)
        self._digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
        """The command that runs it on a server that has loaded it."""
        return ("EVALSHA", self._digest, len(keys), *keys, *arguments)


PUT = Script("put")
CLAIM = Script("claim")
RENEW = Script("renew")
SETTLE = Script("settle")
ANSWER = Script("answer")
EXPIRE = Script("expire")
SERVE = Script("serve")
AWAIT = Script("await")
LEAVE = Script("leave")
SWEEP = Script("sweep")
HEARTBEAT = Script("heartbeat")
BROADCAST = Script("broadcast")

SCRIPTS = (PUT, CLAIM, RENEW, SETTLE, ANSWER, EXPIRE, SERVE, AWAIT, LEAVE, SWEEP, HEARTBEAT, BROADCAST)
