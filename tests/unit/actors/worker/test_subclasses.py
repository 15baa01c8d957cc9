"""Subclasses of workers and runners are ordinary classes (G50): mixins, copies, fields and names of their own work."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import attrs
import pytest

import actors
from actors import BaseWorker, Client, RunnerStateError, WorkerRunner, job
from tests.support.workers import quiet

pytestmark = pytest.mark.anyio


async def asked(worker: BaseWorker, name: str) -> Any:
    """What a worker answers, alone on a runner."""
    async with quiet(ready_timeout=1) as runner, Client(runner) as client:
        await runner.add_workers(worker)
        return await client.request(worker.name, name=name)


class Counting(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.number = 1

    @job(name="number")
    async def tell(self) -> int:
        return self.number


class Observed:
    """A mixin that sees what is set."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "level":
            super().__setattr__("changes", getattr(self, "changes", 0) + 1)


class Fallback:
    """A mixin that has any attribute of a kind."""

    def __getattr__(self, name: str) -> str:
        if name.startswith("config_"):
            return name.removeprefix("config_")
        raise AttributeError(name)


@pytest.mark.parametrize("bases", [(BaseWorker, Observed), (Observed, BaseWorker)], ids=["after", "before"])
def test_a_mixin_that_sees_what_is_set_is_called(bases: tuple[type, ...]) -> None:
    worker: Any = type("Worker", bases, {})("worker")
    worker.level = 1
    worker.level = 2
    assert worker.changes == 2
    worker.max_concurrency = 3
    with pytest.raises(ValueError, match="must be 1 or more"):
        worker.max_concurrency = 0


@pytest.mark.parametrize("bases", [(BaseWorker, Fallback), (Fallback, BaseWorker)], ids=["after", "before"])
def test_a_mixin_that_makes_attributes_up_is_called(bases: tuple[type, ...]) -> None:
    worker: Any = type("Worker", bases, {})("worker")
    assert worker.config_host == "host"
    with pytest.raises(AttributeError):
        _ = worker.other


def test_what_a_property_lacks_is_named() -> None:
    class Pooled(BaseWorker):
        @property
        def pool(self) -> str:
            settings: Any = self
            return str(settings.settings.url)

    with pytest.raises(AttributeError, match="'settings'"):
        _ = Pooled("pooled").pool


def pickled(worker: BaseWorker) -> Any:
    """A worker that went through bytes."""
    return pickle.loads(pickle.dumps(worker))  # noqa: S301 - they are ours


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
async def test_a_copy_of_a_worker_is_a_worker_of_its_own(duplicate: Any) -> None:
    template = Counting("counting")
    worker = duplicate(template)
    worker.number = 2
    assert (worker.name, await asked(worker, "number"), await asked(template, "number")) == ("counting", 2, 1)


@pytest.mark.parametrize("field", [dataclasses.field, attrs.field], ids=["dataclasses", "attrs"])
async def test_an_option_may_be_a_field(field: Any) -> None:
    class Fields(BaseWorker):
        max_concurrency: int = field(default=4)

        def __post_init__(self) -> None:
            super().__init__("fields")

        __attrs_post_init__ = __post_init__

        @job(name="limit")
        async def limit(self) -> int:
            return self.max_concurrency

    made: Any = {dataclasses.field: dataclasses.dataclass(eq=False), attrs.field: attrs.define(eq=False, slots=False)}[
        field
    ]
    cls = made(Fields)
    assert await asked(cls(), "limit") == 4
    with pytest.raises(ValueError, match="must be 1 or more, got 0"):
        await asked(cls(max_concurrency=0), "limit")


async def test_names_of_our_classes_are_free_for_subclasses_and_so_are_their_private_names() -> None:
    class Verbs(BaseWorker):
        def __init__(self) -> None:
            super().__init__("verbs")
            self.__core = "mine"

        @job(name="core")
        async def core(self) -> str:
            return self.__core

    class WorkerRunner(actors.WorkerRunner):
        def __init__(self, **options: Any) -> None:
            super().__init__(handle_sigint=False, handle_sigterm=False, **options)
            self.__core = self.__scope = None

    assert await asked(Verbs(), "core") == "mine"
    async with WorkerRunner() as runner:
        assert runner.running


async def test_handlers_are_inherited_past_a_base_that_looks_at_its_subclasses_alone() -> None:
    class Base(BaseWorker):
        plugins: list[type] = []  # noqa: RUF012 - as it is written

        def __init_subclass__(cls) -> None:
            Base.plugins.append(cls)

        @job(name="ping")
        async def ping(self) -> str:
            return "pong"

    class Child(Base):
        @job(name="more")
        async def more(self) -> str:
            return "more"

    assert (await asked(Child("child"), "ping"), await asked(Child("child"), "more")) == ("pong", "more")


@pytest.mark.parametrize("hashes", [True, False])
async def test_classes_that_are_equal_are_told_apart(hashes: bool) -> None:
    class Named(type):
        def __eq__(cls, other: object) -> bool:
            return isinstance(other, Named) and cls.__name__ == other.__name__

        if hashes:

            def __hash__(cls) -> int:
                return hash(cls.__name__)

    def made(number: int) -> BaseWorker:
        async def answer(self: BaseWorker) -> int:
            return number

        worker: BaseWorker = Named("Same", (BaseWorker,), {"answer": job(name="answer")(answer)})("same")
        return worker

    first, second = made(1), made(2)
    assert (await asked(first, "answer"), await asked(second, "answer")) == (1, 2)


async def test_what_is_set_on_one_worker_is_called_whenever_it_was_set() -> None:
    called: list[str] = []

    class Early(Counting):
        def __init__(self) -> None:
            self.on_activated = self.note  # type: ignore[method-assign]  # before there is a worker
            super().__init__("early")

        async def note(self, args: Any) -> None:
            called.append("on_activated")

    worker = Early()
    begin, live = worker.start, worker.run

    async def start() -> None:
        called.append("start")
        await begin()

    async def run(params: Any) -> None:
        called.append("run")
        await live(params)

    worker.start, worker.run = start, run  # type: ignore[method-assign]
    assert await asked(worker, "number") == 1
    assert sorted(called) == ["on_activated", "run", "start"]


async def test_a_worker_that_is_initialised_by_each_of_its_bases_keeps_what_it_was_given() -> None:
    class Left(BaseWorker):
        def __init__(self, name: str) -> None:
            BaseWorker.__init__(self, name)
            self.add_event_handler("on_activated", lambda worker, _args: called.append(worker.name))

    class Right(BaseWorker):
        def __init__(self) -> None:
            BaseWorker.__init__(self)

    class Both(Left, Right):
        def __init__(self) -> None:
            Left.__init__(self, "both")
            Right.__init__(self)

        @job(name="ping")
        async def ping(self) -> str:
            return "pong"

    called: list[str] = []
    assert await asked(Both(), "ping") == "pong"
    assert called == ["both"]


def test_a_worker_whose_init_was_not_called_says_so_whatever_is_asked_of_it() -> None:
    class Bare(BaseWorker):
        def __init__(self) -> None:
            pass

    for use in (
        lambda worker: worker.name,
        repr,
        lambda worker: worker.job("other"),
        lambda worker: worker.active_jobs,
    ):
        with pytest.raises(RunnerStateError, match=r"Bare.__init__ does not call super\(\).__init__\(name\)"):
            use(Bare())


async def test_a_subclass_of_the_runner_may_wrap_its_run() -> None:
    wrapped: list[str] = []

    class Wrapping(WorkerRunner):
        async def run(self, worker: Any = None, *, auto_end: bool = True) -> None:
            wrapped.append("run")
            await super().run(worker, auto_end=auto_end)

    class Once(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()

    await Wrapping(handle_sigint=False, handle_sigterm=False).run(Once("once"))
    assert wrapped == ["run"]
