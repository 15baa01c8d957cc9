"""A process of its own whose classes nobody else knows: `python -m tests.integration.programs.post_office URL`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
import msgspec
import pydantic

from actors import BaseWorker, WorkerRunner, job

T = TypeVar("T")


class Speed(Enum):
    SLOW = 1
    FAST = 2


class Size(NamedTuple):
    width: int
    height: int


class Stamp(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    cents: int


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]
    following: str | None = None


@dataclass
class Letter:
    text: str
    stamps: list[Stamp] = field(default_factory=list)
    inner: Letter | None = None

    def __post_init__(self) -> None:
        self.text = self.text.strip()


class Parcel(msgspec.Struct, rename="camel"):
    letters_inside: dict[str, Letter]
    size: Size
    speed: Speed = Speed.SLOW
    label: Path | None = None
    marks: frozenset[Stamp] = frozenset()


class PostOffice(BaseWorker):
    @job
    async def pack(self, text: str) -> Parcel:
        letter = Letter(text, [Stamp(cents=80)])
        letter.text += " "  # what its constructor would take away
        inside = {"a": Letter("outer", inner=letter)}
        return Parcel(inside, Size(1, 2), Speed.FAST, Path("a/b"), frozenset({Stamp(cents=1)}))

    @job
    async def page(self, text: str) -> Page[Stamp]:
        return Page[Stamp](items=[Stamp(cents=len(text))])

    @job
    async def weigh(self, parcel: Parcel) -> str:
        return repr(parcel)

    @job
    async def look(self, payload: dict[str, Any]) -> str:
        return repr(payload)


async def main(url: str) -> None:
    async with WorkerRunner("office", url) as runner:
        await runner.add_workers(PostOffice("post"))
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
