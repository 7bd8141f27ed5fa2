"""How many descriptors this process may still open, and pauses of ports while there are none for new clients."""

from __future__ import annotations

import errno
import resource
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txmux.classes import define
from txmux.net.sockets.memory import MEMORY

SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Numbers of errors that say that this machine lacks what a connection takes."""

_SPARE = 16  # for logs, look-ups and the like, and the sockets of a reload; at high limits a thirty-second, up to:
_MOST_SPARE = 64
_EACH = 2  # a client, and its server
AT_ONCE = _SPARE // _EACH // 2
"""How many clients may be accepted without asking again, and how many of them after which the limit is looked at."""

_MOST = 2**20
_OPEN = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


class Descriptors:
    """Counts what is open, as rarely as it can: from far below the limit many clients may come before it counts again.

    Args:
        count: How many are open; those of this process if not given.
        limit: How many may be.
        spare: How many are left for what is no connection; by default it depends on the limit.

    Attributes:
        most: How many can be used, whatever the limit.
        reserved: What accepted clients still need: a socket to a server.
        offered: What connections need that other processes are about to hand over; see `offer`.
        to_call: What `connection_ended` has to call.
    """

    def __init__(
        self,
        count: Callable[[], int] | None = None,
        limit: Callable[[], int] | None = None,
        spare: int | None = None,
    ) -> None:
        self.most: int = sys.maxsize
        self._spare = spare
        self._count = count or count_open
        self._limit = limit or soft_limit
        self._granted = self._limited = 0
        self._since_looked = AT_ONCE
        self._caches: list[Callable[[], object]] = []
        self.to_call: dict[Callable[[], object], None] = {}
        self.reserved = self.offered = 0

    def room(self, needed: int = 1) -> int:
        """Return how many clients may be accepted now; none if accepted clients need all that is left.

        What is left of the last count is enough if it is as many as `needed`.
        """
        if self._since_looked >= AT_ONCE:
            # Until a changed limit is seen, there are the spare descriptors.
            self._since_looked = 0
            limit = min(self._limit(), self.most)
            if limit != self._limited:
                self._limited, self._granted = limit, 0
        if self._granted < needed:
            self._granted = self._grant()
            if not self._granted:
                self.close_cached()
                self._granted = self._grant()
        return self._granted

    def _grant(self) -> int:
        clients = max(0, self._free() // _EACH)
        # Not all, since other code opens files, too.
        return min(_MOST, -(-clients // 4))

    def _free(self) -> int:
        limit = min(self._limit(), self.most)
        spare = min(max(_SPARE, limit // 32), _MOST_SPARE) if self._spare is None else self._spare
        return limit - self._count() - self.reserved - self.offered - spare

    def count_and_limit(self) -> tuple[int, int]:
        return self._count(), min(self._limit(), self.most)

    def offer(self, number: int) -> None:
        """Keep room for so many descriptors of connections that another process offers, or less again if it is negative.

        Clients that wait in a queue are accepted only into what is left, since they would take the room of those that are served.
        """
        self.offered += number
        self.count_again()
        if number < 0:
            self.connection_ended()

    def client_accepted(self) -> None:
        self._granted -= 1
        self._since_looked += 1

    def can_spare(self, number: int) -> bool:
        """Return whether there are descriptors for something that can be done without."""
        self.count_again()
        return self._free() >= number

    def count_again(self) -> None:
        self._granted = 0  # others may open more

    def add_cache(self, close_cached: Callable[[], object]) -> None:
        self._caches.append(close_cached)

    def close_cached(self) -> None:
        for close_cached in self._caches:
            close_cached()

    def call_when_freed(self, call: Callable[[], object]) -> None:
        self.to_call[call] = None

    def cancel_call(self, call: Callable[[], object]) -> None:
        self.to_call.pop(call, None)

    def connection_ended(self) -> None:
        waiting, self.to_call = self.to_call, {}
        for call in waiting:
            call()


def count_open() -> int:
    """Count this process's descriptors (proc(5)); 0 where the system does not say."""
    try:
        # Since Linux 6.2 it is the size of that folder; otherwise one of the entries is the folder itself.
        size = _OPEN.stat().st_size if sys.platform == "linux" else 0
        return size or len([*_OPEN.iterdir()]) - 1
    except OSError as problem:
        return _MOST if problem.errno in SHORTAGE else 0


def soft_limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2 * _MOST if limit == resource.RLIM_INFINITY else limit


DESCRIPTORS = Descriptors()  # the descriptors of this process
_BREATH = 0.1  # seconds until accepting is tried again, if no connection has ended before
_CALM = 1.0  # seconds without a shortage after which it is over

_log = Logger()
_short: set[AcceptPause] = set()  # of ports of this process in whose queues clients wait
_end: list[IDelayedCall] = []  # logs the end of the shortage; at most one


@define(eq=False)
class AcceptPause:
    """A port's pause while the machine lacks what a connection takes. It is logged once for all ports of the process.

    Attributes:
        timer: Ends the pause; ``None`` if there is none.
        is_short: Whether clients wait in the port's queue.
    """

    _clock: IReactorTime
    _descriptors: Descriptors
    _name: str
    _fileno: Callable[[], int]
    _accept_again: Callable[[], object]
    timer: IDelayedCall | None = attrs.field(default=None, init=False)
    is_short: bool = attrs.field(default=False, init=False)
    _why: str = attrs.field(default="", init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _last: float = attrs.field(default=0.0, init=False)

    def trouble(self) -> tuple[int, str, float] | None:
        """Return the descriptor of the port, why it cannot accept, and since when; ``None`` if it accepts again.

        The time is in seconds since 1970.
        """
        if self.timer is None and self._clock.seconds() - self._last >= _CALM:
            return None  # clients wait, but they are accepted
        return self._fileno(), self._why, self._since

    def start_pause(self, shortage: str | None) -> None:
        """Stop accepting for a while; a reason is logged unless another port has done so."""
        if self.timer is None:
            self.timer = self._clock.callLater(_BREATH, self._end_pause)
            self._descriptors.call_when_freed(self._hurry)
        if not self.is_short:
            self._since = time.time()
        self._why, self._last = shortage or "out of memory", self._clock.seconds()
        is_new = not _short and not _end
        _stop_end()
        self.is_short = True
        _short.add(self)
        if is_new and shortage is not None:
            _log.error(
                "{name} cannot accept: {shortage}; clients wait until connections end: "
                "raise the limit (LimitNOFILE=, ulimit -n) or set max_connections",
                name=self._name,
                shortage=shortage,
            )

    def _hurry(self) -> None:
        if self.timer is not None:
            self.timer.reset(0)

    def _end_pause(self) -> None:
        self.timer = None
        self._descriptors.cancel_call(self._hurry)
        try:
            self._accept_again()
            if not self.has_clients():
                self.queue_emptied()
        except MemoryError:
            MEMORY.report_shortage()
            self.start_pause(None)  # or no client would ever be accepted again

    def has_clients(self) -> bool:
        queue = select.poll()
        queue.register(self._fileno(), select.POLLIN)
        return bool(queue.poll(0))

    def cancel_pause(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self._descriptors.cancel_call(self._hurry)

    def queue_emptied(self) -> None:
        self.is_short = False
        _short.discard(self)
        if not _short:
            _end.append(self._clock.callLater(_CALM, _log_end))

    def port_closed(self) -> None:
        self.cancel_pause()
        if self.is_short and not self.has_clients():
            self.queue_emptied()
        self.is_short = False
        _short.discard(self)  # its clients may wait for another process
        if _end:
            _stop_end()
            _log_end()


def cannot_accept() -> dict[int, tuple[str, float]]:
    """Return by its descriptor each port of this process that cannot accept: why, and since when."""
    found = [trouble for pause in _short if (trouble := pause.trouble())]
    return {descriptor: (why.lower(), since) for descriptor, why, since in found}


def _stop_end() -> None:
    while _end:
        timer = _end.pop()
        if timer.active():
            timer.cancel()


def _log_end() -> None:
    _end.clear()
    _log.info("no client is waiting to be accepted any longer")
