"""The link to a NATS server: what is asked over it, and whether it still lives. For asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

import anyio
import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.errors import AccessDeniedError, BusError, TransportError
from bus.log import log
from bus.nats.client import StraightClient, number_of, servers
from bus.transport.server import redacted

ANSWER_TIMEOUT = 5.0
"""Seconds the server may take for an answer, the writing to its disk included."""


class Sink(Protocol):
    """Takes what the server answers to one request."""

    def answered(self, message: Msg) -> None:
        """The answer has come."""

    def lost(self) -> None:
        """It will not come: the connection is gone."""


class Answers:
    """The answers to several requests that one caller waits for together."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._tokens: list[str] = []
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = False
        self.messages: list[Msg] = []

    async def ask(self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None) -> str:
        """Send one more request; its token is the end of the subject of its answer."""
        token = await self._link.ask(subject, payload, self, headers)
        self._tokens.append(token)
        return token

    def answered(self, message: Msg) -> None:
        """See `Sink`."""
        self.messages.append(message)
        if len(self.messages) == len(self._tokens):
            self._finish()

    def lost(self) -> None:
        """See `Sink`."""
        self._lost = True
        self._finish()

    async def wait(self, seconds: float = ANSWER_TIMEOUT) -> list[Msg]:
        """Wait for all of them; the order is that of their arrival.

        Raises:
            TransportError: Some did not come in time. Whether what was asked was done is not known.
        """
        missing = len(self._tokens) - len(await self.arrived(seconds))
        if missing:
            raise self._missing(missing, seconds)
        return self.messages

    async def arrived(self, seconds: float = ANSWER_TIMEOUT) -> list[Msg]:
        """Wait for all of them, and return those that came in time.

        Raises:
            TransportError: None did, or the connection was lost.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._finish)
        try:
            if len(self.messages) < len(self._tokens) and not self._lost:
                self._future = asyncio.get_running_loop().create_future()
                await self._future
        finally:
            timer.cancel()
            self._link.forget(self._tokens)
        missing = len(self._tokens) - len(self.messages)
        if missing and (self._lost or not self.messages):
            raise self._missing(missing, seconds)
        return self.messages

    def _missing(self, count: int, seconds: float) -> TransportError:
        why = "the connection was lost" if self._lost else f"{seconds:g} seconds were not enough"
        return TransportError(f"{count} of {len(self._tokens)} answers did not come: {why}{self._link.reason()}")

    def _finish(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


def status_of(message: Msg) -> str:
    """The status that the server itself put on a message, `503` if there was nobody to take a request; or nothing."""
    return (message.headers or {}).get("Status", "")


CONNECT_TIMEOUT = 5.0
"""Seconds an attempt to connect may take."""

CLOSE_TIMEOUT = 2.0
"""Seconds of politeness when a connection is closed; then it is cut."""

PING_INTERVAL = 3
"""Seconds between two pings of the client, of which two may stay unanswered: a link that holds still is seen soon."""

ECHO_LIMIT = 4.0
"""Seconds without one of our own echoes, of which at least `ECHOES` were sent, after which the link is dead."""
ECHOES = 3

FAILURES = (TimeoutError, OSError, nats.errors.Error)
"""What the client raises. Its timeout is an OSError as well on 3.11, so the class alone does not say what happened."""


class NatsLink:
    """One life of a connection. It is never mended: who lost it makes a new one, and knows that all is to be redone.

    Args:
        client: The client of the library, connected or about to be. If it is one of ours, it is closed with the link.
        where: The address of the server, without secrets.
        on_lost: Called once when the connection is gone.

    Attributes:
        echo_sent: When the latest echo that came back was sent: what has arrived since left the server later than that.
        errors: How many errors the client has reported.
        forbidden: The last right that the server has refused, in its words.
    """

    def __init__(self, client: Client, where: str, *, on_lost: Callable[[], None]) -> None:
        self.client = client
        self.where = where
        self.echo_sent = 0.0
        self.errors = 0
        self.forbidden = ""
        self._ours = client if isinstance(client, StraightClient) else None
        self._on_lost = on_lost
        self._lost = False
        self._last_error = ""
        self._reconnects = client.stats["reconnects"]
        self._asked: dict[str, Sink] = {}
        self._count = 0
        self._prefix = ""
        self._subscriptions: list[Subscription] = []
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._echoes = 0
        self._echoed = 0.0
        self._next_echo = 0.0

    @property
    def connected(self) -> bool:
        """Whether this life of the connection goes on."""
        if not self._lost and not (self.client.is_connected and self.client.stats["reconnects"] == self._reconnects):
            self._lose()
        return not self._lost

    async def start(self) -> None:
        """Begin to listen for answers."""
        inbox = self.client.new_inbox()
        self._prefix = f"{inbox}."
        self._echoed = self.echo_sent = asyncio.get_running_loop().time()
        await self.listen(f"{inbox}.*", self._answered)

    def new_subject(self) -> str:
        """A subject of our own that nobody else knows."""
        return self.client.new_inbox()

    async def listen(self, subject: str, callback: Callable[[Msg], None]) -> Subscription:
        """Call `callback` for each message of a subject, one after the other, as soon as it is read if that can be."""

        def take(message: Msg) -> None:
            try:
                callback(message)
            except Exception as error:  # noqa: BLE001 - one bad message must not stop the reader
                self._report(error)

        async def take_later(message: Msg) -> None:
            take(message)

        try:
            subscription = await self.client.subscribe(subject, cb=take_later)
        except FAILURES as error:
            raise self.failed("subscribing", error) from error
        self._subscriptions.append(subscription)
        if self._ours is not None:
            self._ours.listeners[number_of(subscription)] = take
        return subscription

    async def listen_straight(self, subject: str, take: Callable[[bytes], None]) -> None:
        """Call `take`, which must not raise, for each message of a subject, as soon as it is read if that can be."""
        subscription = await self.listen(subject, lambda message: take(message.data))
        if self._ours is not None:
            self._ours.straight[number_of(subscription)] = take

    def stop_listening(self, subscription: Subscription) -> None:
        """Listen no more; what is on its way still comes."""
        self._subscriptions.remove(subscription)
        if self.connected:
            self.spawn(self._drain, subscription)

    async def _drain(self, subscription: Subscription) -> None:
        await subscription.drain()  # type: ignore[no-untyped-call]  # the library does not say
        if self._ours is not None:
            self._ours.listeners.pop(number_of(subscription), None)

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Write a message. Nothing says whether it arrived."""
        if not self.connected:
            raise TransportError(f"not connected to {self.where}{self.reason()}")
        try:
            await self.client.publish(subject, payload, reply=reply, headers=headers)
        except FAILURES as error:
            raise self.failed("writing", error) from error

    def write(self, subject: str, payload: bytes) -> bool:
        """Write a message at once, which saves a wake-up. False, and nothing done, if something has to go before it."""
        return self._ours is not None and self.connected and self._ours.write(subject, payload)

    async def ask(self, subject: str, payload: bytes, sink: Sink, headers: dict[str, str] | None = None) -> str:
        """Write a message whose answer goes to `sink`, and return a token to `forget` it by."""
        self._count += 1
        token = str(self._count)
        self._asked[token] = sink
        try:
            await self.publish(subject, payload, self._prefix + token, headers)
        except TransportError:
            self._asked.pop(token, None)
            raise
        return token

    def forget(self, tokens: list[str]) -> None:
        """Wait no more for these answers."""
        for token in tokens:
            self._asked.pop(token, None)

    async def api(self, subject: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Ask JetStream for something, and return its answer, which may hold an `error`.

        Raises:
            TransportError: There was no answer, or nobody to give it.
        """
        answers = Answers(self)
        await answers.ask(f"$JS.API.{subject}", msgspec.json.encode(body) if body is not None else b"")
        (message,) = await answers.wait()
        if status_of(message) == "503":
            raise TransportError(
                f"JetStream does not answer at {self.where}: start the server with -js, and give this account JetStream"
            )
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        return answer

    async def echo(self, now: float, every: float) -> float:
        """Keep an echo of our own going round; return when the next one is due.

        Raises:
            TransportError: None came back for too long: nothing flows although the connection is open.
        """
        if now >= self._next_echo:
            if self._echoes >= ECHOES and now - self._echoed > ECHO_LIMIT:
                self._lose()
                raise TransportError(f"{self.where} has not answered for {now - self._echoed:.1f} seconds")
            self._next_echo = now + every
            self._echoes += 1
            self._count += 1
            token = str(self._count)
            self._asked[token] = _Echo(self, now)
            await self.publish(self._prefix + token)
        return self._next_echo

    def echo_returned(self, sent: float) -> None:
        """An echo that was sent at that time is here."""
        self._echoes = 0
        self._echoed = asyncio.get_running_loop().time()
        self.echo_sent = max(self.echo_sent, sent)

    def reason(self) -> str:
        """The last error that the client has reported, as the end of a sentence."""
        return f" ({self._last_error})" if self._last_error else ""

    def failed(self, what: str, error: Exception) -> TransportError:
        """The error of ours for one of the client."""
        words = _words(error)
        reason = f"{words}{self.reason() if words != self._last_error else ''}"
        if "Authorization Violation" in reason:
            return AccessDeniedError(
                f"{self.where} does not let us in: {reason}. Check user and password, or token, in the URL: "
                "nats://user:password@host:port"
            )
        return TransportError(f"{what} failed at {self.where}: {reason}")

    async def on_error(self, error: Exception) -> None:
        """The client reports something that nobody waits for. It goes on."""
        self._report(error)

    def _report(self, error: Exception) -> None:
        self.errors += 1
        words = _words(error)
        if words != self._last_error and self._echoed:
            log().warning("the NATS client reports an error", server=self.where, error=words)
        self._last_error = words
        if "permissions violation" in words:
            self.forbidden = words

    async def on_disconnected(self) -> None:
        """The client has lost its connection."""
        self._lose()

    async def close(self) -> None:
        """End the connection, or only our use of it. Never raises, and takes no longer than `CLOSE_TIMEOUT`."""
        connected = self.connected
        self._lose()
        for task in self._tasks:
            task.cancel()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_TIMEOUT):
            try:
                if self._ours is not None:
                    if not connected:
                        self._ours.cut()
                        self._ours.forget_unsent()
                    await self._ours.close()
                elif not self.client.is_closed:
                    for subscription in self._subscriptions:
                        await subscription.unsubscribe()
            except Exception as error:  # noqa: BLE001 - it is over, whatever comes of it
                await self.on_error(error)
        if self._ours is not None:
            self._ours.cut()

    def give_up(self) -> None:
        """Use the connection no more."""
        self._lose()

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        asked, self._asked = self._asked, {}
        for sink in asked.values():
            sink.lost()
        self._on_lost()

    def _answered(self, message: Msg) -> None:
        sink = self._asked.pop(message.subject[len(self._prefix) :], None)
        if sink is not None:
            sink.answered(message)

    def spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """Do something beside, at the latest until the link is closed. An error is reported like one of the client."""
        task = asyncio.get_running_loop().create_task(self._run(work, *arguments))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _run(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        try:
            await work(*arguments)
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            await self.on_error(error)

    def __repr__(self) -> str:
        return f"<NatsLink to {self.where}: {'lost' if self._lost else 'connected'}, {len(self._asked)} answers due>"


class _Echo:
    def __init__(self, link: NatsLink, sent: float) -> None:
        self._link = link
        self._sent = sent

    def answered(self, message: Msg) -> None:  # noqa: ARG002 - that it came is all there is to know
        self._link.echo_returned(self._sent)

    def lost(self) -> None:
        pass


async def connect(url: str, name: str, on_lost: Callable[[], None]) -> NatsLink:
    """Open a connection.

    Args:
        url: `nats://` or `tls://`, several of one cluster with commas between them.
        name: What the server shows for the connection.
        on_lost: Called when it is gone.

    Raises:
        TransportError: There is no server, or it refuses us.
        BusError: A `tls://` server speaks no TLS.
    """
    client = StraightClient()
    client.secure = secure = url.startswith("tls://")
    link = NatsLink(client, redacted(url), on_lost=on_lost)
    try:
        with anyio.fail_after(CONNECT_TIMEOUT):
            await client.connect(
                servers(url),
                name=name,
                # A connection is not mended but made anew, with the jittered backoff of the project. The library's own
                # way resends what it had buffered: an ack that slept through an outage may end the claim of another.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                ping_interval=PING_INTERVAL,
                tls=ssl.create_default_context() if secure else None,
                error_cb=link.on_error,
                disconnected_cb=link.on_disconnected,
                closed_cb=link.on_disconnected,
            )
            client.read_straight()
            await link.start()
    except BusError:
        await link.close()
        raise
    except Exception as error:  # the library passes on what it stumbles over in a greeting that it cannot read
        await link.close()
        raise link.failed("connecting", error) from error
    except BaseException:
        await link.close()
        raise
    return link


def _words(error: Exception) -> str:
    """What an error says, or its name if it says nothing."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
