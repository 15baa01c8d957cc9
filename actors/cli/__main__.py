"""`python -m actors.cli` is `actorbus`."""

from actors.cli.entry import main

main()
