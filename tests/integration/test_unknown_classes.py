"""Two processes that do not know each other's classes: plain data where nobody named them, else objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import pydantic
import pytest

from actors import Client
from actors.server import create_app
from bus import register_type
from bus.brokers import Broker
from bus.wire.known import REGISTERED
from tests.integration.programs import post_office as here
from tests.integration.shell import Shell
from tests.support.http import asking, until_it_says
from tests.support.processes import ready

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

MARKS = [{"cents": 1}]
LETTER = {"text": "hi ", "stamps": [{"cents": 80}], "inner": None}
PARCEL = {
    "lettersInside": {"a": {"text": "outer", "stamps": [], "inner": LETTER}},
    "size": (1, 2),
    "speed": 2,
    "label": Path("a/b"),
    "marks": MARKS,
}
AS_JSON = {**PARCEL, "size": [1, 2], "label": "a/b"}


@pytest.fixture
async def url(each_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[str]:
    """Of a broker on which the post office serves, for a process that has named nothing."""
    monkeypatch.setattr(REGISTERED, "by_tag", {})
    monkeypatch.setattr(REGISTERED, "by_class", dict(REGISTERED.by_class))
    for shape in list(REGISTERED.by_class.values()):
        if shape.cls.__module__ == here.__name__:
            del REGISTERED.by_class[shape.cls]
        elif shape.builtin or shape.own:
            REGISTERED.add(shape.cls, shape)
    async with ready("post_office", each_broker.url):
        yield each_broker.url


async def ask(client: Client, name: str, payload: Any) -> Any:
    return await client.request("post", payload, name=name, timeout=60)


async def test_g49_an_asker_that_knows_no_class_gets_plain_data(url: str) -> None:
    async with Client(url) as client:
        assert await ask(client, "pack", "hi") == PARCEL
        assert await ask(client, "page", "hi") == {"items": [{"cents": 2}], "following": None}


async def test_g49_an_asker_that_names_them_gets_objects_whatever_they_are_called_there(url: str) -> None:
    for cls in (here.Parcel, here.Letter, here.Stamp, here.Size, here.Speed):
        register_type(cls, tag=f"__main__:{cls.__name__}")
    register_type(here.Page[here.Stamp], tag="__main__:Page[Stamp]")
    letter = here.Letter("hi", [here.Stamp(cents=80)])
    letter.text += " "
    parcel = here.Parcel(
        {"a": here.Letter("outer", inner=letter)},
        here.Size(1, 2),
        here.Speed.FAST,
        Path("a/b"),
        frozenset({here.Stamp(cents=1)}),
    )
    async with Client(url) as client:
        assert await ask(client, "pack", "hi") == parcel
        page = await ask(client, "page", "hi")
        assert page == here.Page[here.Stamp](items=[here.Stamp(cents=2)])
        assert page.model_fields_set == {"items"}
        assert await ask(client, "weigh", parcel) == repr(parcel)


async def test_g49_a_performer_converts_what_it_does_not_know_to_what_its_handler_takes(url: str) -> None:
    @dataclass
    class Package:
        lettersInside: dict[str, Any]  # noqa: N815 as the other side calls it
        size: here.Size

    class Note(pydantic.BaseModel):
        text: str

    package = Package({"a": Note(text="x")}, here.Size(3, 4))
    seen = here.Parcel({"a": here.Letter("x")}, here.Size(3, 4))
    async with Client(url) as client:
        assert await ask(client, "weigh", package) == repr(seen)
        assert await ask(client, "weigh", here.Parcel({}, here.Size(1, 2))) == repr(here.Parcel({}, here.Size(1, 2)))
        assert await ask(client, "look", package) == "{'lettersInside': {'a': {'text': 'x'}}, 'size': (3, 4)}"


async def test_g49_over_http_and_in_the_shell_objects_are_json(url: str, tmp_path: Path) -> None:
    app = create_app(url, run_store="memory://")
    async with asking(app) as client:
        await until_it_says(client, "/workers", 200, '"post"')
        for name, answer in (("pack", AS_JSON), ("page", {"items": [{"cents": 2}], "following": None})):
            response = await client.post(f"/invoke/post:{name}", json="hi")
            assert response.json().get("result") == answer, response.text
        weighed = await client.post("/invoke/post:weigh", json={"lettersInside": {}, "size": [1, 2], "speed": 2})
        assert weighed.json()["result"] == repr(here.Parcel({}, here.Size(1, 2), here.Speed.FAST))
    shell = Shell(tmp_path, url)
    shown = await anyio.to_thread.run_sync(lambda: shell.json("invoke", "post", "--job", "pack", "-p", '"hi"'))
    assert shown == AS_JSON
