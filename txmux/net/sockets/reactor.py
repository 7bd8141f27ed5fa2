"""The reactor of workers: Twisted's for epoll(7), with the sockets of its `Poller` in the same epoll object.

Their events then take neither a second epoll object nor what Twisted does for each event.
"""

from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from typing_extensions import override

from txmux.net.sockets.poller import POLLERS, Poller

_SOON = 3600.0  # seconds; epoll has a longest time


class SocketReactor(EPollReactor):
    """See the module."""

    def __init__(self) -> None:
        # Twisted calls `_add` before there is an epoll object.
        self._sockets: _SharingPoller | None = None
        super().__init__()
        self._sockets = POLLERS[self] = _SharingPoller(self)
        self.doIteration = self._sockets.serve_until_due  # type: ignore[method-assign]  # one call less

    def _add(self, xer: Any, *rest: Any) -> None:
        descriptor = xer.fileno()
        if self._sockets is not None and descriptor not in self._selectables:
            self._sockets.is_new(descriptor)
        super()._add(xer, *rest)


class _SharingPoller(Poller):
    def __init__(self, reactor: SocketReactor) -> None:
        super().__init__(reactor)
        self.epoll = reactor._poller
        self.is_new = self._outdated.add

    def serve_until_due(self, timeout: float | None) -> None:
        """Serve what is ready until the reactor has something to do itself: asking it after each batch would cost as much as a batch."""
        reactor = self.reactor
        while True:
            self.serve_ready(timeout)
            if not reactor._started or reactor._justStopped or reactor.threadCallQueue:
                return
            # Usually as Twisted says, in a sixth of the time.
            calls = () if reactor._newTimedCalls else reactor._pendingTimedCalls
            left = calls[0].time - reactor.seconds() if calls else 0.0
            timeout = left if 0 < left < _SOON else reactor.timeout()
            if timeout == 0:
                # What has come during a long batch comes before the timers that are due since: it was in time.
                self.serve_ready()
                return

    @override
    def _serve_other(self, descriptor: int, events: int) -> None:
        reactor = self.reactor
        selectable = reactor._selectables.get(descriptor)
        if selectable is not None:
            # Without Twisted's context for its older log, which takes ten calls.
            reactor._doReadOrWrite(selectable, descriptor, events)

    @override
    def _stop_if_unused(self) -> None:
        pass  # Twisted closes the epoll object


def install() -> None:
    installReactor(SocketReactor())
