"""Chunks of a stream that wait for the network together travel in one frame, and each is still a message of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest

from actors import BaseWorker, Job, JobError, JobStatus, WorkerRunner, job
from bus import (
    BusJobStreamChunksMessage,
    BusJobStreamDataMessage,
    DecodeError,
    EncodeError,
    NetworkBus,
    TransportError,
)
from bus.memory.broker import MemoryBroker
from bus.messages import MOST_CHUNKS
from bus.transport.framing import Chunks, Framer
from bus.transport.transport import Outgoing
from bus.wire.codec import decode, decode_header, encode
from bus.wire.known import own_type
from bus.wire.packing import encode_packed
from tests.support.interceptor import Interceptor
from tests.support.virtual_time import virtual_time

KINDS = ("BusJobStreamChunksMessage", "BusJobStreamDataMessage")

pytestmark = [pytest.mark.anyio, virtual_time()]


class Teller(BaseWorker):
    """Streams what it is told to, or what it `says`; a float is a pause of so many seconds, a list an update."""

    def __init__(self) -> None:
        super().__init__("w")
        self.refused: list[Any] = []
        self.says: list[Any] = []

    @job(name="tell")
    async def tell(self, job: Job[Any]) -> AsyncIterator[Any]:
        for each in job.payload:
            yield each

    @job(name="slowly")
    async def tell_slowly(self, job: Job[Any]) -> str:
        for each in job.payload or self.says:
            if isinstance(each, float):
                await anyio.sleep(each)
            elif isinstance(each, list):
                await job.update(each)
            else:
                try:
                    await job.stream(each)
                except EncodeError as error:
                    self.refused.append(error)
        return "told"

    @job(name="riddle")
    async def riddle(self, job: Job[Any]) -> AsyncIterator[Any]:
        for each in (1, 2, self.bus, 4):
            yield Unfit() if each is self.bus else each


class Unfit(msgspec.Struct):
    x: int = "text"  # type: ignore[assignment]  # it is refused when it arrives


class Pair(NamedTuple):
    boss: BaseWorker
    worker: Teller
    link: Interceptor

    @property
    def frames(self) -> list[tuple[str, Outgoing]]:
        """The frames with chunks that the performer has sent: type and frame."""
        headers = [(decode_header(frame.body, max_message_bytes=2**21)[0], frame) for frame in self.link.sent]
        return [(header.type, frame) for header, frame in headers if header.type in KINDS]


class ForgetfulLink(Interceptor):
    """Stores the first frame with chunks, and fails as if it had not."""

    failed = False

    async def send(self, frames: Sequence[Outgoing]) -> None:
        await super().send(frames)
        headers = [decode_header(frame.body)[0] for frame in frames]
        if not self.failed and any(header.type in KINDS for header in headers):
            self.failed = True
            raise TransportError("the answer of the network was lost")


@asynccontextmanager
async def pair(link: type[Interceptor] = Interceptor, **options: Any) -> AsyncGenerator[Pair]:
    """A requester on one runner, a performer on the other; they know each other."""
    broker, boss, worker = MemoryBroker(), BaseWorker("boss"), Teller()
    links = Interceptor(broker), link(broker)
    async with AsyncExitStack() as stack:
        for label, each, way in zip("ab", (boss, worker), links, strict=True):
            bus = NetworkBus(way, signing_key=b"k" * 32, **options)
            runner = WorkerRunner(label, bus, handle_sigint=False, handle_sigterm=False)
            await runner.add_workers(each)
            await stack.enter_async_context(runner)
        await anyio.sleep(3)
        yield Pair(boss, worker, links[1])


async def events(boss: BaseWorker, name: str, payload: Any = None) -> list[Any]:
    """The data of chunks and updates in the order they came."""
    async with boss.job("w", name=name, payload=payload, timeout=60) as asked:
        return [event.data async for event in asked if event.type in {event.STREAM_DATA, event.UPDATE}]


async def test_g14_chunks_that_wait_together_share_frames_and_arrive_each_as_it_was_sent() -> None:
    async with pair() as it:
        chunks = [{"n": n, "text": "ä" * (n % 7)} for n in range(1000)]
        assert await events(it.boss, "tell", chunks) == chunks
        assert len(it.frames) < len(chunks) / (MOST_CHUNKS / 4)


async def test_a_chunk_alone_has_a_frame_of_its_own_at_once() -> None:
    async with pair() as it:
        assert await events(it.boss, "slowly", [1, 0.5, 2, 0.5, 3]) == [1, 2, 3]
        assert [kind for kind, _ in it.frames] == ["BusJobStreamDataMessage"] * 3


async def test_g14_updates_between_chunks_keep_their_place() -> None:
    async with pair() as it:
        sent = [1, 2, ["half"], 3, 4, ["done"], 5]
        assert await events(it.boss, "slowly", sent) == sent


async def test_g14_two_streams_of_one_worker_to_one_runner_do_not_mix() -> None:
    async with pair() as it:
        got: dict[str, list[Any]] = {}

        async def ask(label: str) -> None:
            sent = [x for n in range(300) for x in ((f"{label}{n}", 0.0) if n % 3 else (f"{label}{n}",))]
            got[label] = await events(it.boss, "slowly", sent)

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask, "a")
            asking.start_soon(ask, "b")
        assert got == {label: [f"{label}{n}" for n in range(300)] for label in "ab"}


async def test_g14_a_frame_that_may_have_arrived_is_sent_again_as_it_was_and_what_follows_goes_in_another() -> None:
    async with pair(ForgetfulLink) as it:
        assert await events(it.boss, "slowly", [1, 2, 3, 0.001, 4, 5, 6]) == [1, 2, 3, 4, 5, 6]
        bodies: dict[str, list[bytes]] = {}
        for _, frame in it.frames:
            bodies.setdefault(frame.id, []).append(frame.body)
        assert sorted(len(each) for each in bodies.values()) == [1, 2]
        assert all(len(set(each)) == 1 for each in bodies.values())


async def test_frames_of_several_chunks_keep_to_the_most_bytes_and_only_the_sender_of_a_larger_chunk_is_told() -> None:
    async with pair(max_message_bytes=2000) as it:
        chunks = [f"{n} " + "x" * (137 * n % 1500) for n in range(200)]
        it.worker.says = [*chunks[:100], "x" * 2000, *chunks[100:]]
        assert await events(it.boss, "slowly") == chunks
        assert [type(error) for error in it.worker.refused] == [EncodeError]
        assert max(len(frame.body) for _, frame in it.frames) <= 2000
        assert len(it.frames) < len(chunks)


async def test_g13_a_chunk_that_cannot_be_read_ends_its_job_with_an_error_and_those_before_it_have_come() -> None:
    own_type(Unfit, "Unfit chunk")
    async with pair() as it:
        got = []
        with pytest.raises(JobError, match="tagged 'Unfit chunk' does not fit") as caught:
            async with it.boss.job("w", name="riddle", timeout=60) as asked:
                got += [event.data async for event in asked if event.type == event.STREAM_DATA]
        assert caught.value.status is JobStatus.ERROR
        assert got == [1, 2]
        assert [kind for kind, _ in it.frames] == ["BusJobStreamChunksMessage"]
        assert await events(it.boss, "tell", [5]) == [5]


@pytest.mark.parametrize(
    "other",
    [
        {"sequence": 6},
        {"sequence": 4},
        {"job_id": "k"},
        {"attempt": 2},
        {"asked": "again"},
        {"source": "x"},
        {"target": "other"},
    ],
    ids=str,
)
async def test_only_the_next_chunk_of_the_same_attempt_of_the_same_job_joins(other: dict[str, Any]) -> None:
    first = BusJobStreamDataMessage(source="w", target="boss", job_id="j", sequence=4, data=1)
    second = msgspec.structs.replace(first, sequence=5, data=2)
    framer = Framer("b1", None, 1000)
    chunks = Chunks(first, framer.frame(first, "inbox", "a#a1", "b#b1"), framer, "b#b1")
    assert not chunks.join(msgspec.structs.replace(second, **other), "a#a1")
    assert not chunks.join(second, "c#c1")
    assert chunks.join(second, "a#a1")
    message = decode(*decode_header(chunks.frame().body))
    assert isinstance(message, BusJobStreamChunksMessage)
    assert (message.sequence, message.chunks) == (4, [encode_packed(1), encode_packed(2)])


async def test_g40_a_frame_of_more_chunks_than_are_ever_sent_is_refused() -> None:
    for count in (MOST_CHUNKS, MOST_CHUNKS + 1):
        message = BusJobStreamChunksMessage(source="w", target="boss", job_id="j", chunks=[encode_packed(1)] * count)
        header, body = decode_header(encode(message, id="1-1", origin="b#1", destination="a#1"))
        if count == MOST_CHUNKS:
            assert decode(header, body) == msgspec.structs.replace(message, origin="b#1", destination="a#1")
        else:
            with pytest.raises(DecodeError, match="chunks"):
                decode(header, body)
