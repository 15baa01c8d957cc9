"""What goes into a job comes out equal and isolated, on each way a value can take: G13 and G41 in process."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pydantic
import pytest

from actors import BaseWorker, Job, JobError, JobStatus, WorkerActivationArgs, job, subscribe
from bus import (
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    BusMessage,
    EncodeError,
    register_type,
)
from tests.support.running import running

pytestmark = pytest.mark.anyio


class Level(StrEnum):
    LOW = "low"


class Text(str):
    __slots__ = ()


@register_type
class Struct(msgspec.Struct):
    name: str
    inner: Struct | None = None
    items: list[Any] = []


@register_type
@dataclasses.dataclass
class Data:
    when: datetime
    table: dict[str, Any] = dataclasses.field(default_factory=dict)


@register_type
class Model(pydantic.BaseModel):
    count: int
    price: Decimal = Decimal("1.10")


class Note(BusDataMessage, kw_only=True):
    value: Any = None


VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -(2**63),
    2**200,
    1.5,
    math.inf,
    "",
    "text with ünïcödé and \0",
    b"",
    b"\x00\xff",
    [],
    {},
    {"nested": [{"deep": [1, [2, [3]]]}, {}]},
    {1: "int key", (1, 2): "tuple key", None: "none key", b"b": 1},
    (),
    (1, (2,), [3]),
    {1, 2},
    frozenset({(1, 2)}),
    datetime(2026, 11, 20, 6, 30, 0, 5, tzinfo=UTC),
    datetime(2026, 11, 20, 6, 30, fold=1),  # noqa: DTZ001 - one without a zone travels too
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    date(2026, 2, 28),
    time(23, 59, 59, 999999),
    timedelta(days=-1, microseconds=1),
    Decimal("1.10"),
    Decimal("Infinity"),
    UUID(int=5),
    Struct("a", Struct("b"), [1, Struct("c")]),
    Data(datetime(2026, 1, 1, tzinfo=UTC), {"a": (1,)}),
    Model(count=3),
    Level.LOW,
    {Level.LOW: [Level.LOW]},
    Path("a/b"),
]


class Mirror(BaseWorker):
    """Sends back what it is given, on every way there is."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seen: list[tuple[str, Any]] = []

    @job
    async def returns(self, payload: Any) -> Any:
        self.seen.append(("payload", payload))
        return payload

    @job
    async def sends(self, work: Job[Any]) -> None:
        await self.send_job_update(work.id, work.payload)
        await self.send_job_update(work.id, work.payload, urgent=True)
        await self.send_job_stream_start(work.id, work.payload)
        await self.send_job_stream_data(work.id, work.payload)
        await self.send_job_stream_end(work.id, work.payload)

    @job
    async def yields(self, work: Job[Any]) -> AsyncGenerator[Any]:
        yield work.payload

    @job
    async def fails(self, work: Job[Any]) -> None:
        await work.respond(work.payload, status=JobStatus.FAILED)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        if args is not None:
            self.seen.append(("args", args["metadata"]["value"]))

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.seen.append(("message", message.value))

    @subscribe("topic")
    async def published(self, data: Any) -> None:
        self.seen.append(("topic", data))


class Boss(BaseWorker):
    def __init__(self, name: str = "boss") -> None:
        super().__init__(name)
        self.seen: list[tuple[str, Any]] = []

    async def on_job_update(self, message: BusJobUpdateMessage) -> None:
        self.seen.append(("update", message.update))

    async def on_job_stream_data(self, message: Any) -> None:
        self.seen.append(("data", message.data))

    async def on_job_response(self, message: BusJobResponseMessage) -> None:
        self.seen.append(("response", message.response))


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(same(a, b) for a, b in zip(one.items(), other.items(), strict=True))
    if isinstance(one, list | tuple):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    return True


def parts(value: Any) -> list[Any]:
    """Every part of a value that can be changed."""
    found: list[Any] = []
    if isinstance(value, dict | list | set | Struct | Data | Model):
        found.append(value)
    if isinstance(value, dict):
        found += [part for item in value.values() for part in parts(item)]
    elif isinstance(value, list | tuple):
        found += [part for item in value for part in parts(item)]
    elif isinstance(value, Struct):
        found += parts(value.inner) + parts(value.items)
    elif isinstance(value, Data):
        found += parts(value.table)
    return found


def isolated(one: Any, other: Any) -> bool:
    return not {id(part) for part in parts(one)} & {id(part) for part in parts(other)}


@pytest.mark.parametrize("value", VALUES, ids=[f"{n}-{type(value).__name__}" for n, value in enumerate(VALUES)])
async def test_g41_a_value_comes_out_equal_and_isolated_on_every_way(value: Any) -> None:
    boss, mirror = Boss(), Mirror("mirror")
    async with running(boss, mirror):
        answer = await boss.job("mirror", name="returns", payload=value)
        assert same(answer, value)
        assert isolated(answer, value)
        assert isolated(answer, mirror.seen[0][1])
        assert isolated(mirror.seen[0][1], value)

        async with boss.job("mirror", name="sends", payload=value) as context:
            events = [event.data async for event in context]
        assert len(events) == 5
        assert all(same(event, value) and isolated(event, value) for event in events)
        assert same(context.response, value)

        async with boss.job("mirror", name="yields", payload=value) as context:
            assert same([event.data async for event in context], [None, value, None])

        with pytest.raises(JobError) as caught:
            await boss.job("mirror", name="fails", payload=value)
        assert same(caught.value.response, {} if value is None else value)

        await boss.publish("topic", value)
        await boss.send_bus_message(Note(source="boss", target="mirror", value=value))
        await boss.activate_worker("mirror", args=WorkerActivationArgs(metadata={"value": value}))
        await anyio.wait_all_tasks_blocked()
        heard = dict(mirror.seen)
        assert list(heard) == ["payload", "topic", "message", "args"]
        assert all(same(each, value) and isolated(each, value) for each in heard.values())
        assert same([each for kind, each in boss.seen if kind == "update"], [value, value])
        assert same([each for kind, each in boss.seen if kind == "data"], [value, value])


async def test_g41_each_member_of_a_group_and_each_subscriber_gets_a_copy_of_its_own() -> None:
    boss, one, two = Boss(), Mirror("one"), Mirror("two")
    async with running(boss, one, two):
        shared = {"items": [1]}
        await boss.job_group("one", "two", name="returns", payload=shared)
        await boss.job_group("one", "two", name="returns", payloads={"one": shared, "two": shared})
        await boss.publish("topic", shared)
        await anyio.wait_all_tasks_blocked()
        assert [len(one.seen), len(two.seen)] == [3, 3]
        for (_, first), (_, second) in zip(one.seen, two.seen, strict=True):
            assert first == second == shared
            assert isolated(first, second)
            assert isolated(first, shared)
        assert boss.seen.count(("response", shared)) == 4


async def test_g41_what_either_side_changes_later_changes_nothing_for_the_other() -> None:
    class Keeper(BaseWorker):
        kept: Any = None

        @job(sequential=True)
        async def keep(self, work: Job[dict[str, Any]]) -> Any:
            await self.may_look.wait()
            seen = dict(work.payload)
            self.kept = {"answer": [1]}
            work.payload["changed"] = "by the performer"
            await work.update(self.kept)
            self.kept["answer"].append(2)
            await work.respond(self.kept)
            self.kept["answer"].append(3)
            return seen

        may_look: anyio.Event

    boss, keeper = Boss(), Keeper("keeper")
    async with running(boss, keeper):
        keeper.may_look = anyio.Event()
        payload = {"a": [1]}
        async with boss.job("keeper", name="keep", payload=payload) as context:
            payload["a"].append(2)
            payload["b"] = []
            keeper.may_look.set()
            events = [event.data async for event in context]
        assert payload == {"a": [1, 2], "b": []}
        assert events == [{"answer": [1]}]
        assert context.response == {"answer": [1, 2]}


@pytest.mark.parametrize(("value", "base"), [(OrderedDict(a=1), {"a": 1}), ({"x": Text("y")}, {"x": "y"})])
async def test_g41_a_subclass_that_equals_its_base_arrives_as_the_base(value: Any, base: Any) -> None:
    boss, mirror = Boss(), Mirror("mirror")
    async with running(boss, mirror):
        assert same(await boss.job("mirror", name="returns", payload=value), base)


# --- G13: what cannot travel, where the performer sends it ---


class Bad(BaseWorker):
    """Sends what cannot travel, and notes what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.refused: list[str] = []

    @job
    async def returns(self, message: Any) -> Any:
        return {"items": [0, {"when": object()}]}

    @job
    def returns_from_thread(self) -> Any:
        return {"items": [0, {"when": object()}]}

    @job
    async def responds(self, message: BusJobRequestMessage) -> None:
        try:
            await self.send_job_response(message.job_id, {"items": [0, {"when": object()}]})
        except EncodeError as error:
            self.refused.append(error.path)

    @job
    async def responds_and_fails(self, message: BusJobRequestMessage) -> None:
        await self.send_job_response(message.job_id, {"items": [0, {"when": object()}]})

    @job
    async def ends_stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id)
        await self.send_job_stream_end(message.job_id, {"items": [0, {"when": object()}]})

    @job
    async def yields(self) -> AsyncGenerator[Any]:
        yield 1
        yield {"items": [0, {"when": object()}]}

    @job
    async def updates(self, work: Job[Any]) -> str:
        for send in (work.update, work.stream_start, work.stream):
            try:
                await send([object()])
            except EncodeError as error:
                self.refused.append(error.path)
        await work.update("fine")
        return "done"

    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        return {"items": [0, {"when": object()}]}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("returns", "response.items[1].when"),
        ("returns_from_thread", "response.items[1].when"),
        ("responds", "response.items[1].when"),
        ("responds_and_fails", "response.items[1].when"),
        ("ends_stream", "response.items[1].when"),
        ("yields", "data.items[1].when"),
        (None, "response.items[1].when"),
    ],
)
async def test_g13_a_response_that_cannot_travel_is_an_error_at_the_requester_that_names_the_path(
    name: str | None, path: str
) -> None:
    boss, bad = Boss(), Bad("bad")
    async with running(boss, bad) as runner:
        with pytest.raises(JobError) as caught:
            await boss.job("bad", name=name)
        assert caught.value.status is JobStatus.ERROR
        assert caught.value.error is not None
        assert caught.value.error.type == "EncodeError"
        assert caught.value.error.message.startswith(f"{path} cannot travel: ")
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().late_answers == 0
        assert bad.refused == ([path] if name == "responds" else [])


async def test_g13_an_update_that_cannot_travel_is_refused_and_the_job_goes_on() -> None:
    boss, bad = Boss(), Bad("bad")
    async with running(boss, bad):
        async with boss.job("bad", name="updates") as context:
            events = [(event.type, event.data) async for event in context]
        assert bad.refused == ["update[0]", "data[0]", "data[0]"]
        assert context.response == "done"
        assert events == [("update", "fine")]


async def test_g13_a_group_is_not_begun_when_the_payload_of_one_member_cannot_travel() -> None:
    boss, one, two = Boss(), Mirror("one"), Mirror("two")
    async with running(boss, one, two):
        with pytest.raises(EncodeError, match=r"^payloads\['two'\]\.x cannot travel"):
            await boss.job_group("one", "two", name="returns", payload=1, payloads={"two": {"x": object()}})
        await anyio.wait_all_tasks_blocked()
        assert one.seen == two.seen == []
        assert boss.job_groups == {}
