"""A worker, as its parent sees it."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel

from txmux.observe.counting.counters import OWN
from txmux.processes.channel.channel import Channel, ChannelError, GoneError, attach
from txmux.processes.workers.backoff import BackOff
from txmux.processes.workers.ending import how_ended
from txmux.processes.workers.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IProcessTransport
    from twisted.python.failure import Failure

    from txmux.observe.counting.column import Column
    from txmux.observe.counting.counters import Counters

__all__ = ["CHANNEL", "Worker"]

CHANNEL = 3
"""The only descriptor that a worker inherits beside the standard three."""

_MOST_SILENT = 10
"""Seconds without an answer after which a worker that serves is replaced."""
_MOST_SILENT_STARTING = 60
_LONGEST_OUTAGE = 0.5
"""Seconds that a worker waits for its start, at most, while nobody serves."""

_AGAIN = 0.5
"""Seconds until a worker is asked once more whether it can end."""

_access = Logger(namespace="txmux.access")


class _Parent(Protocol):
    """What a worker needs of its parent."""

    counters: Counters
    generation: int
    is_changing: bool

    def descriptors(self) -> list[int]: ...
    def start_message(self) -> dict[str, Any]: ...
    def opener(self) -> socket.socket | None: ...
    def is_served(self) -> bool: ...
    def ready(self, worker: Worker, /) -> None: ...
    def retired(self, worker: Worker, /) -> None: ...
    def ended(self, number: int, /, *, is_left: bool) -> None: ...
    def start_failed(self, message: str, /) -> None: ...
    def replace(self, worker: Worker, /) -> None: ...


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
        is_leaving: Whether it was told to end, so that it cannot serve again.
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
        self._sink: Callable[[dict[str, Any]], object] | None = None
        self._stopped: Deferred[None] | None = None
        self._has_served = not is_first
        self._problem = ""
        self._silent = 0
        self._asked = False
        self._hung = False
        self._retirement: object | None = None
        self.ready = self.is_leaving = False
        self.generation = 0

    @property
    def pid(self) -> int:
        """The number of the process; 0 if there is none."""
        return 0 if self._channel is None else int(self.transport.pid or 0)

    @property
    def has_ended(self) -> bool:
        """Whether its process was told to end, and has."""
        return self._stopped is not None and self._channel is None

    @property
    def can_return(self) -> bool:
        """Whether it could serve again: its process has not ended, and was not told to."""
        return self._channel is not None and self._channel.is_open and not self.is_leaving

    def retire(self, gone: Sequence[str] = ()) -> None:
        """Have it accept no more and end when its connections have; then nobody succeeds it.

        Args:
            gone: The keys of sockets that will be nobody's.
        """
        self._retirement = retirement = object()
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._channel is None:
            self._parent.retired(self)
        elif not self.ready:
            self._end()  # it has served nobody yet
        else:
            Deferred.fromCoroutine(self._let_leave(retirement, gone)).addErrback(_is_gone)

    async def _let_leave(self, retirement: object, gone: Sequence[str]) -> None:
        """Have it end as soon as it has no connections, unless it serves again by then."""
        is_over = False
        while not is_over:
            await self.ask("retire", seconds=None, gone=[*gone])
            if self._retirement is not retirement:
                return
            if not self._parent.is_changing:
                self.is_leaving = True
                is_over = self.is_leaving = await self.ask("leave")
            if not is_over:  # others have handed it theirs, or it may be needed
                await deferLater(self._reactor, _AGAIN)
                if self._retirement is not retirement:
                    return

    def serve_again(self) -> None:
        """Let it live on; the next rules are committed with `listening`."""
        self._retirement = None

    def start(self) -> None:
        """Start the process."""
        is_again = self.generation > 0
        self.generation = self._parent.generation
        self._restart = None
        self._problem = ""
        self._silent = 0
        self._asked = self._hung = False
        self._started_at = self._reactor.seconds()
        channel = self._channel = Channel(self.handlers, lambda: None, self._reactor)
        counters = self._parent.counters
        try:
            own, column, life = (
                counters.column(OWN),
                counters.column(self.number + 1),
                counters.life,
            )
            self._begin(channel)
        except OSError as problem:
            self._channel = None
            self._missing(f"cannot be started: {problem.strerror}", is_hopeless=True)
        if self._channel is channel:
            if is_again:
                own.process.restarted()
            starting = self._ask_to_start(channel, column, life)
            starting.addCallbacks(lambda _: self._is_ready(), self._has_failed)
        else:  # it may have ended already
            channel.close()

    def _ask_to_start(self, channel: Channel, column: Column, life: int) -> Deferred[Any]:
        if column.descriptor is not None:
            counting = channel.ask(
                "count_in", descriptors=[column.descriptor, life], **attrs.asdict(column.layout)
            )
            counting.addErrback(lambda _: None)  # it may be of a version that does not know
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
                [sys.executable, "-m", "txmux.processes.workers.child", *arguments],
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
        self._parent.ended(self._number, is_left=self.is_leaving)
        if self._retirement is not None:
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

    @property
    def handlers(self) -> dict[str, Callable[..., object]]:
        """What the channel to it calls."""
        return {
            "log": self._logged,
            "access": self._accessed,
            "event": self._happened,
            "replace": lambda: self._parent.replace(self),
        }

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

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None:
        """Have its events told to somebody, or with ``None`` to nobody any more."""
        self._sink = sink
        self.tell("listen", on=sink is not None)

    def _happened(self, event: dict[str, Any]) -> None:
        if self._sink is not None:
            self._sink(event)

    def _accessed(self, line: str) -> None:
        _access.info("{line}", line=line)


def _is_gone(failure: Failure) -> None:
    failure.trap(ChannelError)  # whoever waits for its end hears of that from the system
