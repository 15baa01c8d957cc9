"""Runs in a key-value bucket of a NATS server with JetStream."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from actors.runs.errors import RunError, RunStoreError
from actors.runs.stores.ledger import Changes, Entry, too_large
from actors.runs.stores.ledger_store import LedgerRunStore
from bus import BusError, TransportError, check_name
from bus.local.tasks import on_asyncio

if TYPE_CHECKING:
    from bus.nats.connection import NatsLink


HEADERS = 512
"""Bytes of a message that are not its value."""

_NO_STREAM, _NAME_IN_USE, _OTHER_VERSION = 10059, 10058, 10071  # error codes of JetStream


class NatsLedger:
    """A bucket, whose keys are the ledger's with dots for slashes. Any number of processes may use it; asyncio only.

    What is deleted leaves no marker: its subject is purged up to the version that was meant.

    Args:
        url: `nats://host:port` or `tls://host:port`; several servers of one cluster with commas between them.
        namespace: How the bucket's name begins.

    Raises:
        ValueError: It is not the URL of NATS servers, or the namespace is no name.
    """

    def __init__(self, url: str, namespace: str) -> None:
        from bus.nats.client import servers  # noqa: PLC0415
        from bus.nats.layout import token  # noqa: PLC0415 - see `_connected`

        servers(url)
        bucket = f"{token(check_name('namespace', namespace))}_runs"
        self.changes = Changes()
        self._url = url
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._connecting = anyio.Lock()
        self._link: NatsLink | None = None
        self._open = False

    async def open(self) -> None:
        """Connect, and make the bucket if there is none."""
        if not on_asyncio():
            raise RunError("a run store on NATS works on asyncio only: its client library knows nothing else")
        self._open = True
        try:
            await self._make_bucket()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect."""
        self._open = False
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """See `Ledger`."""
        answers = await self._ask(*((f"$JS.API.DIRECT.GET.{self._stream}.{self._subject(key)}", b"") for key in keys))
        return [_entry(answer) for answer in answers]

    async def put(self, key: str, value: bytes, version: int) -> bool:
        """See `Ledger`."""
        most = (await self._connected()).client.max_payload - HEADERS
        if len(value) > most:
            raise too_large(key, len(value), most, "this NATS server (`max_payload`)")
        headers = {"Nats-Expected-Last-Subject-Sequence": str(version)}
        (answer,) = await self._ask((self._subject(key), value), headers=headers)
        return self._checked(msgspec.json.decode(answer.data), _OTHER_VERSION) is not None

    async def delete(self, keys: Sequence[str], version: int | None = None) -> None:
        """See `Ledger`."""
        upto = {} if version is None else {"seq": version + 1}
        purge = f"$JS.API.STREAM.PURGE.{self._stream}"
        bodies = [msgspec.json.encode({"filter": self._subject(key), **upto}) for key in keys]
        for answer in await self._ask(*((purge, body) for body in bodies)):
            self._checked(msgspec.json.decode(answer.data))

    async def keys(self, folder: str, before: str = "", limit: int | None = None) -> list[str]:
        """See `Ledger`."""
        subjects: dict[str, int] = {}
        while True:
            body = {"subjects_filter": f"{self._subject(folder)}.*", "offset": len(subjects)}
            (answer,) = await self._ask((f"$JS.API.STREAM.INFO.{self._stream}", msgspec.json.encode(body)))
            info = self._checked(msgspec.json.decode(answer.data), _NO_STREAM)
            if info is None:
                await self._make_bucket()
                return []
            some = info["state"].get("subjects") or {}
            subjects |= some
            if not some or len(subjects) >= info.get("total", 0):
                break
        found = [subject.removeprefix(self._prefix).replace(".", "/") for subject in subjects]
        return sorted((key for key in found if not before or key < before), reverse=True)[:limit]

    def _subject(self, key: str) -> str:
        return self._prefix + key.replace("/", ".")

    async def _make_bucket(self) -> None:
        bucket = {
            "name": self._stream,
            "subjects": [f"{self._prefix}>"],
            "max_msgs_per_subject": 1,
            "discard": "new",
            "storage": "file",
            "num_replicas": 1,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        try:
            answer = await (await self._connected()).api(f"STREAM.CREATE.{self._stream}", bucket)
        except TransportError as error:
            raise RunStoreError(str(error)) from error
        self._checked(answer, _NAME_IN_USE)  # with other settings: they are the administrator's business

    async def _connected(self) -> NatsLink:
        from bus.nats.connection import connect  # noqa: PLC0415 - only who uses it loads it

        async with self._connecting:
            if not self._open:
                raise RunStoreError("the run store on NATS is not open: use it inside `async with`")
            if self._link is None or not self._link.connected:
                link, self._link = self._link, None
                if link is not None:
                    await link.close()
                try:
                    self._link = await connect(self._url, "actorbus runs", lambda: None)
                except BusError as error:
                    raise (RunStoreError if isinstance(error, TransportError) else RunError)(str(error)) from error
            return self._link

    async def _ask(self, *requests: tuple[str, bytes], headers: dict[str, str] | None = None) -> list[Any]:
        """The answers to requests, in their order."""
        from bus.nats.connection import Answers, status_of  # noqa: PLC0415 - only who uses it loads it

        for again in (True, False):
            answers = Answers(await self._connected())
            try:
                tokens = [await answers.ask(subject, payload, headers) for subject, payload in requests]
                found = {message.subject.rpartition(".")[2]: message for message in await answers.wait()}
            except TransportError as error:
                raise RunStoreError(str(error)) from error
            if all(status_of(message) != "503" for message in found.values()):
                return [found[token] for token in tokens]
            if again:  # nobody takes it: the bucket is gone
                await self._make_bucket()
        raise RunStoreError(f"JetStream does not answer for the bucket of {self._stream}")

    def _checked(self, answer: dict[str, Any], but: int = 0) -> dict[str, Any] | None:
        """An answer of JetStream; None if it is the error that is expected."""
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") == but:
            return None
        raise RunStoreError(f"JetStream refused for {self._stream}: {error.get('description')}")


def _entry(answer: Any) -> Entry | None:
    headers = answer.headers or {}
    if "Nats-Sequence" not in headers:
        return None
    return Entry(answer.data, int(headers["Nats-Sequence"]))


class NatsRunStore(LedgerRunStore):
    """Keeps runs in a bucket of a NATS server with JetStream, 2.9 or newer, for any number of processes; asyncio only.

    A value, such as the result of a run, is at most what the server takes as one message: 1 MiB as it comes.

    A bucket has no index: `find` is told the names of all runs that are kept, `leases` those of all that have not
    ended, `sweep` those of all that have a time to live, and who begins to add to a run, or to read it, those of its
    events. Seen on two busy cores: `find` of 100 among 1,000 runs in 33 ms, among 10,000 in 50 ms.

    Args:
        url: `nats://host:port` or `tls://host:port`; several servers of one cluster with commas between them.
        namespace: How the name of the bucket begins; stores of different namespaces do not see each other.
        clock: Unix time, for people and for the time to live.
        rng: Where ids come from.
    """

    def __init__(
        self,
        url: str = "nats://127.0.0.1:4222",
        *,
        namespace: str = "actorbus",
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        super().__init__(NatsLedger(url, namespace), clock=clock, rng=rng)
