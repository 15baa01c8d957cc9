"""The sizes both sides share."""

from __future__ import annotations

PAYLOAD = {"n": 1}
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
