"""A worker that stands in for another: it answers by a table."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from actors.jobs.errors import HandlerError
from actors.worker.worker import BaseWorker
from bus import BusJobRequestMessage


class StubWorker(BaseWorker):
    """Answers jobs by a table, and notes them; for tests of those that ask.

        weather = StubWorker("weather", {"today": "sunny", "tomorrow": TimeoutError("no forecast")})
        ...
        assert weather.asked == [("today", {"place": "Oslo"})]

    Attributes:
        answers: By job name; None stands for jobs without a name. An exception is raised, a function is called with the
            payload and what it returns (or what awaiting that gives) is the answer, anything else is the answer. The
            table may be changed at any time.
        asked: The name and the payload of each job it was asked for, in order.
    """

    def __init__(self, name: str, answers: Mapping[str | None, Any] | None = None, *, active: bool = True) -> None:
        """Make a stub; see the attributes."""
        super().__init__(name, active=active)
        self.answers: dict[str | None, Any] = dict(answers or {})
        self.asked: list[tuple[str | None, Any]] = []

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        """Answer a job of any name.

        Raises:
            HandlerError: The table has no answer for it; the text says which it has. The requester is told.
        """
        self.asked.append((message.job_name, message.payload))
        if message.job_name not in self.answers:
            known = ", ".join(map(repr, self.answers)) or "none"
            raise HandlerError(f"stub {self.name!r} has no answer for job {message.job_name!r}; it has: {known}")
        answer = self.answers[message.job_name]
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer(message.payload)
            if inspect.isawaitable(answer):
                answer = await answer
        await self.send_job_response(message.job_id, answer)
