"""Who follows what becomes of the jobs of a whole fleet."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from actors.client.client import _Requester
from actors.jobs.errors import RunnerStateError
from actors.observability.job_events import TOPIC, JobNews
from actors.worker.handlers import subscribe
from actors.worker.verbs import core_of

if TYPE_CHECKING:
    from actors.runner.runner import WorkerRunner


NewsHandler = Callable[[JobNews], Awaitable[None] | None]


@asynccontextmanager
async def follow_jobs(runner: WorkerRunner, handler: NewsHandler) -> AsyncGenerator[None]:
    """Call `handler` with what becomes of the jobs of all runners of the fleet, as long as the context lasts.

    For people who watch: nobody waits for it, and it may have gaps. A runner publishes its events while it knows of
    somebody who follows them, about every 50 ms, in their order. What cannot be sent is dropped, the oldest of 1,000
    first, and told as `missed`; what a runner that is killed had not published is not told.

    Args:
        runner: The running runner where this listens; its own jobs are told too.
        handler: Sync or async; called with one `JobNews` after the other. What it raises is logged and goes to
            `on_error` of the runner.

    Raises:
        RunnerStateError: The runner does not run, or is ending.
    """
    if not runner.running:
        raise RunnerStateError(f"{runner!r} does not run: follow jobs inside 'async with runner:', or after on_ready")
    follower = _Follower(handler)
    await runner.add_workers(follower)
    try:
        yield
    finally:
        with CancelScope(shield=True):
            await follower.stop()


class _Follower(_Requester):
    """The hidden worker behind `follow_jobs`.

    Args:
        handler: As for `follow_jobs`.
    """

    def __init__(self, handler: NewsHandler) -> None:
        super().__init__()
        self._handler = handler

    @subscribe(TOPIC)
    async def on_news(self, batch: Any) -> None:
        """A runner has published some of its events."""
        for news in batch if isinstance(batch, list) else ():
            if isinstance(news, JobNews):
                core = core_of(self)
                await core.hosted.guarded(core, "on_news", self._handler, news)
