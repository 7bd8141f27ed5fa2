"""What runs in a worker's process: ``python -m txmux.processes.child NUMBER REACTOR``."""

from __future__ import annotations

import signal
import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogBeginner

from txmux.files import use_helper
from txmux.observe.access_log import open_log
from txmux.observe.servicelog import ServiceLog
from txmux.processes.account import account_of
from txmux.processes.channel import Channel, attach
from txmux.processes.exchange import OneProcess
from txmux.processes.forwarding import Forwarding
from txmux.processes.limits import SharedLimits
from txmux.processes.opener import Opener
from txmux.processes.signals import SignalWatch
from txmux.processes.worker import CHANNEL
from txmux.rules.model import Files
from txmux.rules.reading.parser import read_again
from txmux.serving.places import places_of
from txmux.serving.serving import Serving
from txmux.sockets.clock import use_monotonic_time
from txmux.sockets.poller import after_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


__all__ = ["Child", "main"]


class Child:
    """Serves what its parent tells it to, until the parent tells it to stop, or has ended.

    Args:
        number: Which worker this is, counted from 1.
        reactor: The process's own.

    Attributes:
        channel: Leads to the parent.
        status: What the process ends with.
    """

    _log = Logger()

    def __init__(self, number: int, reactor: Any) -> None:
        self._number = number
        self._reactor = reactor
        self._serving: Serving | None = None
        self._stopping = self._drained = False
        self.status = 0
        handlers: dict[str, Callable[..., object]] = {
            "start": self._start,
            "stop": self.stop,
            "ping": _answer,
        }
        self.channel = Channel(handlers, self._alone, reactor)

    def _start(
        self,
        descriptors: Sequence[int],
        rules: dict[str, Any],
        workers: int,
        sockets: Sequence[str],
        down: Sequence[dict[str, Any]] = (),
        accepting: bool = True,  # noqa: FBT001, FBT002 - a message's field
        *,
        opener: bool = False,
    ) -> None:
        """Serve.

        Args:
            descriptors: The memory that all workers share, the listening sockets, and what leads to the opener.
            rules: What was in their files.
            workers: The number of them.
            sockets: The keys of the places of the sockets, in their order.
            down: What checks have found so far.
            accepting: Whether clients are accepted yet.
            opener: Whether there is a helper that opens files.
        """
        memory, *opened = descriptors
        if opener:
            use_helper(Opener(socket.socket(fileno=opened.pop())).open_file)
        try:
            serving = self._serving = self._serve(
                Files(**rules), workers, memory, dict(zip(sockets, opened, strict=True))
            )
            if not accepting:
                serving.pause()
            for finding in down:
                serving.check_found(**finding)
        except Exception:
            self.status = 1
            self._reactor.callLater(0, self._over)  # once the parent is told
            raise
        self.channel.handlers.update(
            end_all=serving.end_all,
            reopen=serving.reopen_files,
            check=serving.check_found,
            **OneProcess(serving, self._reactor).handlers,
        )

    def _serve(
        self, files: Files, workers: int, memory: int, sockets: Mapping[str, int]
    ) -> Serving:
        rules = read_again(files)
        limits = SharedLimits(rules, workers, memory)
        admission = limits.admissions(self._number - 1, self._reactor.seconds)
        account = account_of(rules)
        access_log = open_log(
            rules.settings, after_turn(self._reactor), account.owner if account else None
        )
        serving = Serving(
            rules, access_log, self._reactor, checking=False, shared=True, hops=limits.hops
        )
        for listener in rules.listeners:
            factory = serving.add(listener, admission(listener))
            for place in places_of(listener):
                with socket.socket(fileno=sockets[place.key]) as opened:
                    # It is so already, but Python does not know, and would make a duplicate wait for clients.
                    opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
                    serving.listen(factory, place.key, opened)
        if account is not None:
            account.become()
        return serving

    def stop(self) -> None:
        """Let connections finish, and end the process."""
        if not self._stopping:
            self._stopping = True
            Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        if self._serving is not None:
            await self._serving.drain()
        self._over()

    def _over(self) -> None:
        self._drained = True
        if self.channel.is_open:
            self.channel.close()
        else:
            self._reactor.stop()

    def _alone(self) -> None:
        if self._drained:
            self._reactor.stop()
        else:
            self._log.warn("the parent process is gone; worker {number} stops", number=self._number)
            self.stop()


def _answer() -> None:
    """Show that this process does its work."""


def main() -> None:
    """Run a worker."""
    # The parent gets them, too, and says what is to be done.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    number, kind = sys.argv[1:]
    import_module(kind).install()
    from twisted.internet import reactor as installed  # noqa: PLC0415 - importing it installs it

    reactor: Any = installed
    use_monotonic_time(reactor)
    child = Child(int(number), reactor)
    alone: Any = ServiceLog(sys.stderr, reactor)
    globalLogBeginner.beginLoggingTo([Forwarding(child.channel, alone)], redirectStandardIO=False)
    attach(reactor, child.channel, socket.socket(fileno=CHANNEL))
    # systemd sends it to every process of a service.
    SignalWatch(reactor, child.stop, signal.SIGTERM).start()
    reactor.run(installSignalHandlers=False)
    sys.exit(child.status)


if __name__ == "__main__":
    main()
