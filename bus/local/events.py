"""Events: named hooks with many handlers, and the log, which is the hook everybody has."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

from bus.local.tasks import is_cancellation
from bus.log import log, text_of
from bus.names import nearest

Handler = Callable[..., Awaitable[None] | None]
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


class EventSource:
    """Something with events: a fixed set of names, each with any number of handlers, called in order."""

    event_names: ClassVar[tuple[str, ...]] = ()
    _event_handlers: dict[str, list[Handler]] | None = None

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
        if not callable(handler):
            raise TypeError(f"the handler of {event_name!r} cannot be called: {handler!r:.100}")
        if event_name not in self.event_names:
            guess = nearest(event_name, self.event_names) or self.event_names
            raise ValueError(f"no event {event_name!r} on {self}: there is {', '.join(guess)}")
        if self._event_handlers is None:
            self._event_handlers = {}
        self._event_handlers.setdefault(event_name, []).append(handler)

    def remove_event_handler(self, event_name: str, handler: Handler) -> None:
        """Stop calling a handler: of one that was added twice, the last time. Does nothing if it was not added."""
        handlers = (self._event_handlers or {}).get(event_name, [])
        for index in reversed(range(len(handlers))):
            if handlers[index] == handler:
                del handlers[index]
                break

    def _listens(self, event_name: str) -> bool:
        return self._event_handlers is not None and bool(self._event_handlers.get(event_name))

    async def _emit(self, event_name: str, *details: object) -> None:
        """Call the handlers of an event, in order. One that raises is logged and the next is called."""
        if self._event_handlers is None:
            return
        for handler in tuple(self._event_handlers.get(event_name, ())):
            try:
                result = handler(self, *details)
                if inspect.isawaitable(result):
                    await result
            except BaseException as error:
                if is_cancellation(error):
                    raise
                log().error(
                    "event handler failed", owner=str(self), handler=event_name, error=text_of(error), exc_info=True
                )
