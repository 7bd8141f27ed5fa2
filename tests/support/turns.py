"""Long work in pieces, with something done in each of its pauses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from twisted.internet.task import deferLater

from tests.support.peers import reactor
from txmux.net import turns


@contextmanager
def each_pause(do: Callable[[int], object]) -> Iterator[None]:
    """Have work pause wherever it may, and do something in each pause, by its number from 0."""
    number = -1

    async def pause(_: turns.Turns) -> None:
        nonlocal number
        number += 1
        do(number)
        await deferLater(reactor, 0)

    with patch.object(turns.Turns, "pause", pause), patch.object(turns, "_AT_ONCE", 1):
        yield
