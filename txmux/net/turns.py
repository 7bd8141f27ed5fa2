"""Long work in small pieces, so that the process's connections do not wait for it."""

import sys
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

T = TypeVar("T")
_PIECE = 0.005  # seconds that one piece takes


class Turns:
    """Lets the process's own reactor serve its connections from time to time."""

    def __init__(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

        self._reactor: Any = reactor
        self._until = perf_counter() + _PIECE

    async def run(self, steps: Generator[None, None, T]) -> T:
        try:
            while True:
                next(steps)
                await self.pause()
        except StopIteration as end:
            result: T = end.value
            return result

    async def pause(self) -> None:
        if perf_counter() >= self._until:
            await deferLater(self._reactor, 0)
            self._until = perf_counter() + _PIECE


_OFTEN = 0.0005  # seconds
_usual = sys.getswitchinterval()
_running = 0


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run in a thread what cannot be done in pieces; meanwhile, threads take turns more often than usual.

    Each system call of the reactor ends its turn, so it would wait for 5 ms after each.
    """
    global _running  # noqa: PLW0603 - the interval is the process's, too
    _running += 1
    sys.setswitchinterval(_OFTEN)
    try:
        result: T = await deferToThread(function, *arguments)
        return result
    finally:
        _running -= 1
        if not _running:
            sys.setswitchinterval(_usual)
