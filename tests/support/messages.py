"""The messages of a user's own that several tests send."""

from __future__ import annotations

from typing import Any

from bus import BusDataMessage, BusSystemMessage


class Note(BusDataMessage, kw_only=True):
    text: Any = ""
    items: list[Any] | None = None


class Alarm(BusSystemMessage, kw_only=True):
    """Overtakes notes."""

    text: str = ""
