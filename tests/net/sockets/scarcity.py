import errno
import os
import select
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.net.sockets.poller import Poller
from txmux.net.sockets.port import SocketPort


class ScarceEpoll:
    """A real epoll object that takes no more descriptors when there is no `room`; ``None`` is room for any."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.room: int | None = None

    def register(self, descriptor: int, events: int) -> None:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._real.register(descriptor, events)
        if self.room is not None:
            self.room -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def make_scarce(test: SynchronousTestCase, poller: Poller) -> ScarceEpoll:
    """Let a poller, which watches something already, have such an object."""
    real = poller.epoll
    assert isinstance(real, select.epoll)
    scarce = ScarceEpoll(real)
    poller.epoll = scarce

    def put_back() -> None:
        if poller.epoll is scarce:
            poller.epoll = real

    test.addCleanup(put_back)
    return scarce


def listen_beside(test: SynchronousTestCase, poller: Poller, factory: Any, **options: Any) -> Any:
    port = SocketPort(poller, socket.create_server(("127.0.0.1", 0)), factory, **options)
    port.startListening()
    test.addCleanup(port.stopListening)
    return port
