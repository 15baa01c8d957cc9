"""The sizes both sides share."""

from __future__ import annotations

PAYLOAD = {"n": 1}
TIMEOUT = 30.0
"""Seconds; never reached."""
IN_FLIGHT = 1000
"""Jobs under way at once."""
GROUP = 100
"""Members of a group."""
