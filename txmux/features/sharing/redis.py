"""A connection to Redis: commands in a row, and the messages of a channel.

Bytes are those of RESP2 (`Redis serialization protocol specification
<https://redis.io/docs/latest/develop/reference/protocol-spec/>`_). What a server sends is bounded, in size and in time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from txmux.errors import MuxError, cause_of, printable

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
