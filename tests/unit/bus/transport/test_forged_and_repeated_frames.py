"""Frames that somebody on the network has altered, forged, moved or repeated: none counts, and nothing is disturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import msgspec
import pytest

from actors import BaseWorker, Job, WorkerRunner, WorkerUnavailableError, job
from bus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamCreditMessage,
    BusMessage,
    BusRegistryRequestMessage,
    BusRunnerBeatMessage,
    BusWorkerRegistryMessage,
    JobStatus,
    NetworkBus,
    WorkerRegistryEntry,
)
from bus.memory.broker import MemoryBroker
from bus.transport.transport import Delivery, Lane, Outgoing
from bus.wire.codec import MAX_MESSAGE_BYTES, Header, decode, decode_header, encode
from bus.wire.signing import MAC_BYTES, Signer
from tests.support.interceptor import Forger, Interceptor
from tests.support.running import session_of
from tests.support.virtual_time import virtual_time

KEY, OTHER = b"k" * 32, b"o" * 32

pytestmark = [pytest.mark.anyio, virtual_time()]


class Worker(BaseWorker):
    """Does what it is asked to, and counts."""

    def __init__(self, name: str = "w") -> None:
        super().__init__(name)
        self.runs: Counter[Any] = Counter()
        self.begun = anyio.Event()
        self.gate = anyio.Event()

    @job(name="wait")
    async def wait_for_gate(self, _job: Job[Any]) -> str:
        self.begun.set()
        await self.gate.wait()
        return "done"

    @job(name="echo")
    async def echo(self, job: Job[Any]) -> Any:
        self.runs[job.id] += 1
        await job.update("on it")
        return job.payload

    @job(name="stream")
    async def streams(self, job: Job[Any]) -> AsyncIterator[int]:
        for number in range(job.payload):
            yield number

    @job(name="hang")
    async def hang(self, _job: Job[Any]) -> None:
        await anyio.sleep_forever()


class Node(NamedTuple):
    runner: WorkerRunner
    bus: NetworkBus
    link: Interceptor

    @property
    def refused(self) -> dict[str, int]:
        """What it has refused, by reason, without zeros."""
        counts = msgspec.structs.asdict(self.bus.network_statistics().refused)
        return {reason: count for reason, count in counts.items() if count}


@asynccontextmanager
async def node(
    broker: MemoryBroker,
    label: str,
    *workers: BaseWorker,
    key: bytes | tuple[bytes, ...] | None = KEY,
    forge: Forger | None = None,
    **options: Any,
) -> AsyncGenerator[Node]:
    link = Interceptor(broker, forge)
    bus = NetworkBus(link, signing_key=key)
    runner = WorkerRunner(label, bus, handle_sigint=False, handle_sigterm=False, **options)
    await runner.add_workers(*workers)
    async with runner:
        yield Node(runner, bus, link)


class Fleet(NamedTuple):
    broker: MemoryBroker
    boss: BaseWorker
    worker: Worker
    a: Node
    b: Node


@asynccontextmanager
async def fleet(forge: Forger | None = None) -> AsyncGenerator[Fleet]:
    """Node a with the requester, node b with the performer; they know each other."""
    broker, boss, worker = MemoryBroker(), BaseWorker("boss"), Worker()
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(node(broker, "a", boss, forge=forge))
        b = await stack.enter_async_context(node(broker, "b", worker, forge=forge))
        await anyio.sleep(3)
        yield Fleet(broker, boss, worker, a, b)


async def play(fleet: Fleet, frame: Outgoing, lane: str, to: str) -> None:
    """Send a recorded frame again, as a new one, by a way of one's own choice."""
    forged = Outgoing(lane, to, f"played-{len(fleet.a.link.received)}-{lane}", frame.body)  # type: ignore[arg-type]
    fleet.broker.send([forged])
    await anyio.sleep(3)


def headers(link: Interceptor) -> list[tuple[Header, Outgoing]]:
    return [(decode_header(frame.body, max_message_bytes=2**21)[0], frame) for frame in link.sent]


def first(link: Interceptor, kind: str) -> Outgoing:
    return next(frame for header, frame in headers(link) if header.type == kind)


async def test_g42_requests_answers_updates_chunks_credit_cancels_beats_and_lists_are_all_signed() -> None:
    async with fleet() as it:
        assert await it.boss.job("w", name="echo", payload=1) == 1
        async with it.boss.job("w", name="stream", payload=600) as streaming:
            assert len([event async for event in streaming if event.type == event.STREAM_DATA]) == 600
        with anyio.move_on_after(15):
            await it.boss.job("w", name="hang")
        await it.b.runner.remove_worker("w")
        await anyio.sleep(3)
        kinds = set()
        for link in (it.a.link, it.b.link):
            for frame in link.sent:
                header, _ = decode_header(frame.body, lane=frame.lane, verifier=Signer(KEY))
                kinds.add(header.type)
    assert kinds == {
        "BusJobRequestMessage",
        "BusJobResponseMessage",
        "BusJobUpdateMessage",
        "BusJobStreamStartMessage",
        "BusJobStreamChunksMessage",
        "BusJobStreamEndMessage",
        "BusJobStreamCreditMessage",
        "BusJobRunningMessage",
        "BusJobCancelMessage",
        "BusRunnerBeatMessage",
        "BusRegistryRequestMessage",
        "BusWorkerRegistryMessage",
        "BusWorkerReadyMessage",
        "BusWorkerLostMessage",
        "BusJobWantedMessage",
    }


def altered(frame: Outgoing) -> bytes:
    """A bit of the body has changed: for a request, an update, an answer, a beat alike."""
    place = len(frame.body) - MAC_BYTES - 1
    return frame.body[:place] + bytes([frame.body[place] ^ 1]) + frame.body[place + 1 :]


def cut(frame: Outgoing) -> bytes:
    return frame.body[:4]


def bare(frame: Outgoing) -> bytes:
    """The same frame without its signature, in all else as if it were sent by a process without a key."""
    return resigned(frame, None)


def foreign(frame: Outgoing) -> bytes:
    return resigned(frame, Signer(OTHER))


def resigned(frame: Outgoing, signer: Signer | None, body: bytes = b"") -> bytes:
    header, original = decode_header(frame.body)
    packed = msgspec.msgpack.encode(msgspec.structs.replace(header, key_id=signer.key_id if signer else ""))
    data = b"\x01" + len(packed).to_bytes(4, "big") + packed + (body or bytes(original))
    return data + (signer.sign(data, frame.lane) if signer else b"")


def swollen(frame: Outgoing) -> bytes:
    return frame.body + bytes(MAX_MESSAGE_BYTES)


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (altered, "altered"),
        (cut, "malformed"),
        (bare, "unsigned"),
        (foreign, "unknown_key"),
        (swollen, "oversized"),
    ],
)
async def test_g40_g42_no_forged_copy_of_any_frame_counts_and_each_is_counted(
    forge: Callable[[Outgoing], bytes], reason: str
) -> None:
    async with fleet(forge) as it:
        for number in range(20):
            async with it.boss.job("w", name="echo", payload=number) as asked:
                updates = [event.data async for event in asked]
            assert (updates, asked.response) == (["on it"], number)
        async with it.boss.job("w", name="stream", payload=600) as streaming:
            chunks = [event.data async for event in streaming if event.type == event.STREAM_DATA]
        assert chunks == list(range(600))
        assert set(it.worker.runs.values()) == {1}
        assert len(it.worker.runs) == 20
        await anyio.sleep(3)
        for each in (it.a, it.b):
            forged = sum(delivery.body in (it.a.link.forged | it.b.link.forged) for delivery in each.link.received)
            assert forged > 20
            assert each.refused == {reason: forged}
        queued = [letter.body for letter in it.broker.dead_frames(100)]
        assert len(queued) == 21, "of each request one forged copy was in the queue"
        assert not set(queued) - it.a.link.forged.keys()
        letters = await it.a.bus.dead_letters.oldest()
        assert [letter.payload for letter in letters] == [None] * 21, "what was refused is not read later either"


async def test_g40_a_frame_from_one_inbox_is_refused_in_another_and_by_a_later_life() -> None:
    async with fleet() as it:
        assert await it.boss.job("w", name="echo", payload=1) == 1
        answer = first(it.b.link, "BusJobResponseMessage")
        assert answer.lane == "inbox"
        await play(it, answer, "inbox", it.b.bus.address)
        assert it.b.refused == {"misdirected": 1}
        await play(it, answer, "everyone", "")
        assert it.b.refused == {"misdirected": 1, "altered": 1}, "the lane is signed too"
        async with node(it.broker, "a-later", BaseWorker("boss")) as later:
            await play(it, answer, "inbox", later.bus.address)
            assert later.refused == {"misdirected": 1}


async def test_g40_a_frame_from_one_queue_is_refused_in_another_and_in_an_inbox() -> None:
    async with fleet() as it:
        other = Worker("other")
        await it.b.runner.add_workers(other)
        assert await it.boss.job("w", name="echo", payload=1) == 1
        request = first(it.a.link, "BusJobRequestMessage")
        await play(it, request, "queue", "other")
        assert it.b.refused == {"misdirected": 1}
        await play(it, request, "inbox", it.b.bus.address)
        await play(it, request, "everyone", "")
        assert it.b.refused == {"misdirected": 1, "altered": 2}
        assert not other.runs
        assert it.worker.runs.total() == 1


async def test_g40_beats_and_answers_that_are_played_again_are_dropped() -> None:
    async with fleet() as it:
        assert await it.boss.job("w", name="echo", payload=1) == 1
        before = it.a.bus.network_statistics().freshness.doubles
        await play(it, first(it.b.link, "BusJobResponseMessage"), "inbox", it.a.bus.address)
        await play(it, first(it.b.link, "BusRunnerBeatMessage"), "everyone", "")
        assert it.a.bus.network_statistics().freshness.doubles == before + 2
        assert it.a.runner.statistics().late_answers == 0
        assert it.a.refused == {}


async def test_g39_g40_a_request_that_is_played_again_is_answered_while_remembered_and_never_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fleet() as it:
        assert await it.boss.job("w", name="echo", payload=1) == 1
        request = first(it.a.link, "BusJobRequestMessage")
        await play(it, request, "queue", "w")
        assert it.b.bus.network_statistics().claims.repeated == 1
        assert it.b.refused == {}
        monkeypatch.setattr("bus.delivery.claims.MAX_REMEMBERED", 1)
        assert await it.boss.job("w", name="echo", payload=2) == 2
        await play(it, request, "queue", "w")
        assert it.b.refused == {"replayed": 1}
        assert [letter.body for letter in it.broker.dead_frames(100)] == [request.body]
        assert set(it.worker.runs.values()) == {1}


async def test_g39_a_job_that_comes_again_after_its_answer_is_forgotten_is_not_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fleet() as it:
        assert await it.boss.job("w", name="echo", payload=1) == 1
        request = first(it.a.link, "BusJobRequestMessage")
        monkeypatch.setattr("bus.delivery.claims.MAX_REMEMBERED", 1)
        assert await it.boss.job("w", name="echo", payload=2) == 2
        before = len(it.b.link.sent)
        session_of(it.b.bus)._inbox.read(Delivery("queue", "w", request.body, attempt=2))
        await anyio.sleep(3)
        (answer,) = [frame for header, frame in headers(it.b.link)[before:] if header.type == "BusJobResponseMessage"]
        told: Any = decode(*decode_header(answer.body))
        assert (told.status, told.error.type) == (JobStatus.FAILED, "AnswerForgotten")
        assert set(it.worker.runs.values()) == {1}
        assert it.b.refused == {}


async def test_g40_a_frame_older_than_what_is_remembered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet() as it:
        monkeypatch.setattr("bus.transport.deduplication.SEEN", 20)
        for number in range(30):
            assert await it.boss.job("w", name="echo", payload=number) == number
        old = first(it.b.link, "BusJobResponseMessage")
        await play(it, old, "inbox", it.a.bus.address)
        assert it.a.refused == {"replayed": 1}
        assert await it.boss.job("w", name="echo", payload=1) == 1
        assert it.a.refused == {"replayed": 1}
        assert it.b.refused == {}


@pytest.mark.parametrize(
    "message",
    [
        BusRunnerBeatMessage(source="b", runner="b", leaving=True),
        BusWorkerRegistryMessage(source="b", runner="b", workers=[WorkerRegistryEntry("stolen", active=True)]),
    ],
    ids=["goodbye", "list"],
)
async def test_g40_what_one_runner_says_about_another_does_not_count(message: Any) -> None:
    async with fleet() as it:
        frame = encode(message, id="0badbad0-1", origin="c#0badbad0", lane="everyone", signer=Signer(KEY))
        await play(it, Outgoing("everyone", "", "x", frame), "everyone", "")
        assert it.a.refused == {"misattributed": 1}
        assert "stolen" not in it.a.runner.registry
        assert await it.boss.job("w", name="echo", payload=1) == 1


async def test_g28_g40_what_an_earlier_life_said_does_not_end_the_present_one() -> None:
    async with fleet() as it:
        async with node(it.broker, "c", Worker("serves")) as earlier:
            await anyio.sleep(3)
        beat = first(earlier.link, "BusRunnerBeatMessage")
        async with (
            node(it.broker, "c", Worker("serves")) as present,
            node(it.broker, "d", BaseWorker("asks")) as newcomer,
        ):
            await anyio.sleep(3)
            for _ in range(5):
                await play(it, beat, "everyone", "")
                assert session_of(newcomer.bus)._membership.liveness.is_alive(present.bus.address)
            assert [data.address for data in newcomer.runner.registry.replicas("serves")] == [present.bus.address]
        async with node(it.broker, "e", BaseWorker("asks")) as unlucky:  # it hears the echo of a life and nothing else
            await play(it, beat, "everyone", "")
            assert session_of(unlucky.bus)._membership.liveness.is_alive(earlier.bus.address)
            unlucky.link.lose = lambda delivery: b"BusRegistryRequestMessage" in delivery.body
            async with node(it.broker, "c", Worker("serves")) as latest:
                await anyio.sleep(3)
                assert session_of(unlucky.bus)._membership.liveness.is_alive(latest.bus.address)
                assert [data.address for data in unlucky.runner.registry.replicas("serves")] == [latest.bus.address]


async def test_g40_only_who_has_a_job_at_most_once_answers_it_and_only_who_asked_cancels_it() -> None:
    async with fleet() as it:
        other = BaseWorker("boss")
        async with node(it.broker, "c", other) as c, anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def ask() -> None:
                results.append(await it.boss.job("w", name="wait", job_id="j", delivery="at_most_once"))

            tasks.start_soon(ask)
            await it.worker.begun.wait()
            answer = BusJobResponseMessage(
                source="w", target="boss", job_id="j", status=JobStatus.COMPLETED, response="forged"
            )
            session = session_of(c.bus)
            session.send_to(it.a.bus.address, answer)
            session.send_to(it.b.bus.address, BusJobCancelMessage(source="boss", target="w", job_id="j"))
            session.send_to(
                it.b.bus.address, BusJobStreamCreditMessage(source="boss", target="w", job_id="j", limit=999)
            )
            await anyio.sleep(3)
            assert it.a.refused == {"misattributed": 1}
            assert not results
            it.worker.gate.set()
        assert results == ["done"]
        assert it.b.refused == {}


async def test_g40_a_job_is_cancelled_by_its_requester_and_by_none_of_the_same_name_elsewhere() -> None:
    async with fleet() as it:
        async with node(it.broker, "c", BaseWorker("boss")) as c, anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def ask() -> None:
                results.append(await it.boss.job("w", name="wait", job_id="j"))

            tasks.start_soon(ask)
            await it.worker.begun.wait()
            session_of(c.bus).send_to(it.b.bus.address, BusJobCancelMessage(source="boss", target="w", job_id="j"))
            await anyio.sleep(3)
            assert not results
            it.worker.gate.set()
        assert results == ["done"]


async def test_g40_who_seems_to_have_sent_a_forged_request_hears_nothing_of_it() -> None:
    async with fleet() as it:
        request = BusJobRequestMessage(source="boss", target="w", job_id="j", job_name="echo")
        for frame in (
            encode(request, id="z-1", origin=it.a.bus.address, lane="queue", signer=Signer(OTHER)),
            encode(request, id="z-2", origin=it.a.bus.address),
        ):
            before = len(it.b.link.sent)
            await play(it, Outgoing("queue", "w", "x", frame), "queue", "w")
            said = {header.type for header, _ in headers(it.b.link)[before:]}
            assert said == {"BusRunnerBeatMessage"}
        assert it.b.refused == {"unknown_key": 1, "unsigned": 1}
        assert not it.worker.runs


@pytest.mark.parametrize("lane", ["queue", "inbox", "everyone", "direct"])
async def test_g40_a_frame_that_comes_from_nowhere_is_refused_as_nobody_can_be_answered(lane: Lane) -> None:
    broker, worker = MemoryBroker(), Worker()
    async with node(broker, "b", worker, key=None) as b:
        message: BusMessage = BusRegistryRequestMessage(source="x")
        if lane in {"queue", "direct"}:
            message = BusJobRequestMessage(source="x", target="w", job_id="j", job_name="echo")
        to = b.bus.address if lane in {"inbox", "direct"} else ""
        body = encode(message, id="x-1", origin="", destination=to)
        session_of(b.bus)._inbox.read(Delivery(lane, "w" if lane == "queue" else "", body))
        await anyio.sleep(60)
        assert b.refused == {"malformed": 1}
        assert not worker.runs
        assert {frame.to for frame in b.link.sent if frame.lane == "inbox"} == set()


async def test_g40_a_signed_request_that_cannot_be_read_is_answered() -> None:
    async with fleet() as it:
        request = BusJobRequestMessage(source="boss", target="w", job_id="j", job_name="echo")
        frame = encode(request, id="z-1", origin=it.a.bus.address, lane="queue")
        broken = resigned(Outgoing("queue", "w", "x", frame), Signer(KEY), body=b"\xc1")
        await play(it, Outgoing("queue", "w", "x", broken), "queue", "w")
        assert it.b.refused == {"undecodable": 1}
        assert "BusJobResponseMessage" in {header.type for header, _ in headers(it.b.link)}
        assert not it.worker.runs


@pytest.mark.parametrize("key", [None, OTHER], ids=["no key", "another key"])
async def test_g42_without_the_key_nothing_is_done_and_the_log_says_what_to_compare(
    key: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet() as it:
        stranger = BaseWorker("stranger")
        async with node(it.broker, "c", stranger, key=key, ready_timeout=10.0) as c:
            start = anyio.current_time()
            with pytest.raises(WorkerUnavailableError):
                await stranger.job("w", name="echo", payload=1)
            assert anyio.current_time() - start == pytest.approx(10.0)
            assert set(c.refused) == {"unknown_key"}
            assert await it.boss.job("w", name="echo", payload=1) == 1
        assert set(it.b.refused) == {"unsigned" if key is None else "unknown_key"}
        assert it.worker.runs.total() == 1
    refusals = [record.getMessage() for record in caplog.records if "frame refused" in record.getMessage()]
    assert all("compare signing_key (or ACTORBUS_SIGNING_KEY)" in line for line in refusals)
    assert sorted(line.partition("sender='")[2][0] for line in refusals) == ["a", "b", "c", "c"], "one line per sender"


@pytest.mark.parametrize("key", [None, OTHER], ids=["no key", "another key"])
async def test_g42_a_replica_with_a_wrong_key_leaves_the_jobs_to_the_others(key: bytes | None) -> None:
    async with fleet() as it:
        wrong = Worker()
        async with node(it.broker, "c", wrong, key=key) as c:
            for number in range(50):
                assert await it.boss.job("w", name="echo", payload=number) == number
            assert sum(c.refused.values()) > 0
        assert not wrong.runs
        assert it.worker.runs.total() == 50
        assert it.broker.statistics().dead_letters == 0


async def test_g42_who_is_alone_gives_back_what_it_cannot_verify_until_enough_have_tried() -> None:
    broker, worker = MemoryBroker(), Worker()
    async with node(broker, "b", worker) as b:
        request = BusJobRequestMessage(source="boss", target="w", job_id="j", job_name="echo")
        broker.send([Outgoing("queue", "w", "z-1", encode(request, id="z-1", origin="a#z", lane="queue"))])
        await anyio.sleep(60)
        assert 1 < b.refused["unsigned"] < 5
        assert broker.statistics().dead_letters == 0
        await anyio.sleep(200)
        assert b.refused == {"unsigned": 5}
        assert broker.statistics().dead_letters == 1
        boss = BaseWorker("boss")
        async with node(broker, "a", boss):
            assert await boss.job("w", name="echo", payload=1) == 1


async def test_g42_a_process_that_hears_of_the_others_takes_jobs_again_at_once() -> None:
    broker, boss, worker = MemoryBroker(), BaseWorker("boss"), Worker()
    async with node(broker, "b", worker) as b:
        request = BusJobRequestMessage(source="x", target="w", job_id="j", job_name="echo")
        broker.send([Outgoing("queue", "w", "z-1", encode(request, id="z-1", origin="x#z", lane="queue"))])
        await anyio.sleep(1)
        assert b.refused == {"unsigned": 1}
        async with node(broker, "a", boss):
            start = anyio.current_time()
            assert await boss.job("w", name="echo", payload=1) == 1
            assert anyio.current_time() - start < 5
        assert b.refused == {"unsigned": 2}
        assert broker.statistics().dead_letters == 1


async def test_g42_keys_are_rotated_in_a_fleet_that_runs() -> None:
    broker, old, new = MemoryBroker(), KEY, OTHER
    steps: list[Any] = [old, (old, new), (new, old), new]
    for asker, doer in ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)):
        boss, worker = BaseWorker("boss"), Worker()
        async with (
            node(broker, "a", boss, key=steps[asker]) as a,
            node(broker, "b", worker, key=steps[doer]) as b,
        ):
            assert await boss.job("w", name="echo", payload=1) == 1
            assert not a.refused
            assert not b.refused
