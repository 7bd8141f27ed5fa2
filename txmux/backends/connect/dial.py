"""Opens connections to servers of any kind."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - host names need it, and without free descriptors it cannot be imported
import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.connect.source import prepare_datagrams
from txmux.classes import frozen
from txmux.errors import cause_of
from txmux.net.sockets.client import DatagramClient, SocketConnector, socket_name
from txmux.net.sockets.descriptors import SHORTAGE
from txmux.net.sockets.plainsocket import SocketOption
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.transport import sockaddr
from txmux.rules.model import Server
from txmux.rules.reading.endpointstrings import split_arguments
from txmux.wire.proxyprotocol.header import Address

if TYPE_CHECKING:
    from txmux.rules.feature import ServerDialler

NO_PORT = (
    "all ports of this machine are in use towards this server, or it has no address of that family; "
    "more addresses in source have more ports"
)
"""The reason of EADDRNOTAVAIL where the system chooses the address, and of EAGAIN for UDP."""

LASTING_ERRORS = {
    errno.EAFNOSUPPORT, errno.EINVAL, errno.ENODEV, errno.ENOPROTOOPT, errno.EPERM,
    errno.EPROTONOSUPPORT,
}  # fmt: skip
"""Numbers of errors of this machine that every connection to the server meets: it is as good as down."""

LOCAL_ERRORS = SHORTAGE | {errno.EADDRNOTAVAIL, errno.EADDRINUSE} | LASTING_ERRORS
"""Numbers of errors of this machine: nothing was sent to the server."""


@frozen(eq=False)
class Dialler:
    """Opens the connections of a process to servers; `ProxyClientFactory.connect` makes them what a client needs.

    Attributes:
        options: What is set on all sockets, beside what the backend says; those of endpoint strings have their owner's.
        sockets: How a backend's sockets are made.
        proxy: What a backend's connections go through.
    """

    reactor: Any
    clock: IReactorTime
    poller: Poller
    options: Sequence[SocketOption] = ()
    sockets: ServerSocketPlan = ServerSocketPlan()
    proxy: ServerDialler | None = None

    @classmethod
    def of(cls, reactor: Any) -> Dialler:
        return cls(reactor, reactor, Poller.for_reactor(reactor))

    def dial(
        self,
        server: Server,
        factory: Any,
        timeout: float,
        *,
        client: Address | None = None,
        eager: bool = False,
        begun: socket.socket | None = None,
    ) -> Callable[[], None]:
        """Start to open a connection, not through the proxy; returns what cancels that, while no outcome has been reported.

        Args:
            server: A server at an IP address or a path, or an endpoint string.
            factory: Its ``clientConnectionFailed`` gets failures.
            timeout: Seconds for the TCP handshake; it is the caller's for an endpoint string.
            client: For whom it is, which may decide on the local addresses; they are tried in order.
            eager: Whether there are bytes to send at once.
            begun: A socket on which the handshake has begun.
        """
        plan = self.sockets
        name = socket_name(server.kind, server.host, server.port, server.path)
        if name is None and server.kind != "udp":
            return self._connect_endpoint(server, factory)
        sources = plan.sources.sources_towards(server.host, client) if server.host else ()
        options = plan.options_for(server)
        if name is None:
            datagrams = DatagramClient(self.poller, server.host, server.port, factory)
            datagrams.connect(lambda opened: prepare_datagrams(opened, options, sources))
            return datagrams.disconnect
        family, place = name
        if "%" in server.host:
            place = sockaddr(server.host, server.port)
        is_multipath = plan.is_multipath and family != socket.AF_UNIX
        connecting = SocketConnector(
            self.poller, self.clock, family, place, factory, is_multipath, server.owner
        )
        if begun is None:
            options = (*self.options, *options)
            connecting.connect(timeout, options=options, eager=eager, sources=sources)
        else:
            connecting.adopt(begun, timeout)
        return connecting.disconnect

    def _connect_endpoint(self, server: Server, factory: Any) -> Callable[[], None]:
        from twisted.internet.endpoints import clientFromString  # noqa: PLC0415 - it imports all of TLS

        endpoint = clientFromString(self.reactor, server.text)
        arguments = split_arguments(server.text)
        if arguments.kind == "tls":
            from txmux.net.tls.verification import verify_first  # noqa: PLC0415 - as above

            factory = verify_first(factory, arguments.named.get("host") or arguments.positional[0])
        connection = endpoint.connect(factory)
        connection.addErrback(lambda failure: factory.clientConnectionFailed(None, failure))
        return connection.cancel  # type: ignore[no-any-return]


def reason_of(failure: Failure) -> str:
    # The error of a connection that is lost as it is made wraps another failure.
    args = getattr(failure.value, "args", ())
    inner = args[0] if args and isinstance(args[0], Failure) else failure
    cause = cause_of(inner.value)
    return NO_PORT if os.strerror(errno.EADDRNOTAVAIL).lower() in cause.lower() else cause
