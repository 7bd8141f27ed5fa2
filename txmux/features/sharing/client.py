"""A Redis client that reconnects: commands in a row, and the messages of a channel.

Bytes are those of RESP2 (`Redis serialization protocol specification
<https://redis.io/docs/latest/develop/reference/protocol-spec/>`_). What a server sends is bounded, in size and in time.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred, FirstError, fail, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txmux.classes import define, frozen
from txmux.errors import MuxError, cause_of, printable
from txmux.features.sharing.store import Store
from txmux.net.secrets import read_text, secret_of

_LONGEST_REPLY = 1 << 20  # bytes, with all that is in it
_LONGEST_LINE = 4096  # bytes
_MOST_ELEMENTS = 1000  # of all arrays of a reply
_DEEPEST = 4  # arrays in arrays
_LONGEST_ERROR = 200  # characters
_HALTED = 1.0  # seconds by which a timer is late if this process was stopped
_NUMBER = re.compile(rb"[+-]?[0-9]{1,19}")

_HINTS = {
    "LOADING": "it is loading its data",
    "MASTERDOWN": "it is a replica without its master: name the master",
    "MOVED": "it is a cluster of Redis: name a single server",
    "NOAUTH": "it needs a password: name its file by 'password=' in 'shared_limits'",
    "NOPERM": "its user may not do that",
    "READONLY": "it is a read-only replica: name the master",
    "WRONGPASS": "it refuses the password",
}
"""What to do about errors, by their codes."""

_INCOMPLETE = object()


class RedisError(MuxError):
    """There is no reply."""


class ReplyError(RedisError):
    """The server refuses a command; `code` is the first word of its reply."""

    def __init__(self, text: str) -> None:
        self.code = text.partition(" ")[0]
        hint, text = _HINTS.get(self.code), printable(text, _LONGEST_ERROR)
        super().__init__(f"{hint} ({text})" if hint else text)


def reason(problem: Any) -> str:
    """Return why a reply is of no use, for an exception of `RedisProtocol` or of what read the reply."""
    is_ours = isinstance(problem, MuxError)
    return str(problem) if is_ours else f"its answer is not as expected: {cause_of(problem)}"


class ReplyParser:
    """Parses replies: strings are bytes, null is ``None``, errors are `ReplyError`."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._parsing = self._parse_all()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the replies that are whole; raises `RedisError` for what is none, after which the parser is of no use."""
        self._data += data
        while (reply := next(self._parsing)) is not _INCOMPLETE:
            yield reply

    def _parse_all(self) -> Iterator[Any]:
        while True:
            self._left, self._elements = _LONGEST_REPLY, _MOST_ELEMENTS
            yield (yield from self._parse(_DEEPEST))

    def _parse(self, depth: int) -> Generator[Any, None, Any]:
        line = yield from self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ReplyError(rest.decode(errors="replace"))
        if kind not in {b":", b"$", b"*"} or not _NUMBER.fullmatch(rest):
            raise RedisError(f"it does not speak Redis's protocol: {_shown(line)}")
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"$":
            data = yield from self._take(number + 2)
            return data[:-2]
        self._elements -= number
        if not depth or self._elements < 0:
            raise RedisError(
                f"its reply has arrays of more than {_DEEPEST} levels, or {_MOST_ELEMENTS} elements"
            )
        elements = []
        for _ in range(number):
            element = yield from self._parse(depth - 1)
            elements.append(element)
        return elements

    def _line(self) -> Generator[Any, None, bytes]:
        while (end := self._data.find(b"\r\n", 0, _LONGEST_LINE)) < 0:
            if len(self._data) >= _LONGEST_LINE:
                raise RedisError(f"a line of its reply is longer than {_LONGEST_LINE} bytes")
            yield _INCOMPLETE
        line = yield from self._take(end + 2)
        return line[:-2]

    def _take(self, count: int) -> Generator[Any, None, bytes]:
        self._left -= count
        if self._left < 0:
            raise RedisError(f"its reply is longer than {_LONGEST_REPLY} bytes")
        while len(self._data) < count:
            yield _INCOMPLETE
        taken = bytes(self._data[:count])
        del self._data[:count]
        if not taken.endswith(b"\r\n"):
            raise RedisError(f"it does not speak Redis's protocol: {_shown(taken[-2:])}")
        return taken


def _shown(data: bytes) -> str:
    return repr(data[:50].decode("latin-1"))


class RedisProtocol(Protocol):
    """Sends commands without waiting for the replies to those before; the connection ends if nothing answers.

    Args:
        reactor: Has the clock.
        patience: Seconds within which a reply has to come, counted from the one before.
        on_message: Called with each message of the channels that were subscribed to.

    Attributes:
        lost: Fires with the reason once the connection is lost.
    """

    transport: Any

    def __init__(
        self, reactor: Any, patience: float, on_message: Callable[[bytes], object] | None = None
    ) -> None:
        self._reactor = reactor
        self._patience = patience
        self._on_message = on_message
        self._parser = ReplyParser()
        self._pending: deque[Deferred[Any]] = deque()
        self._deadline: IDelayedCall | None = None
        self._idle: IDelayedCall | None = None
        self._is_paused = False
        self._why = ""
        self.lost: Deferred[str] = Deferred()

    def execute(self, *words: str | float | bytes) -> Deferred[Any]:
        """Send a command; the result fires with its reply, or fails with a `RedisError`."""
        if self._why:
            return fail(RedisError(self._why))
        reply: Deferred[Any] = Deferred()
        self._pending.append(reply)
        if self._deadline is None:
            self._set_deadline()
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.transport.write(
            b"*%d\r\n%b" % (len(parts), b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
        )
        return reply

    def check_each(self, seconds: float, *words: str | float) -> None:
        """Send a command at intervals, unless others wait for replies: a server may hang, and a firewall forget the connection."""

        def check() -> None:
            self._idle = self._reactor.callLater(seconds, check)
            if not self._pending:
                self.execute(*words).addErrback(lambda failure: self.end(reason(failure.value)))

        self._idle = self._reactor.callLater(seconds, check)

    def pause(self) -> None:
        """Receive nothing; replies are not late meanwhile."""
        self._is_paused = True
        self.transport.pauseProducing()
        self._set_deadline()

    def resume(self) -> None:
        self._is_paused = False
        self.transport.resumeProducing()
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._pending and not self._is_paused and not self._why:
            due = self._reactor.seconds() + self._patience
            self._deadline = self._reactor.callLater(self._patience, self._late, due)

    def _late(self, due: float) -> None:
        self._deadline = None
        if self._reactor.seconds() - due > _HALTED:
            self._set_deadline()  # this process did not run, and the reply may be there
        else:
            self.end(f"no answer within {self._patience:g} s")

    def dataReceived(self, data: bytes) -> None:
        if self._why:
            return
        try:
            for reply in self._parser.feed(data):
                self._received(reply)
                if self._why:
                    return
        except RedisError as problem:
            self.end(str(problem))

    def _received(self, reply: Any) -> None:
        is_list = isinstance(reply, list)
        if self._on_message and is_list and len(reply) == 3 and reply[0] == b"message":
            if isinstance(reply[2], bytes):
                self._on_message(reply[2])
        elif not self._pending:
            text = str(reply) if isinstance(reply, ReplyError) else "it answers without a question"
            self.end(text)
        else:
            waiting = self._pending.popleft()
            self._set_deadline()
            (waiting.errback if isinstance(reply, ReplyError) else waiting.callback)(reply)

    def end(self, why: str) -> None:
        """Close the connection at once; all commands fail for that reason."""
        if not self._why:
            self._why = why
            self._set_deadline()
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._why = self._why or _why_lost(reason.value)
        self._set_deadline()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        waiting, self._pending = self._pending, deque()
        for reply in waiting:
            reply.errback(RedisError(self._why))
        self.lost.callback(self._why)


def _why_lost(problem: Any) -> str:
    why = cause_of(problem)
    if why == "no TLS: certificate verify failed":
        return (
            "no TLS: its certificate is not valid, or not of an authority that this machine trusts"
        )
    return why


STEADY = 3.0
"""Seconds for which Redis has to fail, or to answer, until that counts; less than the timeout of a silent connection.

With those between two questions, these are fewer than five: so soon is one that hangs noticed."""

_SHORTEST, _LONGEST = 0.5, 15.0  # seconds between two attempts

_Words: TypeAlias = "tuple[str | float, ...]"
_WRITE: _Words = ("PEXPIRE", "txmux:up", 0)
"""A write without effect, which a replica refuses, as does a server that is loading its data."""


@frozen
class SharingTimes:
    """Seconds."""

    pings: float = 1.0  # between two questions, even if there is nothing to ask
    patience: float = 5.0  # to connect, and for each answer
    compared: float = 300.0  # between two comparisons of all bans


SHARING_TIMES = SharingTimes()


@define(eq=False, slots=False)
class RedisConnection:
    """Connects, and reconnects: at once, then after delays that double until a connection has lasted.

    Args:
        up: Called once commands can be sent.
        down: Called with the reason for each attempt that has failed, and when a connection is lost.
        check: The command by which a connection is checked.
        first: A command at the start of each connection.
        on_message: See `RedisProtocol`.

    Attributes:
        secret: The password of the present connection; empty without one.
    """

    _reactor: Any
    _store: Store
    _up: Callable[[], object]
    _down: Callable[[str], object]
    _check: _Words = _WRITE
    _first: _Words = ()
    _on_message: Callable[[bytes], object] | None = None
    _times: SharingTimes = SHARING_TIMES
    _wait = _SHORTEST
    _up_at = 0.0
    _stopped = False
    retry: IDelayedCall | None = attrs.field(default=None, init=False)
    _trying: Deferred[Any] | None = attrs.field(default=None, init=False)
    made: RedisProtocol | None = attrs.field(default=None, init=False)
    protocol: RedisProtocol | None = attrs.field(default=None, init=False)
    secret: str = attrs.field(default="", init=False)

    def start(self) -> None:
        if self._stopped:
            return  # before the reactor was running
        self.retry = None
        self._trying = Deferred.fromCoroutine(self._connect())
        self._trying.addErrback(self._failed)

    async def _connect(self) -> None:
        path = self._store.password
        self.secret = "" if path is None else await secret_of(path, read_text)
        factory = Factory.forProtocol(self._protocol)
        factory.noisy = False
        connecting: Any = self._endpoint().connect(factory)
        connecting.addTimeout(self._times.patience, self._reactor)
        protocol: RedisProtocol = await connecting
        self.made = protocol
        if self._store.path is None:
            # Otherwise a question would wait until the one before is acknowledged.
            protocol.transport.setTcpNoDelay(True)
        protocol.lost.addCallback(self._lost)
        if self.secret:
            await protocol.execute("AUTH", *filter(None, [self._store.user]), self.secret)
        if self._store.database:
            await protocol.execute("SELECT", self._store.database)
        checked = await protocol.execute(*self._check)
        if self._check == _WRITE and not isinstance(checked, int):
            raise RedisError("it does not answer as Redis does")
        if self._first:
            await protocol.execute(*self._first)
        protocol.check_each(self._times.pings, *self._check)
        self.protocol, self._trying = protocol, None
        self._up_at = self._reactor.seconds()
        self._up()

    def _protocol(self) -> RedisProtocol:
        return RedisProtocol(self._reactor, self._times.patience, self._on_message)

    def _endpoint(self) -> Any:
        # Only a service that shares limits needs it, and it imports TLS.
        from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS  # noqa: PLC0415

        store = self._store
        if store.path is not None:
            return UNIXClientEndpoint(self._reactor, str(store.path))
        endpoint = HostnameEndpoint(self._reactor, store.host.encode("idna"), store.port)
        if not store.tls:
            return endpoint
        from txmux.net.tls.verification import ClientTLS  # noqa: PLC0415 - few have it

        return wrapClientTLS(ClientTLS(store.host), endpoint)

    def _failed(self, failure: Failure) -> None:
        self._trying = None
        if self._stopped:
            return
        why = cause_of(failure.value)
        if self.made is not None:
            self.made.end(why)
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST)
        # Spread out, so that machines do not all reconnect at the same moment.
        self.retry = self._reactor.callLater(wait * random.uniform(0.8, 1.2), self.start)  # nosec B311  # noqa: S311 - not for secrets
        self._down(why)

    def _lost(self, why: str) -> None:
        self.made = None
        if self.protocol is None or self._stopped:
            return
        self.protocol = None
        # Otherwise a connection that fails repeatedly would load everything several times a second.
        lasted = self._reactor.seconds() - self._up_at
        wait = _SHORTEST if lasted > _LONGEST else self._wait
        self._wait = min(2 * wait, _LONGEST)
        self.retry = self._reactor.callLater(random.uniform(0, wait), self.start)  # nosec B311  # noqa: S311 - not for secrets
        self._down(why)

    def drop(self, why: str) -> None:
        if self.protocol is not None:
            self.protocol.end(why)

    def stop(self) -> Deferred[Any]:
        self._stopped = True
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        if self._trying is not None:
            self._trying.cancel()
        made, lost = self.made, Deferred[Any]()
        if made is None:
            lost.callback(None)
            return lost
        made.lost.addBoth(lambda _: lost.callback(None))
        made.end("the service is shutting down")
        return lost


class RedisClient:
    """A connection to Redis, and a second one for a subscription, if a channel is given. If either is lost, both reconnect.

    Args:
        up: Called once `redis` can be used.
        down: Called with the reason once it cannot, and again for each attempt that has failed.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        up: Callable[[], object],
        down: Callable[[str], object],
        *,
        times: SharingTimes = SHARING_TIMES,
        channel: str = "",
        on_message: Callable[[bytes], object] | None = None,
    ) -> None:
        self._up = up
        self._down = down
        self.busy: set[Deferred[Any]] = set()
        self._stopped = False
        self.redis: RedisProtocol | None = None
        place = (reactor, store, self._connected, self._lost)
        self.connections = [RedisConnection(*place, times=times)]
        if channel:
            subscribing = ("SUBSCRIBE", channel)
            self.connections.append(
                RedisConnection(*place, ("PING",), subscribing, on_message, times)
            )

    @property
    def secret(self) -> str:
        return self.connections[0].secret

    def start(self) -> None:
        for connection in self.connections:
            connection.start()

    def _connected(self) -> None:
        if all(connection.protocol is not None for connection in self.connections):
            self.redis = self.connections[0].protocol
            self._up()

    def _lost(self, why: str) -> None:
        self.redis = None
        for connection in self.connections:
            connection.drop(why)
        self._down(why)

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine that uses Redis; if it fails, reconnect."""
        done = Deferred.fromCoroutine(work)
        self.busy.add(done)
        done.addErrback(self._failed)
        done.addBoth(lambda _: self.busy.discard(done))

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        if not self._stopped and self.redis is not None:
            self._lost(reason(failure.value))

    def pause(self) -> None:
        """Receive no messages until `resume`."""
        if (subscriber := self.connections[-1].protocol) is not None:
            subscriber.pause()

    def resume(self) -> None:
        if (subscriber := self.connections[-1].protocol) is not None:
            subscriber.resume()

    def stop(self) -> Deferred[Any]:
        """Disconnect for good, and cancel running calls."""
        self._stopped = True
        for request in [*self.busy]:
            request.cancel()
        return gatherResults([connection.stop() for connection in self.connections])
