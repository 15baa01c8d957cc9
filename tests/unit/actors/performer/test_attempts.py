"""What a handler is given is its own: each attempt has the payload as it came, and no message is the machinery's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic
import pytest

from actors import Backoff, BaseWorker, Job, JobError, RetryPolicy, job
from bus import BusJobRequestMessage
from tests.support.running import running

pytestmark = pytest.mark.anyio

THRICE = RetryPolicy(attempts=3, backoff=Backoff(first=0.0001))


@dataclass
class Basket:
    items: list[int]
    seen: list[str] = field(default_factory=list, init=False)


class Order(pydantic.BaseModel):
    items: list[int]
    _seen: list[str] = pydantic.PrivateAttr(default_factory=list)


class Spoiler(BaseWorker):
    """Takes all that it is given apart, and says what it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given: list[Any] = []

    def spoil(self, items: list[int], *others: list[str]) -> int:
        self.given.append((list(items), *map(list, others)))
        items.clear()
        for other in others:
            other.append("spoilt")
        if len(self.given) < 3:
            raise ConnectionError(len(self.given))
        return len(self.given)

    @job(retries=THRICE)
    async def of_list(self, items: list[int]) -> int:
        return self.spoil(items)

    @job(retries=THRICE)
    def in_thread(self, payload: dict[str, list[int]]) -> int:
        return self.spoil(payload.pop("items"))

    @job(retries=THRICE)
    async def of_job(self, work: Job[dict[str, list[int]]]) -> int:
        items = work.payload.pop("items")
        work.payload = {}
        return self.spoil(items)

    @job(retries=THRICE)
    async def of_message(self, message: BusJobRequestMessage) -> int:
        items = message.payload["items"]
        message.payload = None
        return self.spoil(items)

    @job(retries=THRICE)
    async def of_basket(self, basket: Basket) -> int:
        return self.spoil(basket.items, basket.seen)

    @job(retries=THRICE)
    async def of_order(self, work: Job[Order]) -> int:
        return self.spoil(work.payload.items, work.payload._seen)

    @job(retries=THRICE)
    async def unfit(self, number: int) -> None:
        raise AssertionError(number)


@pytest.mark.parametrize(
    ("name", "payload", "rest"),
    [
        ("of_list", [1, 2], ()),
        ("in_thread", {"items": [1, 2]}, ()),
        ("of_job", {"items": [1, 2]}, ()),
        ("of_message", {"items": [1, 2]}, ()),
        ("of_basket", Basket([1, 2]), ([],)),
        ("of_basket", {"items": [1, 2]}, ([],)),
        ("of_order", Order(items=[1, 2]), ([],)),
    ],
)
async def test_g55_each_attempt_has_the_payload_as_it_came(name: str, payload: Any, rest: tuple[Any, ...]) -> None:
    boss, one, two = BaseWorker("boss"), Spoiler("one"), Spoiler("two")
    async with running(boss, one, two):
        before = repr(payload)
        group = await boss.job_group("one", "two", name=name, payload=payload)
        assert group.responses == {"one": 3, "two": 3}
        assert one.given == two.given == [([1, 2], *rest)] * 3
        assert repr(payload) == before


async def test_a_payload_that_does_not_fit_is_not_tried_again() -> None:
    boss, spoiler = BaseWorker("boss"), Spoiler("spoiler")
    async with running(boss, spoiler):
        with pytest.raises(JobError, match="expected int, got str"):
            await boss.job("spoiler", name="unfit", payload="x")


async def test_g1_what_a_handler_does_to_its_message_changes_nothing_about_the_job() -> None:
    def forge(message: BusJobRequestMessage) -> None:
        for name in ("source", "origin", "job_id", "target"):
            setattr(message, name, "somebody")
        message.attempt = 7
        message.lineage = ("x",)

    class Forger(BaseWorker):
        @job
        async def by_message(self, message: BusJobRequestMessage) -> int:
            forge(message)
            return 1

        @job
        async def by_job(self, work: Job[Any]) -> int:
            forge(work.request)
            forge(next(iter(self.active_jobs.values())))
            return 2

        async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any]:
            forge(message)
            return {"number": 3}

    boss = BaseWorker("boss")
    async with running(boss, Forger("forger")):
        for name, answer in (("by_message", 1), ("by_job", 2), (None, {"number": 3})):
            assert await boss.job("forger", name=name, timeout=5) == answer


class Nothing(BaseWorker):
    @job
    async def plain(self) -> None: ...

    @job
    async def says(self, work: Job[Any]) -> None:
        await work.respond(None)

    @job
    def threaded(self, payload: Any) -> None: ...

    @job
    async def fails(self, payload: Any) -> None:
        raise msgspec.ValidationError(payload)


@pytest.mark.parametrize("name", ["plain", "says", "threaded"])
async def test_g2_none_is_none(name: str) -> None:
    boss = BaseWorker("boss")
    async with running(boss, Nothing("a"), Nothing("b")):
        assert await boss.job("a", name=name) is None
        async with boss.job("a", name=name) as asked:
            pass
        assert asked.response is None
        group = await boss.job_group("a", "b", name=name)
        assert group.responses == {"a": None, "b": None}
        assert [result.response for result in group.results.values()] == [None, None]


async def test_g9_only_answers_that_were_given_are_among_the_responses() -> None:
    boss = BaseWorker("boss")
    async with running(boss, Nothing("a"), Nothing("b"), ready_timeout=0.02):
        group = await boss.job_group("a", "b", "ghost", name="fails", cancel_on_error=False)
        assert group.responses == {}
        assert list(group.results) == ["a", "b", "ghost"]
