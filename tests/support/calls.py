"""Counts the calls that the code of txmux makes: what it costs, as exactly on a busy machine as on an idle one."""

import select
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import txmux
from txmux.backends.pool.ports import PORT_SHORTAGE
from txmux.net.sockets.memory import MEMORY

_CODE = str(Path(txmux.__file__).parent)
_SOCKETS = socket.SocketType, select.epoll
_OF_TESTS = "Timers.getDelayedCalls"  # only tests ask


class Calls(NamedTuple):
    """How often functions of txmux were called; how often those called one that is written in C, and with that the system for a socket."""

    python: int
    c: int
    system: int = 2**31  # a bound may leave that open


async def calls_of(does: Callable[[], Awaitable[object]]) -> Calls:
    """Count the calls of this thread while something is done."""
    count = {"call": 0, "c_call": 0, "system": 0}

    def note(frame: FrameType, event: str, called: Any) -> None:
        code = frame.f_code
        if event in count and code.co_filename.startswith(_CODE):
            count[event] += not code.co_qualname.startswith(_OF_TESTS)
            if event == "c_call" and called.__name__ != "fileno":
                count["system"] += isinstance(called.__self__, _SOCKETS)

    PORT_SHORTAGE.failing.clear()  # what tests before have left
    MEMORY.short_since = None
    sys.setprofile(note)
    try:
        await does()
    finally:
        sys.setprofile(None)
    return Calls(*count.values())


async def within(bound: Calls, does: Callable[[], Awaitable[object]]) -> Calls:
    """Do something until it makes no more calls than these, and return the last count.

    The first time, caches are empty; and on a busy machine, what usually comes at once may come in two pieces.
    """
    counted = await calls_of(does)
    for _ in range(10):
        counted = await calls_of(does)
        if all(map(int.__le__, counted, bound)):
            break
    return counted
