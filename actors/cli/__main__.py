"""`python -m actors.cli` is `actorbus`."""

from __future__ import annotations

from actors.cli.entry import main

main()
