"""Has each reactor of txmux measure its turns, and say on a signal what it does; `campaign.slow.turns` reads it.

Python imports this when it starts with this folder on its path; the product itself knows nothing of it.
"""

import mmap
import os
import select
import signal
import struct
import sys
import time
from types import FrameType
from typing import Any

NAME = "TXMUX_TURNS"
PLACES, SIZE = 512, 1024
HEAD = struct.Struct("=QddddQ")
"""The process; when this turn began, by the monotonic clock, 0 if there is none; and the turn with the most CPU time: its seconds of CPU
time, and by the clock; the CPU time until now; and the number of turns."""
NOW, LONGEST = HEAD.size, HEAD.size + (SIZE - HEAD.size) // 2
"""Where it stands what this turn does, and what the longest did."""

_epoll = select.epoll


class _MeasuredEpoll:
    """The ``select.epoll`` of a reactor: what is done between two waits is one turn."""

    def __init__(self, *options: Any) -> None:
        self._epoll, self._cpu = _epoll(*options), 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, timeout: float, most: int) -> Any:
        now, cpu = time.monotonic(), time.thread_time()
        place = os.getpid() % PLACES * SIZE
        pid, began, longest, seconds, _, count = HEAD.unpack_from(_memory, place)
        if pid != os.getpid():
            longest = seconds = count = 0
            pid = os.getpid()
        elif began and cpu - self._cpu > longest:
            longest, seconds = cpu - self._cpu, now - began
            doing = _memory[place + NOW : place + LONGEST]
            _memory[place + LONGEST : place + LONGEST + len(doing)] = doing
        HEAD.pack_into(_memory, place, pid, 0.0, longest, seconds, cpu, count + 1)
        found = self._epoll.poll(timeout, most)
        self._cpu = time.thread_time()
        _memory[place + NOW] = 0
        # Whoever reads them may have had them forgotten meanwhile.
        _, _, longest, seconds, _, _ = HEAD.unpack_from(_memory, place)
        HEAD.pack_into(
            _memory, place, pid, time.monotonic(), longest, seconds, self._cpu, count + 1
        )
        return found


def _made(*options: Any) -> Any:
    is_reactor = sys._getframe(1).f_globals.get("__name__") == "twisted.internet.epollreactor"
    return (_MeasuredEpoll if is_reactor else _epoll)(*options)


def _say(_: int, frame: FrameType | None) -> None:
    """Write the innermost functions that run, the innermost first."""
    names: list[str] = []
    while frame is not None and len(names) < 6:
        code = frame.f_code
        names.append(f"{code.co_qualname} {code.co_filename.rpartition('/')[2]}:{frame.f_lineno}")
        frame = frame.f_back
    text = " < ".join(names).encode()[: LONGEST - NOW - 1] + b"\0"
    place = os.getpid() % PLACES * SIZE + NOW
    _memory[place : place + len(text)] = text


if NAME in os.environ and "txmux" in str(sys.orig_argv):
    with open(os.environ[NAME], "r+b") as _file:  # noqa: PTH123
        # Forked processes share it; workers may open no file.
        _memory = mmap.mmap(_file.fileno(), PLACES * SIZE)
    select.epoll = _made  # type: ignore[misc,assignment]
    signal.signal(signal.SIGRTMIN, _say)
