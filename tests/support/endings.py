"""Time for connections to end, before trial looks at what a test has left in the reactor."""

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as any_reactor

_reactor: Any = any_reactor


def allow_endings() -> Callable[[], None]:
    """Have the reactor go on at the end of a test, for up to 10 s, until what is about to end has ended.

    Trial turns it a few times, and takes for left behind what is still in it then. But who has closed or reset a connection does
    not know when the other end hears of it: on a busy machine the kernel may bring the packet later.
    """
    remove_all = _reactor.removeAll
    turn = type(_reactor).iterate  # the reactor's own is not for tests, trial says

    def wait_and_remove() -> Any:
        internal: set[Any] = getattr(_reactor, "_internalReaders", set())
        deadline = time.monotonic() + 10
        while {*_reactor.getReaders(), *_reactor.getWriters()} - internal:
            if time.monotonic() >= deadline:
                break
            turn(_reactor, 0.01)
        return remove_all()

    _reactor.removeAll = wait_and_remove

    def end() -> None:
        _reactor.removeAll = remove_all

    return end
