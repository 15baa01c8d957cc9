"""Virtual time for tests of timeouts: the clock jumps as soon as everybody waits, so an hour costs nothing."""

from __future__ import annotations

import pytest
from trio.testing import MockClock


def virtual_time() -> pytest.MarkDecorator:
    """Run a test on trio, with a clock of its own that jumps to the next deadline when nothing else can go on."""
    return pytest.mark.parametrize(
        "anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})], ids=["virtual_time"]
    )
