"""Signals of the operating system, as requests to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from anyio.lowlevel import current_token

from bus.log import log

if TYPE_CHECKING:
    from signal import Handlers, Signals

Received = Callable[[signal.Signals], None]
"""Told of a signal, in its event loop, between two steps of tasks."""


class Finish(Protocol):
    """Begins to end a runner, gracefully or at once."""

    def __call__(self, reason: str, *, at_once: bool = False) -> None:
        """Begin to end."""


class _Watch(msgspec.Struct, eq=False):
    """Who is told of a signal.

    Attributes:
        soon: Has its event loop call something soon; any thread and any signal handler may ask for that.
        received: What to call.
    """

    soon: Callable[..., object]
    received: Received


_watches: dict[signal.Signals, list[_Watch]] = {}
"""Who watches each signal in this process: one handler tells them all."""

_before: dict[signal.Signals, Any] = {}
"""What handled each signal before it was watched, for who has the handler of ours and nobody who watches."""

_OF_LOOPS = {"asyncio.runners", "trio._core._ki"}
"""The modules whose handlers every program has whose event loop runs: they turn Ctrl-C into an exception."""


def can_watch() -> bool:
    """Whether signals reach this thread: only the main one gets any."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def watching(numbers: Iterable[signal.Signals], received: Received) -> Iterator[None]:
    """Have `received` called for each signal as long as the block lasts; see `watch`."""
    stops = [watch(number, received) for number in numbers]
    try:
        yield
    finally:
        for stop in stops:
            stop()


def watch(number: signal.Signals, received: Received) -> Callable[[], None]:
    """Have `received` called for each signal until the function that this returns is called.

    1. A signal that the program handles itself stays its own, whoever watches: one with a handler that is neither
       Python's default nor that of the event loop.
    2. A handler that is set meanwhile takes the signal, and stays when nobody watches any more. Else the one before is
       back then.
    3. All who watch a signal are told. In a thread other than the main one, which gets no signals, nobody is.
    """
    if not can_watch() or not _is_free(signal.getsignal(number)):
        return lambda: None
    native: Any = current_token().native_token
    soon = native.run_sync_soon if hasattr(native, "run_sync_soon") else native.call_soon_threadsafe
    watch = _Watch(soon, received)
    _watches.setdefault(number, []).append(watch)
    if signal.getsignal(number) is not _receive:
        _before[number] = signal.signal(number, _receive)

    def stop() -> None:
        _watches[number].remove(watch)
        if not _watches[number] and signal.getsignal(number) is _receive:
            signal.signal(number, _restored(number))

    return stop


def _receive(number: int, frame: FrameType | None) -> None:
    """Tell who watches. It runs in the main thread, between any two instructions: it only has loops call something."""
    received = signal.Signals(number)
    told = False
    for watch in tuple(_watches.get(received, ())):
        try:
            watch.soon(watch.received, received)
            told = True
        except RuntimeError:  # its event loop was closed, and has not told us
            continue
    if told:
        return
    # Somebody has put back what stood here once, and nobody watches: as if it had never stood here.
    before = _restored(received)
    if callable(before):
        before(number, frame)
    elif before != signal.SIG_IGN:
        signal.signal(received, before)
        signal.raise_signal(received)


def _is_free(handler: Callable[..., Any] | int | Handlers | None) -> bool:
    """Whether a handler is nobody's: that of Python, of an event loop, or of ours."""
    if handler in {signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, _receive}:
        return True
    return getattr(getattr(handler, "func", handler), "__module__", None) in _OF_LOOPS


def _restored(number: Signals) -> Any:
    """What handled a signal before; that of an event loop whose program has ended meanwhile would be of no use."""
    before = _before.get(number, signal.SIG_DFL)
    program = getattr(before, "keywords", {}).get("main_task")
    return signal.default_int_handler if program is not None and program.done() else before


class EndSignals:
    """The signals that end a runner: the first one gracefully, the second one at once.

    Args:
        waits: Says what an end waits for, and for how many seconds at most.
        finish: Begins to end the runner.
        sigint: Whether SIGINT, which is Ctrl-C, ends it.
        sigterm: Whether SIGTERM does.
    """

    def __init__(self, waits: Callable[[], str], finish: Finish, *, sigint: bool, sigterm: bool) -> None:
        self._waits = waits
        self._finish = finish
        wanted = ((signal.SIGINT, sigint), (signal.SIGTERM, sigterm))
        self._numbers = [number for number, is_wanted in wanted if is_wanted]
        self._stops: list[Callable[[], None]] = []
        self._came = False

    def begin(self) -> None:
        """Watch them, if signals reach this thread."""
        self._stops = [watch(number, self._received) for number in self._numbers]

    def end(self) -> None:
        """Watch them no more."""
        stops, self._stops = self._stops, []
        for stop in stops:
            stop()

    def _received(self, number: signal.Signals) -> None:
        again = "Ctrl-C" if number is signal.SIGINT else number.name
        if self._came:
            log().warning("second signal: stopping at once", signal=number.name)
            self._finish(f"received {number.name} twice", at_once=True)
        else:
            self._came = True
            log().warning(f"{number.name}: ending, {self._waits()}; {again} once more stops at once")
            self._finish(f"received {number.name}")
