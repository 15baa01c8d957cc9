"""Which runners know of the workers here, and since when: they tell us what they cancel. Pure."""

from __future__ import annotations

from collections import OrderedDict

MAX_INTRODUCTIONS = 10_000
"""Pairs of a runner and a worker here; who is forgotten is asked once more."""


class Introductions:
    """From which of its frames on the runner of a requester has known that a worker here takes jobs.

    A runner numbers its frames, and sends the cancellation of a request to all that it knows to serve the name. So a
    request that it has sent since is wanted, unless its cancellation has come. Of an older one nobody can tell: it may
    have been given up before there was anybody to tell.
    """

    def __init__(self) -> None:
        self._since: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def made(self, runner: str, worker: str, frame_id: str) -> None:
        """A runner has said, in that frame, that it knows of a worker here."""
        self._since[runner, worker] = _number(frame_id)
        if len(self._since) > MAX_INTRODUCTIONS:
            self._since.popitem(last=False)

    def cover(self, runner: str, worker: str, frame_id: str) -> bool:
        """Whether a frame was sent since then."""
        since = self._since.get((runner, worker))
        return since is not None and _number(frame_id) > since

    def forget(self, runner: str | None = None, worker: str | None = None) -> None:
        """A runner may not know us any more, or a worker has gone; what is not given means all."""
        for known in [each for each in self._since if runner in {None, each[0]} and worker in {None, each[1]}]:
            del self._since[known]


def _number(frame_id: str) -> int:
    number = frame_id.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
