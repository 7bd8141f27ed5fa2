"""How the two ends of a relay come to be, accepted by a port and connected by a client, and its sides."""

import itertools
import socket
from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ClientFactory, ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from tests.support.ports import free_port, listen_tcp
from txmux.net.relay.kernel import KernelSide
from txmux.net.relay.peers import Peer
from txmux.net.relay.portable import PortableSide
from txmux.net.relay.relay import RelaySide
from txmux.net.sockets.client import SocketConnector
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.port import SocketPort

Sides = tuple[RelaySide, RelaySide]


def portable_sides(client: Peer, server: Peer) -> Sides:
    return PortableSide(client), PortableSide(server)


def kernel_sides(poller: Poller, client: Peer, server: Peer) -> Sides:
    return KernelSide(client, poller), KernelSide(server, poller)


class Wiring(Protocol):
    """One way, on one reactor; `breaks_off` if a peer can tell a broken connection from one that ended cleanly."""

    family: socket.AddressFamily
    breaks_off: bool

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]: ...

    def connect(self, address: Any, factory: ClientFactory) -> None: ...


class TcpWiring:
    """Twisted's TCP transports."""

    family = socket.AF_INET
    breaks_off = True

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]:
        port = listen_tcp(self._reactor, factory, interface="127.0.0.1")
        return port, ("127.0.0.1", port.getHost().port)

    def connect(self, address: Any, factory: ClientFactory) -> None:
        self._reactor.connectTCP(*address, factory)


class UnixWiring:
    """Twisted's transports of UNIX sockets, which know no reset."""

    family = socket.AF_UNIX
    breaks_off = False

    def __init__(self, reactor: Any, test: SynchronousTestCase) -> None:
        self._reactor = reactor
        self._paths = _paths(test)

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]:
        path = next(self._paths)
        return self._reactor.listenUNIX(path, factory), path

    def connect(self, address: Any, factory: ClientFactory) -> None:
        self._reactor.connectUNIX(address, factory)


class _LeanWiring:
    family: socket.AddressFamily

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def _listen_at(self, name: Any, factory: ServerFactory) -> tuple[IListeningPort, Any]:
        listening = socket.socket(self.family)
        listening.bind(name)
        listening.listen()
        port = SocketPort(self._poller, listening, factory)
        port.startListening()
        return port, listening.getsockname()

    def connect(self, address: Any, factory: ClientFactory) -> None:
        reactor = self._poller.reactor
        connector = SocketConnector(self._poller, reactor, self.family, address, factory)
        connector.connect(60)


class LeanTcpWiring(_LeanWiring):
    """TCP sockets that a poller serves."""

    family = socket.AF_INET
    breaks_off = True

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]:
        return self._listen_at(("127.0.0.1", free_port("127.0.0.1")), factory)


class LeanUnixWiring(_LeanWiring):
    """UNIX sockets that a poller serves."""

    family = socket.AF_UNIX
    breaks_off = False

    def __init__(self, poller: Poller, test: SynchronousTestCase) -> None:
        super().__init__(poller)
        self._paths = _paths(test)

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]:
        return self._listen_at(next(self._paths), factory)


def _paths(test: SynchronousTestCase) -> Iterator[str]:
    folder = make_folder(test)
    return (str(folder / str(number)) for number in itertools.count())
