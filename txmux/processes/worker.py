"""A worker, as its parent sees it."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel

from txmux.processes.backoff import BackOff
from txmux.processes.channel import Channel, GoneError, attach
from txmux.processes.ending import how_ended
from txmux.processes.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IProcessTransport
    from twisted.python.failure import Failure

__all__ = ["CHANNEL", "Worker"]

CHANNEL = 3
"""The only descriptor that a worker inherits beside the standard three."""

_MOST_SILENT = 10
"""Seconds without an answer after which a worker that serves is replaced."""
_MOST_SILENT_STARTING = 60
_LONGEST_OUTAGE = 0.5
"""Seconds that a worker waits for its start, at most, while nobody serves."""

_access = Logger(namespace="txmux.access")


class _Parent(Protocol):
    """What a worker needs of its parent."""

    generation: int

    def descriptors(self) -> list[int]: ...
    def start_message(self) -> dict[str, Any]: ...
    def opener(self) -> socket.socket | None: ...
    def is_served(self) -> bool: ...
    def ready(self, worker: Worker, /) -> None: ...
    def retired(self, worker: Worker, /) -> None: ...
    def ended(self, number: int, /) -> None: ...
    def start_failed(self, message: str, /) -> None: ...


class Worker(ProcessProtocol):
    """A process that serves, and its successor when it ends without having been told to.

    Args:
        parent: Is told what happens to it.
        number: Counted from 0; people are told one more.
        reactor: Starts the process.
        is_first: Whether the service stops if the process cannot start.

    Attributes:
        number: As above.
        ready: Whether it serves.
        generation: Of the rules that it was given.
    """

    _log = Logger()

    transport: IProcessTransport

    def __init__(
        self, parent: _Parent, number: int, reactor: Any, *, is_first: bool = True
    ) -> None:
        self._parent = parent
        self._number = self.number = number
        self._reactor = reactor
        self._back_off = BackOff()
        self._channel: Channel | None = None
        self._restart: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._has_served = not is_first
        self._problem = ""
        self._silent = 0
        self._asked = False
        self._hung = False
        self._retiring = False
        self.ready = False
        self.generation = 0

    @property
    def pid(self) -> int:
        """The number of the process; 0 if there is none."""
        return 0 if self._channel is None else int(self.transport.pid or 0)

    def retire(self) -> None:
        """Have it accept no more and end when its connections have; then nobody succeeds it."""
        self._retiring = True
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._channel is None:
            self._parent.retired(self)
        else:
            self.tell("retire")

    def start(self) -> None:
        """Start the process."""
        self.generation = self._parent.generation
        self._restart = None
        self._problem = ""
        self._silent = 0
        self._asked = self._hung = False
        self._started_at = self._reactor.seconds()
        handlers: dict[str, Callable[..., object]] = {
            "log": self._logged,
            "access": self._accessed,
        }
        channel = self._channel = Channel(handlers, lambda: None, self._reactor)
        try:
            self._begin(channel)
        except OSError as problem:
            self._channel = None
            self._missing(f"cannot be started: {problem.strerror}", is_hopeless=True)
        if self._channel is channel:
            starting = self._ask_to_start(channel)
            starting.addCallbacks(lambda _: self._is_ready(), self._has_failed)
        else:  # it may have ended already
            channel.close()

    def _ask_to_start(self, channel: Channel) -> Deferred[Any]:
        message, descriptors = self._parent.start_message(), self._parent.descriptors()
        opener = self._parent.opener()
        if opener is None:
            return channel.ask("start", descriptors=descriptors, **message)
        with opener:
            descriptors.append(opener.fileno())
            return channel.ask("start", descriptors=descriptors, opener=True, **message)

    def _begin(self, channel: Channel) -> None:
        own, other = socket.socketpair()
        with own, other:
            attach(self._reactor, channel, own)
            self._spawn(other.fileno())

    def _spawn(self, channel: int) -> None:
        arguments = [str(self._number + 1), type(self._reactor).__module__]
        with Path(os.devnull).open() as nothing:
            self._reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-m", "txmux.processes.child", *arguments],
                env=environment(),
                childFDs=dict(enumerate([nothing.fileno(), 1, 2, channel])),
            )

    def tell(self, kind: str, **values: Any) -> None:
        """Send it a message, if it is there."""
        if self._channel is not None:
            self._channel.send(kind, **values)

    def ask(self, kind: str, *, seconds: float | None = 30.0, **values: Any) -> Deferred[Any]:
        """Ask it for something; see `Channel.ask`."""
        if self._channel is None:
            gone: Deferred[Any] = fail(GoneError())
            return gone
        return self._channel.ask(kind, seconds=seconds, **values)

    def stop(self) -> Deferred[None]:
        """Let its connections finish, and wait for its end."""
        if self._restart is not None:
            self._restart.cancel()
        self._stopped = Deferred()
        if self._channel is None:
            return succeed(None)
        self.tell("stop")
        return self._stopped

    @property
    def answers(self) -> bool:
        """Whether it has answered lately, or is not there to be asked."""
        return self._silent <= 1

    def ping(self) -> None:
        """See whether it does its work, and replace it if it does not. To be called each second."""
        channel = self._channel
        if channel is None or self._stopped is not None or self._hung:
            return
        # Counted by calls, so that a machine that was asleep does not take it for silence.
        self._silent += 1
        limit = _MOST_SILENT if self.ready else _MOST_SILENT_STARTING
        if self._silent > limit:
            self._log.error(
                "worker {number} has not answered for {seconds} s; it is killed, and another one is started at once",
                number=self._number + 1,
                seconds=limit,
            )
            self._hung = True
            self._end()
        elif not self._asked:
            self._asked = True
            channel.ask("ping").addCallbacks(lambda _: self._has_answered(channel), lambda _: None)

    def _has_answered(self, channel: Channel) -> None:
        if self._channel is channel:
            self._asked = False
            self._silent = 0

    def kill(self) -> None:
        """End it, whatever it is doing."""
        if self._channel is not None:
            self._log.warn("worker {number} does not end; it is killed", number=self._number + 1)
            self._end()

    def _end(self) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        """Start another one, unless it was to end."""
        self._channel = None
        self.ready = False
        self._parent.ended(self._number)
        if self._retiring:
            self._parent.retired(self)
            if self._stopped is not None:
                self._stopped.callback(None)
            return
        if self._hung and self._stopped is None:
            self.start()
            return
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        ending: Any = reason.value
        early = "" if self._has_served else " before it had served"
        how = f"cannot start: {self._problem}" if self._problem else f"{how_ended(ending)}{early}"
        self._missing(how, is_hopeless=ending.signal is None)

    def _missing(self, how: str, *, is_hopeless: bool) -> None:
        """Start another process; but if the first one could not start, nothing has been gained by going on."""
        name = f"worker {self._number + 1}"
        if is_hopeless and not self._has_served:
            self._parent.start_failed(f"{name} {how}")
            return
        delay = self._back_off.delay(self._reactor.seconds() - self._started_at)
        if not self._parent.is_served():
            delay = min(delay, _LONGEST_OUTAGE)
        self._log.error(
            "{name} {how}; another one is started {when}",
            name=name,
            how=how,
            when=f"in {delay:g} s" if delay else "at once",
        )
        self._restart = self._reactor.callLater(delay, self.start)

    # What it tells.

    def _is_ready(self) -> None:
        self.ready = self._has_served = True
        self._parent.ready(self)

    def _has_failed(self, failure: Failure) -> None:
        if not failure.check(GoneError):  # or it is known how it ended
            self._problem = failure.getErrorMessage()

    def _logged(self, level: str, text: str) -> None:
        number = self._number + 1
        named = LogLevel.lookupByName(level)
        self._log.emit(named, "worker {number}: {text}", number=number, text=text)

    def _accessed(self, line: str) -> None:
        _access.info("{line}", line=line)
