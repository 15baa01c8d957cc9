"""Where the program `actorbus` begins."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `actorbus` with the arguments of this process, and exit."""
    try:
        from actors.cli.program import actorbus  # noqa: PLC0415 - without the extra this says which one is missing
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("actorbus: the command line needs click: pip install 'actorbus[cli]'")
    actorbus()
