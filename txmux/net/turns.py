"""Long work in small pieces, so that the process's connections do not wait for it."""

from collections.abc import Generator
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.task import deferLater

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
