"""Clients that wait in the queue of a port, because the machine lacks what a connection takes."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from twisted.logger import Logger

from txmux.net.sockets.memory import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from txmux.net.sockets.descriptors import Descriptors

_BREATH = 0.1  # seconds until accepting is tried again, if no connection has ended before
_CALM = 1.0  # seconds without a shortage after which it is over

_log = Logger()
_short: set[Pause] = set()  # ports of this process at whose queues somebody waits
_end: list[IDelayedCall] = []  # what says that it is over; at most one


class Pause:
    """The pause that one port makes. What is said of it is said once for all ports of the process.

    Args:
        clock: For timers.
        descriptors: Tells when a connection is over.
        name: The port, for the log.
        fileno: Gives the listening socket's descriptor.
        go_on: Accepts again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        descriptors: Descriptors,
        name: str,
        fileno: Callable[[], int],
        go_on: Callable[[], object],
    ) -> None:
        self._fileno = fileno
        self._clock = clock
        self._descriptors = descriptors
        self._name = name
        self._go_on = go_on
        self._timer: IDelayedCall | None = None

    @property
    def is_short(self) -> bool:
        """Whether somebody waits, as far as is known."""
        return self in _short

    @property
    def is_on(self) -> bool:
        return self._timer is not None

    def begin(self, shortage: str | None) -> None:
        """Record that no more are accepted; `go_on` is called after a while.

        Args:
            shortage: Why, for the log; ``None`` if it has been told of already.
        """
        if self._timer is None:
            self._timer = self._clock.callLater(_BREATH, self._over)
            self._descriptors.call_when_freed(self._hurry)
        is_new = not _short and not _end
        _stop_end()
        _short.add(self)
        if is_new and shortage is not None:
            _log.error(
                "{name} cannot accept: {shortage}; clients wait until connections end: "
                "raise the limit (LimitNOFILE=, ulimit -n) or set max_connections",
                name=self._name,
                shortage=shortage,
            )

    def _hurry(self) -> None:
        if self._timer is not None:
            self._timer.reset(0)

    def _over(self) -> None:
        self._timer = None
        self._descriptors.forget(self._hurry)
        try:
            self._go_on()
            if not self.has_clients():
                self.enough()
        except MemoryError:
            MEMORY.lacks()
            self.begin(None)  # or nobody would ever be accepted again

    def has_clients(self) -> bool:
        """Return whether somebody waits in the queue."""
        queue = select.poll()
        queue.register(self._fileno(), select.POLLIN)
        return bool(queue.poll(0))

    def cancel(self) -> None:
        """Cancel the call of `go_on`: the caller decides when the port accepts again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._descriptors.forget(self._hurry)

    def enough(self) -> None:
        """Record that nobody waits in the queue."""
        if self in _short:
            _short.discard(self)
            if not _short:
                _end.append(self._clock.callLater(_CALM, _say_end))

    def end(self) -> None:
        """Record that the port is closed."""
        self.cancel()
        if _end or self in _short:
            _short.discard(self)
            if not _short:
                _stop_end()
                _say_end()


def _stop_end() -> None:
    while _end:
        timer = _end.pop()
        if timer.active():
            timer.cancel()


def _say_end() -> None:
    _end.clear()
    _log.info("no client waits to be accepted any more")
