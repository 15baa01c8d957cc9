"""The lines that each process of a chaos run writes about itself: one JSON object each, written before it goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

Event = Literal[
    "asked",
    "ended",
    "saw",
    "began",
    "sent",
    "finished",
    "stopped",
    "ready",
    "up",
    "lost",
    "connected",
    "disconnected",
    "statistics",
    "died",
    "paused",
    "resumed",
    "told",
    "left",
    "disturbed",
]


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line.

    Attributes:
        event: `asked`, `saw` (an update or chunk) and `ended` at a requester; `began`, `sent`, `finished` and `stopped`
            (by an exception) in a handler; `ready`, `up` and `lost` (of the node in `detail`), `connected`,
            `disconnected`, `statistics` of a node; `died`, `paused`, `resumed`, `told` (to end), `left` and
            `disturbed` from who runs it all.
        time: By the monotonic clock of the machine, which all its processes share.
        node: Name and process id of whom it is about.
        job: The job.
        attempt: Which delivery.
        number: Of an event of a job, counted from 0 in each attempt; for `ended`, how many there were; for
            `disturbed`, how many further executions of any one job it excuses; for `left`, the exit code.
        status: For `ended`.
        detail: For people, or see `event`.
        figures: For `statistics`.
    """

    event: Event
    time: float
    node: str
    job: str = ""
    attempt: int = 0
    number: int = 0
    status: str = ""
    detail: str = ""
    figures: dict[str, int] = {}


class Journal:
    """A file of lines. What was written is with the kernel: a kill loses none, nor tears one that others append to."""

    def __init__(self, path: Path, node: str) -> None:
        self.node = node
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: Event, node: str = "", **fields: Any) -> Line:
        """Write a line, about `node` or ourselves."""
        line = Line(event, time.monotonic(), node or self.node, **fields)
        os.write(self._file, msgspec.json.encode(line) + b"\n")
        return line

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


class Reader:
    """Reads the files of a directory as they grow."""

    def __init__(self, directory: Path) -> None:
        self.lines: list[Line] = []
        self._directory = directory
        self._positions: dict[Path, int] = {}
        self._decode = msgspec.json.Decoder(Line).decode

    def read(self) -> list[Line]:
        """Every line so far: those of one file in their order."""
        for path in sorted(self._directory.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._positions.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")
            self._positions[path] = self._positions.get(path, 0) + len(whole) + len(end)
            self.lines += [self._decode(line) for line in whole.splitlines()]
        return self.lines
