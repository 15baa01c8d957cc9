"""Events: named hooks with many handlers, and the log, which is the hook everybody has."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import Any, ClassVar, TypeVar

from bus.local.tasks import is_cancellation
from bus.log import log, text_of
from bus.names import nearest

Handler = Callable[..., Awaitable[None] | None]
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


class _Apart:
    """Awaits something in a context of its own, in the task that awaits it: what it sets there does not come out."""

    def __init__(self, work: Awaitable[object], context: Context) -> None:
        self._work = work
        self._context = context

    def __await__(self) -> Generator[Any, Any, None]:
        run = self._context.run
        steps = run(self._work.__await__)
        step: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                waits_for = run(step)
            except StopIteration:
                return
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is thrown where this waits
                step = partial(steps.throw, error) if hasattr(steps, "throw") else partial(_throw, error)
            else:
                step = partial(steps.send, value) if hasattr(steps, "send") else partial(next, steps)


def _throw(error: BaseException) -> None:
    raise error


class EventHandlers:
    """The handlers of a fixed set of events, any number for each, called in order as `handler(source, *details)`."""

    __slots__ = ("_handlers", "_names", "_source")

    def __init__(self, source: object, names: tuple[str, ...]) -> None:
        self._source = source
        self._names = names
        self._handlers: dict[str, list[Handler]] = {}

    def add(self, event_name: str, handler: Handler) -> None:
        """Call `handler` when the event happens.

        Raises:
            ValueError: The event does not exist; the text names those that do.
            TypeError: The handler cannot be called.
        """
        if not callable(handler):
            raise TypeError(f"the handler of {event_name!r} cannot be called: {handler!r:.100}")
        if event_name not in self._names:
            guess = nearest(event_name, self._names) or self._names
            raise ValueError(f"no event {event_name!r} on {self._source!r}: there is {', '.join(guess)}")
        self._handlers.setdefault(event_name, []).append(handler)

    def remove(self, event_name: str, handler: Handler) -> None:
        """Stop calling a handler: of one that was added twice, the last time. Does nothing if it was not added."""
        handlers = self._handlers.get(event_name, [])
        for index in reversed(range(len(handlers))):
            if handlers[index] == handler:
                del handlers[index]
                break

    def listens(self, event_name: str) -> bool:
        """Whether an event has a handler."""
        return bool(self._handlers.get(event_name))

    def of(self, event_name: str) -> tuple[Handler, ...]:
        """The handlers of an event."""
        return tuple(self._handlers.get(event_name, ()))

    async def emit(self, event_name: str, *details: object, **keywords: object) -> None:
        """Call the handlers of an event, in order. One that raises is logged and the next is called.

        What one sets in a context variable does not reach the next.
        """
        for handler in self.of(event_name):
            context = copy_context()
            try:
                result = context.run(handler, self._source, *details, **keywords)
                if inspect.isawaitable(result):
                    await _Apart(result, context)
            except BaseException as error:
                if is_cancellation(error):
                    raise
                log().error(
                    "event handler failed",
                    owner=repr(self._source),
                    handler=event_name,
                    error=text_of(error),
                    exc_info=True,
                )


class EventSource:
    """Something with events: a fixed set of names, each with any number of handlers, called in order."""

    event_names: ClassVar[tuple[str, ...]] = ()
    _handlers: EventHandlers | None = None

    def event_handler(self, event_name: str) -> Callable[[HandlerT], HandlerT]:
        """Decorate a function, sync or async, to be called as `handler(source, *details)` when the event happens.

        Args:
            event_name: One of `event_names`.

        Raises:
            ValueError: The event does not exist; the text names those that do.
        """

        def decorate(handler: HandlerT) -> HandlerT:
            self.add_event_handler(event_name, handler)
            return handler

        return decorate

    def add_event_handler(self, event_name: str, handler: Handler) -> None:
        """Call `handler(source, *details)` when the event happens; see `event_handler`."""
        if self._handlers is None:
            self._handlers = EventHandlers(self, self.event_names)
        self._handlers.add(event_name, handler)

    def remove_event_handler(self, event_name: str, handler: Handler) -> None:
        """Stop calling a handler: of one that was added twice, the last time. Does nothing if it was not added."""
        if self._handlers is not None:
            self._handlers.remove(event_name, handler)

    async def _emit(self, event_name: str, *details: object) -> None:
        """Call the handlers of an event, in order. One that raises is logged and the next is called."""
        if self._handlers is not None:
            await self._handlers.emit(event_name, *details)
