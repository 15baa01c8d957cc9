"""Run store URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.runs import (
    InMemoryRunStore,
    NatsRunStore,
    RedisRunStore,
    RocksDBRunStore,
    RunStore,
    SQLiteRunStore,
    open_run_store,
)
from actors.runs.stores import rocksdb as rocksdb_store
from bus import InvalidNameError


@pytest.mark.parametrize(
    ("url", "kind", "where"),
    [
        ("memory://", InMemoryRunStore, None),
        ("sqlite:///runs.db", SQLiteRunStore, "runs.db"),
        ("sqlite:////var/lib/my%20runs.db", SQLiteRunStore, "/var/lib/my runs.db"),
        ("rocksdb:///runs", RocksDBRunStore, "runs"),
        ("redis://127.0.0.1:6379/0", RedisRunStore, None),
        ("rediss://user:secret@example.org", RedisRunStore, None),
        ("nats://127.0.0.1:4222", NatsRunStore, None),
        ("nats://a:4222,nats://b:4222", NatsRunStore, None),
        ("tls://token@example.org", NatsRunStore, None),
    ],
)
def test_a_url_names_a_store(url: str, kind: type[RunStore], where: str | None) -> None:
    store = open_run_store(url)
    assert type(store) is kind
    assert where is None or store._ledger._path == where  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["", "runs.db", "postgres://host/runs", "memory://name", "file:///runs.db"])
def test_an_unknown_url_is_refused_with_those_that_there_are(url: str) -> None:
    with pytest.raises(ValueError, match=r"no run store for .*: use memory://, sqlite:///runs\.db .*, rocksdb:"):
        open_run_store(url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/runs.db", "rocksdb:", "sqlite:///a?mode=ro"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"names no file: write (sqlite|rocksdb):///path"):
        open_run_store(url)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(ValueError, match="no run store") as caught:
        open_run_store("amqp://user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis//:secret@host:6379",
        "sqlite://user:secret@host/runs.db",
        "redis://:sec/ret@host:6379",
        "redis://:secret@host:port",
        "redis://:secret@host:6379/runs",
        "nats://user:sec/ret@host:4222",
        "nats://secret@host:port",
        "tls://user:se#cret@host:4222",
    ],
)
def test_a_url_that_is_cut_wrongly_is_refused_before_it_is_used_and_shows_no_secret(url: str) -> None:
    with pytest.raises(ValueError, match=r"no run store for|is not the URL of|names no file") as caught:
        open_run_store(url)
    assert "sec" not in str(caught.value)


def test_a_missing_library_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rocksdb_store, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'actorbus\[rocksdb\]'"):
        open_run_store(f"rocksdb:///{tmp_path}")


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "nats://127.0.0.1"])
def test_a_namespace_that_is_no_name_is_refused(url: str) -> None:
    with pytest.raises(InvalidNameError, match="namespace"):
        open_run_store(url, namespace="a\tb")
