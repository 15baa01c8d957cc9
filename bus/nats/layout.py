"""What is kept on a NATS server for one namespace: subjects, streams, consumers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from bus.errors import BusError, TransportError
from bus.log import log
from bus.nats.connection import Answers, NatsLink, seconds_of, status_of

NANOSECONDS = 1_000_000_000

DEDUPLICATION = 120
"""Seconds within which one frame per id is stored: longer than a sender tries again without success."""

QUEUE_BOUND = 1_000_000
"""Most jobs that wait or run for one worker; beyond it the server refuses more."""

INBOX_BOUND = 100_000
"""Most messages, of up to 512 KiB, that wait for one node; the server forgets older ones, and the node is told."""

INBOX_AGE = 3600
"""Seconds a message waits for its node: what a node that is gone leaves behind is deleted then."""

DEAD_LETTER_BOUND = 10_000
"""Most dead letters kept; beyond it the server forgets the oldest."""

CONSUMER_AGE = 7 * 86_400
"""Seconds after which the server forgets who serves a queue that nobody serves: the queue itself stays."""

MAX_WAITING = 16_384
"""Requests for work of all nodes together that may wait at one queue; the server's own bound is 512."""

NO_MESSAGE = 10037
"""JetStream's code for a message that is not there."""

_STREAM_NOT_FOUND, _CONSUMER_NOT_FOUND, _STREAM_EXISTS, _MARKED = 10059, 10014, 10058, 10071


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
        kept: Messages in the inbox.
    """

    birth: str
    age: float
    latest: float
    most: int
    kept: int


class Layout:
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
        server = link.client._server_info
        if "cluster" in server:
            return 0
        answers = Answers(link)
        await answers.ask(
            f"{self._prefix}.jobs.=life-{server['server_id']}", b"", {"Nats-Expected-Last-Subject-Sequence": "0"}
        )
        (message,) = await answers.wait()
        if status_of(message) == "503":
            raise TransportError(f"stream {self.jobs!r} is missing at {link.where}")
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if "error" not in answer:
            return int(answer["seq"])
        if answer["error"].get("err_code") != _MARKED:
            raise refusal(f"a mark in stream {self.jobs!r}", answer)
        return int(answer["error"]["description"].rpartition(" ")[2])  # "wrong last sequence: 7"

    async def inbox_info(self, link: NatsLink, subject: str) -> InboxInfo:
        """What the stream of the inboxes says of itself, and of one of them."""
        answer = await link.api(f"STREAM.INFO.{self.inboxes}", {"subjects_filter": subject})
        if "error" in answer:
            raise refusal(f"stream {self.inboxes!r}", answer)
        config, state = answer["config"], answer["state"]
        age, latest = config.get("max_age", 0) / NANOSECONDS, seconds_of(state["last_ts"])
        kept = (state.get("subjects") or {}).get(subject, 0)
        return InboxInfo(str(answer["created"]), age, latest, config.get("max_msgs_per_subject", 0), kept)

    async def ensure_queue(self, link: NatsLink, queue: str) -> None:
        """Make the consumer that gives out the jobs of a queue, if it does not exist.

        Raises:
            TransportError: JetStream did not answer, or refused.
        """
        name = token(queue)
        answer = await link.api(f"CONSUMER.INFO.{self.jobs}.{name}")
        if "error" not in answer:
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
        elif answer["error"].get("err_code") == _STREAM_NOT_FOUND:
            await self.ensure_streams(link)
        elif answer["error"].get("err_code") != _CONSUMER_NOT_FOUND:
            raise refusal(f"consumer {name!r} of stream {self.jobs!r}", answer)
        config = {
            "durable_name": name,
            "filter_subject": self.job_subject(queue),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait * NANOSECONDS),
            "max_deliver": -1,  # the bus counts deliveries: the server would leave the job in the stream, untold
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
        if "error" in answer and answer["error"].get("err_code") == _STREAM_NOT_FOUND:
            answer = await link.api(f"STREAM.CREATE.{name}", config)
            if "error" in answer and answer["error"].get("err_code") == _STREAM_EXISTS:
                answer = await link.api(f"STREAM.INFO.{name}")  # another node was faster, with other numbers
        if "error" in answer:
            raise refusal(f"stream {name!r}", answer)
        return answer


def check_size(link: NatsLink, most: int) -> None:
    """Refuse a server that takes smaller messages.

    Raises:
        BusError: It does.
    """
    taken = link.client.max_payload
    if taken < most:
        raise BusError(
            f"{link.where} takes messages of at most {taken} bytes, this bus sends up to {most}: "
            "raise its max_payload, or lower max_message_bytes"
        )


def refusal(what: str, answer: dict[str, Any]) -> TransportError:
    """The error for something that JetStream did not do."""
    error = answer["error"]
    return TransportError(f"JetStream refuses {what}: {error.get('description')} ({error.get('err_code')})")
