"""What has come in over a connection and waits for the one reader of a transport. For asyncio."""

from __future__ import annotations

import asyncio
from collections import deque

from bus.transport import Delivery


class Arrivals:
    """Deliveries in the order they came, and the wake-up of the reader that waits for them.

    Between them stand receipts: subjects to which the reader sends an empty message once it has taken what came before.
    """

    def __init__(self) -> None:
        self._items: deque[Delivery | str] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._news = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Delivery | str) -> None:
        """Add a delivery or a receipt, and wake the reader."""
        self._items.append(item)
        self.wake()

    def take(self, most: int) -> tuple[list[Delivery], list[str]]:
        """At most `most` deliveries, and the receipts that are due with them."""
        deliveries: list[Delivery] = []
        receipts: list[str] = []
        items = self._items
        while items and len(deliveries) < most:
            item = items.popleft()
            if isinstance(item, str):
                receipts.append(item)
            else:
                deliveries.append(item)
        return deliveries, receipts

    def wake(self) -> None:
        """Let the reader look again: there is something, or something to do."""
        self._news = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Return at the next `wake()`, at once if there was one since the last wait, or after `seconds`."""
        if not self._news:
            loop = asyncio.get_running_loop()
            reader = self._reader = loop.create_future()
            timer = loop.call_later(seconds, _wake, reader)
            try:
                await reader
            finally:
                timer.cancel()
                self._reader = None
        self._news = False


def _wake(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)
