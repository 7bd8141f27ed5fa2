"""What the parent and a worker tell each other: JSON objects over a pair of sockets, one a line."""

from __future__ import annotations

import inspect
import itertools
import json
import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from typing_extensions import override

from txmux.errors import MuxError
from txmux.net.channel.descriptorstream import MOST, DescriptorStream
from txmux.wire.jsontext import parse_json

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure


class ChannelError(MuxError):
    """What was asked cannot be had: the other process says why, took too long, or is gone."""


class GoneError(ChannelError):
    """There is no other process any more."""

    def __init__(self) -> None:
        super().__init__("the other process is gone")


class LateError(ChannelError):
    """The other process has not answered in time."""

    def __init__(self, kind: str, seconds: float) -> None:
        super().__init__(f"no answer to {kind!r} in {seconds:g} s")


class Channel(Protocol):
    """One end of it.

    A message is ``{"kind": KIND, NAME: VALUE, …}``. One with ``"ask": NUMBER`` is answered by ``{"kind": "answer", "to": NUMBER,
    "value": VALUE}``, or with ``"error": TEXT`` instead of the value. With ``"descriptors": COUNT``, that many come along;
    see `DescriptorStream`. Who does not know a kind or a name overlooks it, since the other process may be of another version.

    Args:
        handlers: What is called, by kinds; the other values are its keyword arguments, and ``descriptors``, if it has an
            argument of that name: then it has to close them. What it returns, or what its Deferred or coroutine comes to, is
            the answer if somebody has asked; a `MuxError` is told as it is.
        lost: Is called when the other process has closed its end, most likely because it has ended.
        clock: For time limits.
        takes_descriptors: Whether any may come.

    Attributes:
        handlers: What is called; more may be added.
        clock: As above.
        is_open: Whether anybody is at the other end, who gets what is sent.
    """

    _log = Logger()

    transport: Any

    def __init__(
        self,
        handlers: dict[str, Callable[..., object]],
        lost: Callable[[], object],
        clock: IReactorTime,
        *,
        takes_descriptors: bool = True,
    ) -> None:
        self.handlers = handlers
        self._takes_descriptors = takes_descriptors
        self._lost = lost
        self.clock = clock
        self._numbers = itertools.count(1)
        self._asked: dict[int, Deferred[Any]] = {}
        self._received: deque[list[int]] = deque()
        self._begun: list[bytes] = []
        self._signatures: dict[Callable[..., object], inspect.Signature] = {}
        self._is_deaf = False
        self._waiting = 0
        self.is_open = True

    def send(self, kind: str, **values: Any) -> None:
        """Send a message; does nothing if the other process is gone."""
        if self.is_open:
            self.transport.write(_line(kind, values))

    def ask(
        self,
        kind: str,
        *,
        seconds: float | None = None,
        descriptors: Sequence[int] = (),
        **values: Any,
    ) -> Deferred[Any]:
        """Ask the other process for something.

        Args:
            kind: What.
            seconds: How long the answer may take; ``None`` is as long as there is another process.
            descriptors: What it gets a duplicate of each; they may be closed at once.
            values: What goes with it.

        Returns:
            The answer; fails with a `ChannelError`.
        """
        number = next(self._numbers)
        answer: Deferred[Any] = Deferred()
        if not self.is_open:
            answer.errback(GoneError())
            return answer
        self._asked[number] = answer
        if seconds is not None:
            limit = self.clock.callLater(seconds, self._too_late, number, kind, seconds)
            answer.addBoth(_cancelled, limit)
        values["ask"] = number
        if descriptors:
            self.transport.send(
                _line(kind, values | {"descriptors": len(descriptors)}), descriptors
            )
        else:
            self.send(kind, **values)
        return answer

    def backlog(self) -> int:
        """Count the bytes that wait here, since the other process takes no more at present."""
        return self.transport.backlog if self.is_open and self.transport is not None else 0

    def close(self) -> None:
        """Send what there is to send, and close."""
        if self.is_open and self.transport is not None:
            self.transport.loseConnection()

    def break_off(self) -> None:
        """Close at once: the other process takes nothing any more."""
        if self.is_open and self.transport is not None:
            self.transport.abortConnection()

    def descriptors_received(self, descriptors: list[int]) -> None:
        """Keep descriptors for the message that they belong to."""
        if self._takes_descriptors:
            self._received.append(descriptors)
        else:
            _close(descriptors)
            self._close_to(TypeError("it has descriptors"))

    def cut_off(self) -> None:
        """Record that what is sent from now on would not arrive."""
        self.is_open = False

    @override
    def dataReceived(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        if lines:
            self._begun.append(lines[0])
            lines[0] = b"".join(self._begun)
            self._begun.clear()
            self._waiting = 0
        if rest and not self._is_deaf:
            self._begun.append(rest)
            self._waiting += len(rest)
            if self._waiting > _LONGEST:
                self._begun.clear()
                self._close_to(ValueError("a line is too long"))
        for line in lines:
            self._line_received(line)

    def _line_received(self, line: bytes) -> None:
        if self._is_deaf:
            return
        try:
            kind, number, count, values = _read(line)
            descriptors = self._descriptors(count)
        except _NO_MESSAGE as problem:
            self._close_to(problem)
        else:
            if kind == "answer":
                _close(descriptors)
                self._answered(**self._taken(self._answered, values))
            else:
                self._heard(kind, number, count, descriptors, values)

    def _close_to(self, problem: Exception) -> None:
        """Hear nothing any more: whoever sends what is not a message may mean anything by the next one."""
        self._is_deaf = True
        self._log.error(
            "another process sends what is not a message, so the channel to it is closed: {why}",
            why=repr(problem),
        )
        self.break_off()

    def _heard(
        self,
        kind: str,
        number: int | None,
        count: int,
        descriptors: list[int],
        values: dict[str, Any],
    ) -> None:
        handler = self.handlers.get(kind)
        if len(descriptors) < count:
            handler = _refuse
        if handler is not None:
            values = self._taken(handler, {**values, "descriptors": descriptors})
            if lacking := self._lacking(handler, values):
                handler, values = partial(_misfit, lacking), {}
        if "descriptors" not in values:
            _close(descriptors)
        if number is not None:
            self._answer(number, kind, handler, values)
        elif handler is not None:
            maybeDeferred(_called, handler, values).addErrback(self._failed, kind)

    def _failed(self, failure: Failure, kind: str) -> None:
        """Log the failure: there is no caller who would see it."""
        self._log.failure("another process has told {kind!r}, which failed", failure, kind=kind)

    def _descriptors(self, count: int) -> list[int]:
        """Return the descriptors of a message; fewer if this process may have no more."""
        if not count:
            return []
        sent = -(-count // MOST)
        if len(self._received) < sent:
            raise IndexError(f"of {count} descriptors, not all were sent")
        return [*itertools.chain(*(self._received.popleft() for _ in range(sent)))]

    def _answer(
        self, number: int, kind: str, handler: Callable[..., object] | None, values: dict[str, Any]
    ) -> None:
        if handler is None:
            self.send("answer", to=number, error=f"{kind!r} is not known here")
            return

        def failed(failure: Failure) -> None:
            if not failure.check(MuxError):
                self._log.failure("what another process has asked for failed", failure)
            self.send("answer", to=number, error=failure.getErrorMessage())

        answer = maybeDeferred(_called, handler, values)
        answer.addCallback(lambda value: self.send("answer", to=number, value=value))
        answer.addErrback(failed)

    def _answered(self, to: int, value: Any = None, error: str | None = None) -> None:
        asked = self._asked.pop(to, None)
        if asked is None:  # any more
            return
        if error is None:
            asked.callback(value)
        else:
            asked.errback(ChannelError(error))

    def _too_late(self, number: int, kind: str, seconds: float) -> None:
        asked = self._asked.pop(number)
        asked.errback(LateError(kind, seconds))

    def _taken(self, handler: Callable[..., object], values: dict[str, Any]) -> dict[str, Any]:
        """Leave out what a handler has no argument for."""
        names = self._signature(handler).parameters
        if (
            names and [*names.values()][-1].kind is inspect.Parameter.VAR_KEYWORD
        ):  # it is the last one
            return values
        return {name: value for name, value in values.items() if name in names}

    def _lacking(self, handler: Callable[..., object], values: dict[str, Any]) -> str:
        """Name the first argument that a handler needs and is not there; empty if there is none."""
        for name, one in self._signature(handler).parameters.items():
            is_needed = one.kind in _NAMED and one.default is one.empty
            if is_needed and name not in values:
                return name
        return ""

    def _signature(self, handler: Callable[..., object]) -> inspect.Signature:
        if handler not in self._signatures:
            self._signatures[handler] = inspect.signature(handler)
        return self._signatures[handler]

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_open = False
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.errback(GoneError())
        _close(itertools.chain(*self._received))
        self._received.clear()
        self._lost()


_LONGEST = 2**28
"""Bytes of a message."""

_NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}

_NO_MESSAGE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading raises of what is not one."""


def _read(line: bytes) -> tuple[str, int | None, int, dict[str, Any]]:
    """Return the kind of a message, its number if it is a question, how many descriptors it has, and its values."""
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


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _line(kind: str, values: dict[str, Any]) -> bytes:
    return b"%b\n" % json.dumps({"kind": kind, **values}, separators=(",", ":")).encode()


def _refuse() -> None:
    raise ChannelError("not all descriptors have arrived: the process may have no more of them")


def _misfit(name: str) -> None:
    raise ChannelError(f"{name!r} is missing")


def _cancelled(result: Any, limit: IDelayedCall) -> Any:
    if limit.active():
        limit.cancel()
    return result


def attach(reactor: Any, channel: Channel, end: socket.socket) -> None:
    """Let a channel speak over one of a pair of sockets, which then belongs to it."""
    with end:  # whoever gave it may close it, too
        DescriptorStream(reactor, end.dup(), channel)
