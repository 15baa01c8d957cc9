"""Whether Python finds this distribution's package `bus`, and not a file or another package of that name.

This is looked at before anything else is imported: what comes from somebody else's module would fail with less to say.
"""

from __future__ import annotations

from importlib import import_module

bus = import_module("bus")
if not hasattr(bus, "WorkerBus"):
    raise ImportError(
        f"actorbus needs its own package 'bus', but {bus.__file__ or list(bus.__path__)} is found first under that "
        "name: rename it, or start Python where it is not on the path",
        name="bus",
        path=bus.__file__,
    )
