"""Who asks a worker of another process: `python -m examples.fleet.script [URL]`, with the URL of `worker.py`."""

import sys

import anyio

from actors import Client
from bus import open_bus


async def main() -> None:
    async with Client(open_bus(*sys.argv[1:])) as client:
        print(await client.request("ann", "one two three", name="count", timeout=30))


if __name__ == "__main__":
    anyio.run(main)
