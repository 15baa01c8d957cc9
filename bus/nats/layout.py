"""What is stored where on a NATS server: subjects, streams, consumers, and how those that are missing are made.

Names and subjects begin with the namespace, as one token. Behind that:

===============  ================  ====================================================================================
stream `_jobs`   `.jobs.{queue}`   Frames of queues, deleted when they are acknowledged. A queue has a consumer of its
                                   name, which all nodes that serve it share. Header: `Nats-Msg-Id`, the frame's id.
                 `.jobs.=life-*`   A mark for each life of a server: where in the stream it began.
stream `_inbox`  `.inbox.{node}`   Frames for one node, several packed into a message, and marks, which are empty packs.
                                   Each life of a connection has a consumer, which acknowledges nothing.
stream `_dead`   `.dead.{queue}`   Dead letters. Headers: `Actorbus-Queue`, `Actorbus-Attempt`, `Nats-Msg-Id`.
not stored       `.everyone`       A frame for every node.
                 `.direct.{node}`  Frames for one node, packed as those of an inbox.
===============  ================  ====================================================================================
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from nats.aio.msg import Msg

from bus.errors import BusError, TransportError
from bus.log import log
from bus.nats.client import life_of_server
from bus.nats.connection import Answers, NatsLink, status_of

NANOSECONDS = 1_000_000_000

DEDUPLICATION = 120
"""Seconds within which one frame per id is stored: longer than a sender tries again without success."""

QUEUE_BOUND = 1_000_000
"""Most jobs that wait or run for one worker; beyond it the server refuses more."""

INBOX_BOUND = 100_000
"""Most messages, of up to 512 KiB, that wait for one node; the server forgets older ones, and the node learns that."""

INBOX_AGE = 3600
"""Seconds a message waits for its node: what a node that is gone leaves behind is deleted then."""

DEAD_LETTER_BOUND = 10_000
"""Most dead letters stored; beyond it the server forgets the oldest."""

CONSUMER_AGE = 7 * 86_400
"""Seconds after which the server forgets who serves a queue that nobody serves: the queue itself stays."""

HEARTBEAT = 2.0
"""Seconds without a message for an inbox after which the server says that it has none."""

MAX_WAITING = 16_384
"""Requests for work of all nodes together that may wait at one queue; the server's own bound is 512."""

NO_MESSAGE = 10037
"""JetStream's code for a message that is not there."""

_STREAM_NOT_FOUND, _CONSUMER_NOT_FOUND, _STREAM_EXISTS, _MARKED = 10059, 10014, 10058, 10071


def error_code(answer: dict[str, Any]) -> int | None:
    """JetStream's code for why it did not do something, -1 if it gives none; None if it did it."""
    error = answer.get("error")
    return None if error is None else error.get("err_code", -1)


def refusal(what: str, answer: dict[str, Any]) -> TransportError:
    """The error for something that JetStream did not do."""
    error = answer["error"]
    return TransportError(f"JetStream refuses {what}: {error.get('description')} ({error.get('err_code')})")


def seconds_of(time: str) -> float:
    """A time in an answer of the server, in seconds of its clock."""
    return datetime.fromisoformat(time).timestamp()


class Metadata(NamedTuple):
    """What the server says of a message from a stream that it delivers.

    Attributes:
        deliveries: How often this consumer has delivered it.
        position: Its number in the stream.
        number: The number of this delivery among all of this consumer.
        stored_at: When it was stored, in seconds of the server's clock.
    """

    deliveries: int
    position: int
    number: int
    stored_at: float


def metadata(message: Msg) -> Metadata:
    """Read the subject by which the message is acknowledged."""
    parts = message.reply.split(".")
    first = 4 if len(parts) == 9 else 6  # noqa: PLR2004 - with a domain there are two more words in front
    deliveries, position, number, nanoseconds = (int(part) for part in parts[first : first + 4])
    return Metadata(deliveries, position, number, nanoseconds / NANOSECONDS)


@lru_cache(maxsize=4096)
def token(name: str) -> str:
    """`name` as one token of a subject, one to one: dots separate, and some characters are wildcards or file names.

    Server 2.10 delivers nothing of a subject with a percent sign.
    """
    return quote(name, safe="#").replace(".", "%2E").replace("%", "=")


class InboxInfo(NamedTuple):
    """The stream of the inboxes, and what is in one of them.

    Attributes:
        birth: When it was made: another time means another stream, which counts anew.
        age: Seconds a message waits for its node; 0 is for ever.
        latest: When its last message was stored, in seconds of the server's clock.
        most: Messages that one inbox holds, at most; not above 0 if there is no such bound.
        stored: Messages in the inbox.
    """

    birth: str
    age: float
    latest: float
    most: int
    stored: int


class NatsLayout:
    """Names everything, and makes what is missing. What exists is used as it is: an operator may have made it.

    Args:
        namespace: Buses of different namespaces on one server do not meet.
        ack_wait: Seconds a claim lasts unless renewed.
    """

    def __init__(self, namespace: str, ack_wait: float) -> None:
        self.ack_wait = ack_wait
        prefix = token(namespace)
        self.jobs, self.inboxes, self.dead = f"{prefix}_jobs", f"{prefix}_inbox", f"{prefix}_dead"
        self.everyone = f"{prefix}.everyone"
        self._prefix = prefix
        self._warned = False

    def job_subject(self, queue: str) -> str:
        """Where jobs for a worker are published."""
        return f"{self._prefix}.jobs.{token(queue)}"

    def inbox_subject(self, node: str) -> str:
        """Where frames for a node are published."""
        return f"{self._prefix}.inbox.{token(node)}"

    @property
    def dead_subjects(self) -> str:
        """Where the dead letters of all queues are published."""
        return f"{self._prefix}.dead.*"

    def direct_subject(self, node: str) -> str:
        """Where frames for a node are published that are not stored."""
        return f"{self._prefix}.direct.{token(node)}"

    def dead_subject(self, queue: str) -> str:
        """Where the dead letters of a queue are published."""
        return f"{self._prefix}.dead.{token(queue)}"

    async def ensure_streams(self, link: NatsLink) -> None:
        """Make the streams that do not exist.

        Raises:
            TransportError: JetStream did not answer, or refused.
            BusError: A stream exists that cannot hold a queue.
        """
        common = {"storage": "file", "num_replicas": 1, "max_consumers": -1, "max_bytes": -1, "max_msg_size": -1}
        common["duplicate_window"] = DEDUPLICATION * NANOSECONDS
        jobs = await self._ensure_stream(
            link,
            {
                **common,
                "name": self.jobs,
                "subjects": [f"{self._prefix}.jobs.*"],
                "retention": "workqueue",
                "discard": "new",
                "discard_new_per_subject": True,
                "max_msgs_per_subject": QUEUE_BOUND,
                "max_msgs": -1,
            },
        )
        if jobs["config"].get("retention") != "workqueue":
            raise BusError(
                f"stream {self.jobs!r} at {link.where} has retention {jobs['config'].get('retention')!r}, not "
                "'workqueue': delete it, or choose another namespace"
            )
        await self._ensure_stream(
            link,
            {
                **common,
                "name": self.dead,
                "subjects": [self.dead_subjects],
                "retention": "limits",
                "discard": "old",
                "max_msgs": DEAD_LETTER_BOUND,
                "max_msgs_per_subject": -1,
            },
        )
        await self._ensure_stream(
            link,
            {
                **common,
                "name": self.inboxes,
                "subjects": [f"{self._prefix}.inbox.*"],
                "retention": "limits",
                "discard": "old",
                "max_age": INBOX_AGE * NANOSECONDS,
                "max_msgs_per_subject": INBOX_BOUND,
                "max_msgs": -1,
            },
        )

    async def life(self, link: NatsLink) -> int:
        """Where in the stream of jobs the present life of the server begins: later ones begin further on.

        Whoever connects first leaves a mark there. In a cluster, where a job outlives a server, there is one life.
        """
        life = life_of_server(link.client)
        if not life:
            return 0
        answers = Answers(link)
        await answers.ask(f"{self._prefix}.jobs.=life-{life}", b"", {"Nats-Expected-Last-Subject-Sequence": "0"})
        (message,) = await answers.wait()
        if status_of(message) == "503":
            raise TransportError(f"stream {self.jobs!r} is missing at {link.where}")
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        code = error_code(answer)
        if code is None:
            return int(answer["seq"])
        if code != _MARKED:
            raise refusal(f"a mark in stream {self.jobs!r}", answer)
        return int(answer["error"]["description"].rpartition(" ")[2])  # "wrong last sequence: 7"

    async def inbox_info(self, link: NatsLink, subject: str) -> InboxInfo:
        """What the stream of the inboxes says of itself, and of one of them."""
        answer = await link.api(f"STREAM.INFO.{self.inboxes}", {"subjects_filter": subject})
        if "error" in answer:
            raise refusal(f"stream {self.inboxes!r}", answer)
        config, state = answer["config"], answer["state"]
        return InboxInfo(
            birth=str(answer["created"]),
            age=config.get("max_age", 0) / NANOSECONDS,
            latest=seconds_of(state["last_ts"]),
            most=config.get("max_msgs_per_subject", 0),
            stored=(state.get("subjects") or {}).get(subject, 0),
        )

    async def make_reader(self, link: NatsLink, name: str, node: str, to: str, *, after: int) -> None:
        """Make the consumer that publishes what is in an inbox: in order, each message once, and nothing acknowledged.

        Args:
            link: The connection it is made over.
            name: Its name, a new one each time.
            node: Whose inbox it reads.
            to: Subject to which it publishes.
            after: Number in the stream of the message behind which it begins.

        Raises:
            TransportError: JetStream did not answer, or refused.
        """
        subject = self.inbox_subject(node)
        config = {
            "name": name,
            "deliver_subject": to,
            "filter_subject": subject,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "replay_policy": "instant",
            "ack_policy": "none",
            "max_deliver": -1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * NANOSECONDS),
            "inactive_threshold": int(3 * HEARTBEAT * NANOSECONDS),
            "mem_storage": True,
            "num_replicas": 1,
        }
        made = await link.api(
            f"CONSUMER.CREATE.{self.inboxes}.{name}.{subject}", {"stream_name": self.inboxes, "config": config}
        )
        if "error" in made:
            raise refusal(f"consumer {name!r} of stream {self.inboxes!r}", made)

    async def ensure_queue(self, link: NatsLink, queue: str) -> None:
        """Make the consumer that gives out the jobs of a queue, if it does not exist.

        Raises:
            TransportError: JetStream did not answer, or refused.
        """
        name = token(queue)
        answer = await link.api(f"CONSUMER.INFO.{self.jobs}.{name}")
        code = error_code(answer)
        if code is None:
            theirs = answer["config"].get("ack_wait", 0) / NANOSECONDS
            if theirs == self.ack_wait:
                return
            if not self._warned:
                self._warned = True
                log().warning(
                    "ack_wait of a queue is changed: give all nodes the same one",
                    queue=queue,
                    before=theirs,
                    now=self.ack_wait,
                )
        elif code == _STREAM_NOT_FOUND:
            await self.ensure_streams(link)
        elif code != _CONSUMER_NOT_FOUND:
            raise refusal(f"consumer {name!r} of stream {self.jobs!r}", answer)
        config = {
            "durable_name": name,
            "filter_subject": self.job_subject(queue),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait * NANOSECONDS),
            "max_deliver": -1,  # the bus counts: the server would leave the job in the stream, and say nothing
            "max_ack_pending": -1,
            "max_waiting": MAX_WAITING,
            "inactive_threshold": CONSUMER_AGE * NANOSECONDS,
        }
        made = await link.api(
            f"CONSUMER.DURABLE.CREATE.{self.jobs}.{name}", {"stream_name": self.jobs, "config": config}
        )
        if "error" in made:
            raise refusal(f"consumer {name!r} of stream {self.jobs!r}", made)

    async def _ensure_stream(self, link: NatsLink, config: dict[str, object]) -> dict[str, Any]:
        name = config["name"]
        answer = await link.api(f"STREAM.INFO.{name}")
        if error_code(answer) == _STREAM_NOT_FOUND:
            answer = await link.api(f"STREAM.CREATE.{name}", config)
            if error_code(answer) == _STREAM_EXISTS:
                answer = await link.api(f"STREAM.INFO.{name}")  # another node was faster, with other numbers
        if "error" in answer:
            raise refusal(f"stream {name!r}", answer)
        return answer
