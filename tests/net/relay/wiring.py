"""How the two ends of a relay come to be, accepted by a port and connected by a client, and its sides."""

import itertools
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ClientFactory, Factory, ServerFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import authority, make_folder
from tests.support.ports import free_port, listen_tcp
from txmux.backends.connect.tls import BackendTLS
from txmux.net.relay.kernel import KernelSide
from txmux.net.relay.peer_state import queued_in
from txmux.net.relay.peers import Peer
from txmux.net.relay.transport_end import TransportEnd
from txmux.net.sockets.client import SocketConnector
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.port import SocketPort
from txmux.net.sockets.transport import SocketTransport, below_tls, socket_below, unsent_bytes
from txmux.net.tls.end import TlsEnd, TlsTransport
from txmux.rules.model import ServerTLS

Sides = tuple[KernelSide, KernelSide]


class Held(Peer):
    """Reads nothing before a relay does."""

    class receiver:  # noqa: D106, N801
        connection_lost = staticmethod(lambda _reason: None)

    def connectionMade(self) -> None:
        self.transport.pauseProducing()


def make_sides(poller: Poller, client: Peer, server: Peer) -> Sides:
    return KernelSide(client, poller), KernelSide(server, poller)


def sides_on_transports(poller: Poller, client: Peer, server: Peer) -> Sides:
    """Have the relay read and write by the transports alone, as where these are not sockets."""
    for peer in (client, server):
        TransportEnd.under(peer, poller)
    return make_sides(poller, client, server)


def unsent(transport: Any) -> int:
    """Count the bytes in a transport's own buffer and in its socket's send queue; for TLS they are those of TCP."""
    return unsent_bytes(below_tls(transport)) + queued_in(socket_below(transport))


class Wiring(Protocol):
    """One way, on one reactor; `breaks_off` if a peer can tell a broken connection from one that ended cleanly."""

    family: socket.AddressFamily
    breaks_off: bool

    def __init__(self, poller: Poller, test: SynchronousTestCase) -> None: ...

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]: ...

    def connect(self, address: Any, factory: ClientFactory) -> None: ...


Wires = Callable[[Poller, SynchronousTestCase], Wiring]


class TcpWiring:
    """Twisted's transports of TCP, or of UNIX sockets, which know no reset."""

    def __init__(
        self,
        poller: Poller,
        test: SynchronousTestCase,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self._poller, self._paths, self.family = poller, _paths(test), family
        self.breaks_off = family == socket.AF_INET

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]:
        if not self.breaks_off:
            path = next(self._paths)
            return self._poller.reactor.listenUNIX(path, factory), path
        port = listen_tcp(self._poller.reactor, factory, interface="127.0.0.1")
        return port, ("127.0.0.1", port.getHost().port)

    def connect(self, address: Any, factory: ClientFactory) -> None:
        if self.breaks_off:
            self._poller.reactor.connectTCP(*address, factory)
        else:
            self._poller.reactor.connectUNIX(address, factory)


UnixWiring = partial(TcpWiring, family=socket.AF_UNIX)


class LeanTcpWiring(TcpWiring):
    """TCP sockets that a poller serves, or UNIX sockets."""

    def listen(self, factory: ServerFactory) -> tuple[IListeningPort, Any]:
        listening = socket.socket(self.family)
        is_tcp = self.family == socket.AF_INET
        listening.bind(("127.0.0.1", free_port("127.0.0.1")) if is_tcp else next(self._paths))
        listening.listen()
        port = SocketPort(self._poller, listening, factory)
        port.startListening()
        return port, listening.getsockname()

    def connect(self, address: Any, factory: ClientFactory) -> None:
        reactor = self._poller.reactor
        SocketConnector(self._poller, reactor, self.family, address, factory).connect(60)


LeanUnixWiring = partial(LeanTcpWiring, family=socket.AF_UNIX)


class TlsWiring:
    """TLS over TCP sockets, with both peers or one; certificates are not verified."""

    family = socket.AF_INET
    breaks_off = True

    def __init__(
        self,
        poller: Poller,
        test: SynchronousTestCase,
        below: Wires = LeanTcpWiring,
        *,
        of_client: bool = True,
        of_server: bool = True,
    ) -> None:
        self._below, self._of_client, self._of_server = below(poller, test), of_client, of_server
        path = str(authority().issue("a.example").write(make_folder(test) / "a.pem", key=True))
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_file(path)
        self._context.use_privatekey_file(path)
        self._tls = BackendTLS(ServerTLS(), verified=False)

    def listen(self, factory: Any) -> tuple[IListeningPort, Any]:
        its: Any = _Ending(factory, self._context) if self._of_client else factory
        return self._below.listen(its)

    def connect(self, address: Any, factory: ClientFactory) -> None:
        its = self._tls.wrap(factory, "a.example") if self._of_server else factory
        self._below.connect(address, its)


TlsOnTransportsWiring = partial(TlsWiring, below=TcpWiring)
TlsOfClientWiring = partial(TlsWiring, of_server=False)
TlsOfServerWiring = partial(TlsWiring, of_client=False)


class _Ending(Factory):
    def __init__(self, factory: ServerFactory, context: SSL.Context) -> None:
        self._factory, self._context = factory, context

    def buildProtocol(self, addr: Any) -> Any:
        built: Any = self._factory.buildProtocol(addr)
        context = self._context

        class Shaking(TwistedProtocol):
            def connectionMade(self) -> None:
                below: Any = self.transport
                if not isinstance(below, SocketTransport):
                    below = TransportEnd.under(self, Poller.for_reactor(below.reactor))
                connection = SSL.Connection(context, None)
                connection.set_accept_state()
                transport = TlsTransport.instead_of(below, TlsEnd(below.socket, connection))
                transport.protocol = built
                transport.on_shaken = lambda _: built.makeConnection(transport)

        return Shaking()


def _paths(test: SynchronousTestCase) -> Iterator[str]:
    folder = make_folder(test)
    yield from (str(folder / str(number)) for number in itertools.count())
