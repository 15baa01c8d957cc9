"""Run store URLs."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from actors.runs.store import RunStore
from bus.transport.server import redacted

FORMS = (
    "memory://, sqlite:///runs.db (four slashes for a path from the root), rocksdb:///folder, "
    "redis://host:port/db, rediss://, nats://host:port or tls://host:port"
)


def open_run_store(url: str, *, namespace: str = "actorbus") -> RunStore:
    """Make the run store a URL stands for. It is opened by `async with`.

    Args:
        url: `memory://` for one that lives as long as this process; `sqlite:///runs.db` for a file beside where the
            process runs, `sqlite:////var/lib/runs.db` for one by its whole path; `rocksdb:///runs` for a folder
            alike; `redis://host:port/db` or `rediss://...` for a Redis or Valkey server; `nats://host:port` or
            `tls://host:port` for a NATS server with JetStream.
        namespace: What all that is kept on a server is called by, so that several programs can share one.

    Raises:
        ValueError: Nothing is known under that scheme, there is no path, or it is not the URL of a server.
        ImportError: The library is not installed; the text says how to install it.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "memory" if not parts.netloc and not parts.path:
            from actors.runs.stores.memory import InMemoryRunStore  # noqa: PLC0415 - only what is asked for is loaded

            return InMemoryRunStore()
        case "sqlite":
            from actors.runs.stores.sqlite import SQLiteRunStore  # noqa: PLC0415

            return SQLiteRunStore(_path(url))
        case "rocksdb":
            from actors.runs.stores.rocksdb import RocksDBRunStore  # noqa: PLC0415

            return RocksDBRunStore(_path(url))
        case "redis" | "rediss":
            from actors.runs.stores.redis import RedisRunStore  # noqa: PLC0415

            return RedisRunStore(url, namespace=namespace)
        case "nats" | "tls":
            from actors.runs.stores.nats import NatsRunStore  # noqa: PLC0415

            return NatsRunStore(url, namespace=namespace)
    raise ValueError(f"no run store for {parts.scheme or redacted(url)!r:.100}: use {FORMS}")


def _path(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or parts.query:
        scheme = parts.scheme
        shown = redacted(url) if "@" in url else url
        raise ValueError(f"{shown!r:.200} names no file: write {scheme}:///path, or {scheme}:////path from the root")
    return path
