"""The sizes both sides share."""

from __future__ import annotations

PAYLOAD = {"n": 1}
"""The least that a job may carry."""
FIELDS = {
    "id": "a1b2c3d4",
    "title": "Quarterly report",
    "question": "How did sales develop in the third quarter?",
    "language": "en",
    "priority": 3,
    "temperature": 0.2,
    "urgent": False,
    "parent": None,
    "attempts": 1,
    "created": 1764500000.25,
}
"""What programs send: a flat dict of plain values."""
TIMEOUT = 30.0
"""Seconds; never reached."""
IN_FLIGHT = 1000
"""Jobs under way at once."""
GROUP = 100
"""Members of a group."""
CHUNKS = 10_000
"""Chunks of a stream."""
FEW_IN_FLIGHT = 100
"""Jobs under way at once over a network."""
BATCH = 64
"""Entries that a bare client sends in one go."""
