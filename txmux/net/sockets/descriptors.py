"""How many descriptors this process may open yet, asked before a client is accepted."""

from __future__ import annotations

import errno
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Numbers of errors that say that this machine lacks what a connection takes."""

_SPARE = 16  # for logs, look-ups and the like
_EACH = 2  # a client, and its server

AT_ONCE = _SPARE // _EACH // 2
"""How many clients may be accepted without asking again, and how many of them after which the limit is looked at."""

_MOST = 2**20
_OPEN = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


class Descriptors:
    """Counts what is open, as rarely as it can: from far below the limit many clients may come before it counts again.

    Args:
        count: Counts what is open.
        limit: Gives the most that may be.

    Attributes:
        reserved: What those need yet who have been let in: a socket to a server.
    """

    def __init__(
        self, count: Callable[[], int] | None = None, limit: Callable[[], int] | None = None
    ) -> None:
        self._count = count or _count_open
        self._limit = limit or _soft_limit
        self._granted = self._limited = 0
        self._since_looked = AT_ONCE
        self._givers: list[Callable[[], object]] = []
        self._waiting: dict[Callable[[], object], None] = {}
        self.reserved = 0

    def room(self) -> int:
        """Return how many clients may be accepted now; none if all that is left is for those who have been let in."""
        if self._since_looked >= AT_ONCE:
            self._look_at_limit()
        if self._granted <= 0:
            self._granted = self._grant()
            if not self._granted:
                self.reclaim()
                self._granted = self._grant()
        return self._granted

    def _look_at_limit(self) -> None:
        """Count again if somebody has changed the limit. Until that is seen, there are the spare ones."""
        self._since_looked = 0
        limit = self._limit()
        if limit != self._limited:
            self._limited, self._granted = limit, 0

    def _grant(self) -> int:
        clients = max(0, self._free() // _EACH)
        # Not all, since others open files, too.
        return min(_MOST, -(-clients // 4))

    def _free(self) -> int:
        return self._limit() - self._count() - self.reserved - _SPARE

    def now(self) -> tuple[int, int]:
        """Return how many are open, and how many may be."""
        return self._count(), self._limit()

    def let_in(self) -> None:
        """Record that a client has been accepted."""
        self._granted -= 1
        self._since_looked += 1

    def can_spare(self, number: int) -> bool:
        """Return whether there are descriptors for something that can be done without."""
        self._granted = 0  # to be counted again
        return self._free() >= number

    # What can be given back.

    def add_giver(self, give: Callable[[], object]) -> None:
        """Call something that closes cached descriptors when descriptors run short."""
        self._givers.append(give)

    def reclaim(self) -> None:
        """Close all cached descriptors."""
        for give in self._givers:
            give()

    # Who waits.

    def call_when_freed(self, call: Callable[[], object]) -> None:
        """Call something once, as soon as a connection has ended."""
        self._waiting[call] = None

    def forget(self, call: Callable[[], object]) -> None:
        """Cancel such a call."""
        self._waiting.pop(call, None)

    def freed(self) -> None:
        """Record that a connection is over."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call()


def _count_open() -> int:
    """Count this process's descriptors (proc(5)); 0 where the system does not tell."""
    try:
        # Since Linux 6.2 it is the size of that folder; otherwise one of the entries is the folder itself.
        size = _OPEN.stat().st_size if sys.platform == "linux" else 0
        return size or len([*_OPEN.iterdir()]) - 1
    except OSError as problem:
        return _MOST if problem.errno in SHORTAGE else 0


def _soft_limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2 * _MOST if limit == resource.RLIM_INFINITY else limit


DESCRIPTORS = Descriptors()
"""Those of this process."""
