"""Long work in small pieces, so that the process's connections do not wait for it."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from time import perf_counter
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txmux.net.collecting import UNCOLLECTED

T = TypeVar("T")
_Outcome = tuple[T | None, Exception | None]
_PIECE = 0.005  # seconds that one piece takes
_AT_ONCE = 32  # things between two reads of the clock


class Turns:
    """Lets the process's own reactor serve its connections from time to time."""

    def __init__(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

        self._reactor: Any = reactor
        self._until = perf_counter() + _PIECE

    async def run(self, steps: Generator[None, None, T]) -> T:
        with UNCOLLECTED:
            try:
                while True:
                    next(steps)
                    await self.pause()
            except StopIteration as end:
                result: T = end.value
                return result

    async def each(self, things: Iterable[T], has_ended: Callable[[T], bool]) -> AsyncIterator[T]:
        """Yield the things that are there now, each only if it has not ended when its turn comes.

        In every pause some may end and others come. Whoever iterates must be done with a thing before it awaits anything.
        """
        for number, thing in enumerate([*things]):
            if not number % _AT_ONCE:
                await self.pause()
            if not has_ended(thing):
                yield thing

    async def collect(self, rows: Iterable[T]) -> list[T]:
        """Make a list of rows that are made one by one, of what no pause changes; for what may end, see `each`."""
        made = []
        with UNCOLLECTED:
            for row in rows:
                made.append(row)
                await self.pause()
        return made

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
        with UNCOLLECTED:
            result, error = await outcome_in_thread(function, *arguments)
    finally:
        _running -= 1
        if not _running:
            sys.setswitchinterval(_usual)
    if error is None:
        return cast("T", result)
    try:
        raise error
    finally:
        del error


def outcome_in_thread(function: Callable[..., T], *arguments: Any) -> Deferred[_Outcome[T]]:
    """Run a function that seldom holds the interpreter; its result or its error comes."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    ended: Deferred[_Outcome[T]] = Deferred()

    def work() -> None:
        cast("Any", reactor).callFromThread(ended.callback, _attempt(function, *arguments))

    _thread(os.getpid()).submit(work)
    return ended


@cache
def _thread(_pid: int) -> ThreadPoolExecutor:
    """Return a thread of this process: one, since each takes 72 MiB of addresses."""
    return ThreadPoolExecutor(1)


def _attempt(function: Callable[..., T], *arguments: Any) -> _Outcome[T]:
    """Return an error, since a `Failure` of it would be garbage that refers to itself."""
    try:
        return function(*arguments), None
    except Exception as error:  # noqa: BLE001 - it is raised where the result is waited for
        return None, error
