"""A script with a sync client: `python -m tests.integration.programs.sync_client WHAT URL`.

WHAT is one of its functions.
"""

from __future__ import annotations

import sys
import threading

from actors import Client


def closes(url: str) -> None:
    with Client.sync(url) as client:
        print(client.request("desk", "hello", name="echo"), flush=True)
        client.request("desk", name="hang")


def forgets(url: str) -> None:
    """Never leaves the client, in which another thread still waits."""
    client = Client.sync(url).__enter__()
    print(client.request("desk", "hello", name="echo"), flush=True)
    job = client.job("desk", name="hang").__enter__()
    print(next(job).data, flush=True)
    threading.Thread(target=lambda: list(job), daemon=True).start()


def forgets_in_memory(url: str) -> None:
    client = Client.sync(url).__enter__()
    print(client.workers(), flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
