"""Counts the calls that the code of txmux makes: what it costs, as exactly on a busy machine as on an idle one."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import txmux

_CODE = str(Path(txmux.__file__).parent)
_OF_TESTS = "Timers.getDelayedCalls"  # only tests ask


class Calls(NamedTuple):
    """How often functions of txmux were called, and how often those called one that is written in C."""

    python: int
    c: int


async def calls_of(does: Callable[[], Awaitable[object]]) -> Calls:
    """Count the calls of this thread while something is done."""
    count = {"call": 0, "c_call": 0}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event in count and code.co_filename.startswith(_CODE):
            count[event] += not code.co_qualname.startswith(_OF_TESTS)

    sys.setprofile(note)
    try:
        await does()
    finally:
        sys.setprofile(None)
    return Calls(*count.values())


async def within(bound: Calls, does: Callable[[], Awaitable[object]], times: int = 10) -> Calls:
    """Do something until it makes no more calls than these, and return the last count.

    The first time, caches are empty; and on a busy machine, what usually comes at once may come in two pieces.
    """
    counted = await calls_of(does)
    for _ in range(times):
        counted = await calls_of(does)
        if counted.python <= bound.python and counted.c <= bound.c:
            break
    return counted
