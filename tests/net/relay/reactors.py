"""Reactors beside the one that runs the tests; whoever has one turns it by hand."""

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.selectreactor import SelectReactor


class PrivateReactor:
    """A reactor that is not installed: ``epoll``, ``poll``, ``select``, ``asyncio`` or that of ``workers``. It waits for nothing."""

    reactor: Any
    turn: Callable[[], None]

    def __init__(self, kind: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        if kind == "asyncio":
            self._loop = asyncio.new_event_loop()
            self.reactor = AsyncioSelectorReactor(self._loop)
            self.turn = self._turn_loop
            return
        if kind == "epoll":
            from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 - Linux has it

            self.reactor = EPollReactor()
        elif kind == "workers":
            from txmux.net.sockets.reactor import SocketReactor  # noqa: PLC0415 - Linux has it

            self.reactor = SocketReactor()
        elif kind == "poll":
            from twisted.internet.pollreactor import PollReactor  # noqa: PLC0415 - not everywhere

            self.reactor = PollReactor()
        else:
            self.reactor = SelectReactor()
        self.turn = self._turn

    def _turn(self) -> None:
        self.reactor.iterate(0)

    def _turn_loop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def close(self) -> None:
        waker = self.reactor.waker
        self.reactor.removeReader(waker)
        waker.connectionLost(None)
        if self._loop is not None:
            self._loop.close()
        elif hasattr(self.reactor, "_poller") and hasattr(self.reactor._poller, "close"):
            self.reactor._poller.close()
