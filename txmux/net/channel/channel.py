"""Messages between processes: JSON objects over a pair of sockets, one a line."""

import inspect
import itertools
import json
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    eventAsText,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.errors import MuxError
from txmux.net.channel.descriptorstream import MOST, DescriptorStream, close_all
from txmux.net.channel.message import NOTHING, InvalidMessageError, Message
from txmux.net.channel.messages import ACCESS, LOG
from txmux.telemetry.formatting import plural
from txmux.telemetry.lines import LOST_LINES
from txmux.wire.jsontext import parse_json


class ChannelError(MuxError):
    """There is no answer: the other process reports an error, took too long, or has ended."""


class PeerGoneError(ChannelError):
    """The other process has ended."""

    def __init__(self) -> None:
        super().__init__("the other process is gone")


class AnswerTimeoutError(ChannelError):
    """The other process did not answer in time."""

    def __init__(self, kind: str, seconds: float) -> None:
        super().__init__(f"no answer to {kind!r} in {seconds:g} s")


class Channel(Protocol):
    """One end of the messages.

    A message is ``{"kind": KIND, NAME: VALUE, …}``, as `txmux.net.channel.messages` says. One with ``"ask": NUMBER`` is answered by
    ``{"kind": "answer", "to": NUMBER, "value": VALUE}``, or with ``"error": TEXT`` instead of the value. With
    ``"descriptors": COUNT``, it has that many; see `DescriptorStream`. Unknown kinds and names are ignored, since the other
    process may be of another version.

    Args:
        handlers: Functions by messages; the fields are their keyword arguments, and ``descriptors``, if the message may have
            some: then the function has to close them. A question is answered with its result, that of its Deferred or
            coroutine, or the message of its `MuxError`.
        on_closed: Called when the other process has closed its end, most likely because it has ended.

    Attributes:
        is_open: Whether the other process gets what is sent.
    """

    _log = Logger()

    transport: Any

    def __init__(
        self,
        handlers: dict[Message, Callable[..., object]],
        on_closed: Callable[[], object],
        clock: IReactorTime,
    ) -> None:
        self.handlers = handlers
        self._on_closed = on_closed
        self.clock = clock
        self._pending: dict[int, tuple[Message, Deferred[Any]]] = {}
        self._given_up: dict[
            int, Message
        ] = {}  # whose answers may come yet, however long these are
        self._received: deque[list[int]] = deque()
        self._begun: list[bytes] = []
        self._is_ignoring = False
        self._waiting = 0
        self._reads = 0
        self._late_since = -1
        self.is_open = True

    @property
    def is_late(self) -> bool:
        return self._late_since == self._reads

    def send(self, message: Message, **values: Any) -> None:
        self._send(message.kind, values)

    def _send(self, kind: str, values: dict[str, Any]) -> None:
        if self.is_open:
            self.transport.write(_line(kind, values))

    def ask(
        self,
        message: Message,
        *,
        seconds: float | None = None,
        descriptors: Sequence[int] = (),
        **values: Any,
    ) -> Deferred[Any]:
        """Send a question, with duplicates of descriptors; the answer fails with a `ChannelError`, so after `seconds`."""
        # Not to be guessed: only a process that takes what it is sent can answer.
        number = secrets.randbits(_NUMBER_BITS)
        answer: Deferred[Any] = Deferred(lambda _: self._give_up(number))
        if not self.is_open:
            answer.errback(PeerGoneError())
            return answer
        self._pending[number] = message, answer
        if seconds is not None:
            answer.addTimeout(
                seconds, self.clock, partial(self._timed_out, message.kind, self._reads)
            )
        values["ask"] = number
        if descriptors:
            self.transport.send(
                _line(message.kind, values | {"descriptors": len(descriptors)}), descriptors
            )
        else:
            self._send(message.kind, values)
        return answer

    def answer(self, number: int, **values: Any) -> None:
        self._send("answer", {"to": number, **values})

    def backlog(self) -> int:
        return self.transport.backlog if self.is_open and self.transport is not None else 0

    @property
    def is_held_up(self) -> bool:
        return self.is_open and self.transport is not None and bool(self.transport.is_held_up)

    def close(self) -> None:
        """Close after all that waits has been sent."""
        if self.is_open and self.transport is not None:
            self.transport.loseConnection()

    def finish(self) -> None:
        """Handle all that has come from a process that has ended, and close."""
        self._read_rest()
        self.close()

    def _read_rest(self) -> None:
        if self.is_open and self.transport is not None:
            self.transport.read_rest()

    def break_off(self) -> None:
        """Close at once, without what waits."""
        if self.is_open and self.transport is not None:
            self.transport.abortConnection()

    def descriptors_received(self, descriptors: list[int]) -> None:
        if any(message.descriptors for message in self.handlers):
            self._received.append(descriptors)
        else:
            close_all(descriptors)
            self._close_to(TypeError("it has descriptors"))

    def cut_off(self) -> None:
        self.is_open = False  # what is sent from now on would not arrive

    @override
    def dataReceived(self, data: bytes) -> None:
        self._reads += 1
        *lines, rest = data.split(b"\n")
        if lines:
            self._begun.append(lines[0])
            lines[0] = b"".join(self._begun)
            self._begun.clear()
            self._waiting = 0
        if rest and not self._is_ignoring:
            self._begun.append(rest)
            self._waiting += len(rest)
            if self._waiting > _SHORT and self._waiting > self._longest():
                self._begun.clear()
                self._close_to(ValueError("a line is too long"))
        for line in lines:
            self._line_received(line)

    def _longest(self) -> int:
        """Return the most bytes that may come in one line now."""
        asked = (*(message for message, _ in self._pending.values()), *self._given_up.values())
        answers = (message.longest_answer for message in asked)
        return max((*answers, *(message.longest for message in self.handlers)), default=0)

    def _line_received(self, line: bytes) -> None:
        if self._is_ignoring:
            return
        try:
            kind, number, count, values = _read(line)
            descriptors = self._descriptors(count)
        except _NO_MESSAGE as problem:
            self._close_to(problem)
        else:
            if kind == "answer":
                close_all(descriptors)
                self._answered(len(line), values)
            else:
                self._handle(kind, number, count, descriptors, values, len(line))

    def _close_to(self, problem: Exception) -> None:
        """Ignore all that comes from now on: after an invalid message the next one may mean anything."""
        self._is_ignoring = True
        self._log.error(
            "closing the channel to another process, which sent an invalid message: {why}",
            why=repr(problem),
        )
        self.break_off()

    def _handle(
        self,
        kind: str,
        number: int | None,
        count: int,
        descriptors: list[int],
        values: dict[str, Any],
        size: int,
    ) -> None:
        message = next((handled for handled in self.handlers if handled.kind == kind), None)
        handler: Callable[..., object] = partial(_refuse, f"{kind!r:.100} is not known here")
        arguments: dict[str, Any] = {}
        if len(descriptors) < count:
            handler = partial(_refuse, _DESCRIPTORS_LOST)
        elif message is not None:
            try:
                arguments = message.read(values, size)
            except InvalidMessageError as problem:
                handler = partial(_refuse, str(problem))
            else:
                handler = self.handlers[message]
                if message.descriptors:
                    arguments["descriptors"], descriptors = descriptors, []
        close_all(descriptors)
        if number is not None:
            self._answer_by(number, message, handler, arguments)
        elif message is not None:
            self.handle(message, handler, arguments)

    def handle(
        self, message: Message, handler: Callable[..., object], arguments: dict[str, Any]
    ) -> None:
        maybeDeferred(_called, handler, arguments).addErrback(self._failed, message)

    def _failed(self, failure: Failure, message: Message) -> None:
        if failure.check(MuxError, OSError):
            self._log.error("a message of another process: {why}", why=failure.getErrorMessage())
        elif not failure.check(CancelledError):  # as at a stop
            self._log.failure(
                "the handler of another process's {kind!r} failed", failure, kind=message.kind
            )

    def _descriptors(self, count: int) -> list[int]:
        if not count:
            return []
        sent = -(-count // MOST)
        if len(self._received) < sent:
            raise IndexError(f"of {plural(count, 'descriptor')}, not all were sent")
        return [*itertools.chain(*(self._received.popleft() for _ in range(sent)))]

    def _answer_by(
        self,
        number: int,
        message: Message | None,
        handler: Callable[..., object],
        arguments: dict[str, Any],
    ) -> None:
        def failed(failure: Failure) -> None:
            if failure.check(OSError):  # descriptors or memory may have run out
                self._log.error(
                    "a request of another process: {why}", why=failure.getErrorMessage()
                )
            elif not failure.check(MuxError, CancelledError):  # as at a stop
                self._log.failure("a request of another process failed", failure)
            self.answer(number, error=failure.getErrorMessage() or type(failure.value).__name__)

        def send(value: Any) -> None:
            told = None if message is not None and message.answer == NOTHING else value
            line = _line("answer", {"to": number, "value": told})
            if message is not None:  # the other process would close the channel
                message.check_answer(len(line) - 1)
            if self.is_open:
                self.transport.write(line)

        answer = maybeDeferred(_called, handler, arguments)
        answer.addCallback(send)
        answer.addErrback(failed)

    def _answered(self, size: int, values: dict[str, Any]) -> None:
        self._given_up.pop(values["to"], None)
        message, pending = self._pending.pop(values["to"], (None, None))
        if message is None or pending is None:  # it is too late
            return
        if (error := values.get("error")) is not None:
            pending.errback(ChannelError(str(error)))
            return
        try:
            pending.callback(message.read_answer(values.get("value"), size))
        except InvalidMessageError as problem:
            pending.errback(ChannelError(str(problem)))

    def _give_up(self, number: int) -> None:
        self._read_rest()  # what came while this process was halted is in time
        message, _ = self._pending.pop(number, (None, None))
        if message is not None:
            self._given_up[number] = message

    def _timed_out(self, kind: str, reads: int, answer: object, seconds: float) -> object:
        if isinstance(answer, Failure) and answer.check(CancelledError):
            self._late_since = max(self._late_since, reads)
            raise AnswerTimeoutError(kind, seconds)
        return answer

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_open = False
        pending, self._pending = self._pending, {}
        for _, answer in pending.values():
            if not answer.called:  # one that ends may cancel others
                answer.errback(PeerGoneError())
        close_all(itertools.chain(*self._received))
        self._received.clear()
        self._on_closed()


_NUMBER_BITS = 53  # which any reader of JSON keeps
_SHORT = 2**16  # bytes of a line that may come at any time
_DESCRIPTORS_LOST = "not all descriptors have arrived, as the process has reached the limit: raise it (LimitNOFILE=, ulimit -n), or restart txmux"
_NO_MESSAGE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""Raised by reading what is not a message."""


def _read(line: bytes) -> tuple[str, int | None, int, dict[str, Any]]:
    """Return a message's kind, number if it is a question, count of descriptors, and values."""
    values: dict[str, Any] = parse_json(line)
    kind, number, count = values.pop("kind"), values.pop("ask", None), values.pop("descriptors", 0)
    to = values["to"] if kind == "answer" else 0
    is_message = isinstance(kind, str) and isinstance(to, int)
    if not (is_message and isinstance(number or 0, int) and isinstance(count, int)) or count < 0:
        raise TypeError(f"{line[:100]!r} has a value of the wrong type")
    return kind, number, count, values


def _called(handler: Callable[..., object], values: dict[str, Any]) -> object:
    answer = handler(**values)
    return Deferred.fromCoroutine(answer) if inspect.iscoroutine(answer) else answer


def _line(kind: str, values: dict[str, Any]) -> bytes:
    return b"%b\n" % json.dumps({"kind": kind, **values}, separators=(",", ":")).encode()


def _refuse(why: str) -> NoReturn:
    raise ChannelError(why)


def attach(reactor: Any, channel: Channel, end: socket.socket) -> None:
    """Connect a channel to one of a pair of sockets, which then belongs to it."""
    with end:  # its owner may close it, too
        DescriptorStream(reactor, end.dup(), channel)


_LONGEST_TEXT = LOG.fields["text"].most
_MOST = 4 * 1024 * 1024
"""Bytes that may wait for the parent; a busy worker may write that many in a moment."""


@implementer(ILogObserver)
class LogForwarder:
    """Sends events over the channel that `channel` returns; when that is closed, they go to the standard error stream.

    What the parent does not take is buffered, up to a limit. Twisted's own events below a warning are left out.
    """

    def __init__(self, channel: Callable[[], Channel], alone: Any = None) -> None:
        self._channel = channel
        self._lost = 0
        self._alone = textFileLogObserver(alone or sys.stderr)

    def __call__(self, event: LogEvent) -> None:
        level, namespace = event["log_level"], event.get("log_namespace", "")
        least = LogLevel.info if namespace.startswith("txmux") else LogLevel.warn
        if level < least:
            return
        channel = self._channel()
        if not channel.is_open:
            self._alone(event)
        elif channel.backlog() > _MOST:
            self._lost += 1
            LOST_LINES.add("the service's log", 1, "the supervisor is too slow")
        else:
            lost, self._lost = self._lost, 0
            if lost:
                LOST_LINES.end("the service's log")
                text = f"the supervisor read no log lines for a while; {lost} were lost"
                channel.send(LOG, level="warn", text=text)
            if namespace == "txmux.access":
                channel.send(ACCESS, line=event["line"])
            else:
                text = eventAsText(event, includeTimestamp=False, includeSystem=False)
                channel.send(LOG, level=level.name, text=text[:_LONGEST_TEXT])
