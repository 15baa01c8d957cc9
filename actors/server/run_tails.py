"""The events of runs, for those who watch the whole fleet."""

from __future__ import annotations

from collections import OrderedDict

from actors.client import Client, _Requester
from actors.handlers import subscribe
from actors.runs.errors import RunError
from actors.runs.owner import TOPIC
from actors.server.feed import Feed, FleetEvent

MOST_TAILS = 100
"""Runs whose events are shown at once; those of others can be had from their own streams."""

MOST_REMEMBERED = 1_000
"""Runs that were shown to their end: news of one of them, as that somebody would cancel it, does not show it again."""


class RunTails(_Requester):
    """Shows the events of runs that this process hears of, while somebody watches.

    Args:
        feed: Where they are shown.
        client: Finds runs.
    """

    def __init__(self, feed: Feed, client: Client) -> None:
        super().__init__()
        self._feed = feed
        self._client = client
        self._following: dict[str, None] = {}
        self._shown: OrderedDict[str, None] = OrderedDict()

    @subscribe(TOPIC)
    async def on_news(self, run_id: str) -> None:
        """A run was submitted, or is to be cancelled."""
        known = run_id in self._following or run_id in self._shown
        if self._feed.readers and not known and len(self._following) < MOST_TAILS:
            self._following[run_id] = None
            self.create_task(self._follow(run_id), f"events of run {run_id}")

    async def leave(self) -> None:
        """Stop, when the server does."""
        await self.stop()

    async def _follow(self, run_id: str) -> None:
        try:
            run = await self._client.run(run_id)
            async for event in run.events():
                if not self._feed.readers:
                    return
                self._feed.put(FleetEvent(event.type.value, event.at, {"run_id": run_id, "event": event}))
            self._shown[run_id] = None
            if len(self._shown) > MOST_REMEMBERED:
                self._shown.popitem(last=False)
        except RunError:
            return  # it is gone, or the store is: whoever reads the run's own stream is told
        finally:
            del self._following[run_id]
