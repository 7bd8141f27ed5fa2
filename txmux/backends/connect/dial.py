"""Starts a connection to a server of any kind."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - host names need it, and without free descriptors it cannot be imported
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet import error
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.connect.source import prepare_datagrams
from txmux.errors import cause_of
from txmux.net.sockets.client import DatagramClient, SocketConnector, socket_name
from txmux.net.sockets.descriptors import SHORTAGE
from txmux.net.sockets.plainsocket import (
    SocketOption,
    open_multipath,
    open_socket,
)
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.transport import sockaddr
from txmux.rules.model import Server
from txmux.rules.reading.endpointstrings import split_arguments
from txmux.wire.proxyprotocol.header import Address

NO_PORT = (
    "all ports of this machine are in use towards this server, or it has no address of that family; "
    "more addresses in source have more ports"
)
"""The reason of EADDRNOTAVAIL where the system chooses the address, and of EAGAIN for UDP."""

Dial = Callable[..., Callable[[], None]]
"""Starts to connect: takes a server, a client factory and seconds; returns what cancels the attempt. See `dial`."""

LASTING_ERRORS = {
    errno.EAFNOSUPPORT, errno.EINVAL, errno.ENODEV, errno.ENOPROTOOPT, errno.EPERM,
    errno.EPROTONOSUPPORT,
}  # fmt: skip
"""Numbers of errors of this machine that every connection to the server meets: it is as good as down."""

LOCAL_ERRORS = SHORTAGE | {errno.EADDRNOTAVAIL, errno.EADDRINUSE} | LASTING_ERRORS
"""Numbers of errors of this machine: nothing was sent to the server."""


def dial(  # noqa: PLR0913 - all that a connection depends on, by name
    reactor: Any,
    server: Server,
    factory: Any,
    timeout: float,
    *,
    clock: IReactorTime,
    poller: Poller | None = None,
    options: tuple[SocketOption, ...] = (),
    eager: bool = False,
    plan: ServerSocketPlan = ServerSocketPlan(),  # noqa: B008 - it is frozen
    client: Address | None = None,
) -> Callable[[], None]:
    """Start to connect to a server; returns what cancels the attempt, while no outcome has been reported.

    The factory's ``clientConnectionFailed`` gets failures. Without a `poller`, it is that of the reactor; sockets of names that
    Twisted looks up get their `options` from their owner. An eager client has bytes to send at once. Local addresses of the `plan`, for
    this `client`, are tried in order.
    """
    sources = plan.sources.sources_towards(server.host, client) if server.host else ()
    its_options = plan.options_for(server)
    poller = poller or Poller.for_reactor(reactor)
    name = socket_name(server.kind, server.host, server.port, server.path)
    if name is not None:
        family, place = name
        if "%" in server.host:
            place = sockaddr(server.host, server.port)
        opened = open_multipath if plan.is_multipath and family != socket.AF_UNIX else open_socket
        connecting = SocketConnector(poller, clock, family, place, factory, opened)
        connecting.connect(timeout, options=options + its_options, eager=eager, sources=sources)
        return connecting.disconnect
    if server.kind == "udp":
        datagrams = DatagramClient(poller, server.host, server.port, factory)
        datagrams.connect(lambda opened: prepare_datagrams(opened, its_options, sources))
        return datagrams.disconnect
    bind_address = (sources[0].address, next(sources[0].ports)) if sources else None
    from twisted.internet.endpoints import (  # noqa: PLC0415 - it imports all of TLS
        HostnameEndpoint,
        clientFromString,
    )

    if server.kind == "tcp":
        endpoint: Any = HostnameEndpoint(
            reactor, server.host, server.port, bindAddress=bind_address
        )
    else:
        endpoint = clientFromString(reactor, server.text)
        arguments = split_arguments(server.text)
        if arguments.kind == "tls":
            from txmux.net.tls.verification import verify_first  # noqa: PLC0415 - as above

            factory = verify_first(factory, arguments.named.get("host") or arguments.positional[0])
    connection = endpoint.connect(factory).addTimeout(timeout, reactor, _timed_out)
    connection.addErrback(lambda failure: factory.clientConnectionFailed(None, failure))
    return connection.cancel  # type: ignore[no-any-return]


def reason_of(failure: Failure) -> str:
    # The error of a connection that is lost as it is made wraps another failure.
    args = getattr(failure.value, "args", ())
    inner = args[0] if args and isinstance(args[0], Failure) else failure
    cause = cause_of(inner.value)
    return NO_PORT if os.strerror(errno.EADDRNOTAVAIL).lower() in cause.lower() else cause


def _timed_out(result: object, seconds: float) -> NoReturn:  # noqa: ARG001 - Twisted's signature
    # Some address of a name may have failed with another error, but the time limit ended the attempt.
    raise error.TimeoutError
