"""Opening the sockets that a rules file names."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from txmux.errors import ListenError
from txmux.rules.endpoints import short_form
from txmux.rules.endpointstrings import SERVER, split_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from txmux.rules.model import Server

__all__ = ["EveryAddressEndpoint", "check_servers", "server_endpoint", "why_not"]


def server_endpoint(reactor: Any, text: str, backlog: int) -> IStreamServerEndpoint:
    """Make the endpoint for one line of ``endpoint =``.

    Args:
        reactor: Opens the socket.
        text: Checked by the rules parser.
        backlog: Connections that may wait to be accepted, unless the text says otherwise.
    """
    short = short_form(text)
    if short is None:
        _clear_unix_socket(text)
        named: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(text, backlog))
        if isinstance(named, AdoptedStreamServerEndpoint):
            # Read with the wrong family, clients' addresses would be garbage. systemd makes an IPv6 socket
            # of `ListenStream=443`, whatever the endpoint's `domain` says.
            with socket.fromfd(named.fileno, socket.AF_INET, socket.SOCK_STREAM) as inherited:
                family = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
            named.addressFamily = socket.AddressFamily(family)
        return named
    host, port = short
    if not host:
        return EveryAddressEndpoint(reactor, port, backlog)
    make: Callable[..., IStreamServerEndpoint] = (
        TCP6ServerEndpoint if ":" in host else TCP4ServerEndpoint
    )
    return make(reactor, port, backlog=backlog, interface=host)


def _clear_unix_socket(text: str) -> None:
    """Remove a UNIX socket that nobody listens on any more, and only such a one.

    Raises:
        OSError: Something else is in the way.
    """
    arguments = split_arguments(text)
    if arguments.kind.lower() != "unix":
        return
    path = Path(arguments.named.get("address") or arguments.positional[0])
    if not path.exists():
        return
    if not path.is_socket():
        raise OSError(
            errno.EEXIST,
            "something that is no socket is there: move it away or choose another path",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(
        errno.EADDRINUSE, "another program listens there: stop that one or choose another path"
    )


def _with_backlog(text: str, backlog: int) -> str:
    """Add the backlog to an endpoint string that takes one and does not say it."""
    arguments = split_arguments(text)
    form = SERVER.get(arguments.kind.lower())
    if form is None or "backlog" not in form.names or "backlog" in arguments.named:
        return text
    if len(arguments.positional) > form.names.index("backlog"):
        return text
    return f"{text}:backlog={backlog}"


def check_servers(reactor: Any, servers: Iterable[Server]) -> None:
    """Make the endpoints of servers that are named by endpoint strings, which reads the files they name.

    Raises:
        ListenError: One cannot be made: a certificate that is not there, for one.
    """
    for server in servers:
        if server.kind == "endpoint":
            try:
                clientFromString(reactor, server.text)
            except Exception as problem:
                raise ListenError(f"server {server.text} cannot be used: {problem}") from problem


@implementer(IStreamServerEndpoint)
class EveryAddressEndpoint:
    """Listens on every address of the machine, IPv4 and IPv6, with one socket.

    Twisted's own endpoints leave it to the system's settings whether an IPv6 socket takes IPv4 clients too.

    Args:
        reactor: Listens.
        port: A TCP port, 0 for any that is free.
        backlog: Connections that may wait to be accepted.
    """

    def __init__(self, reactor: Any, port: int, backlog: int) -> None:
        self._reactor = reactor
        self._port = port
        self._backlog = backlog

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; without IPv6 in this system, on every IPv4 address."""
        try:
            opened = self._open()
        except OSError as problem:
            if problem.errno != errno.EAFNOSUPPORT:
                return fail(CannotListenError("", self._port, problem))
            plain: IStreamServerEndpoint = TCP4ServerEndpoint(
                self._reactor, self._port, backlog=self._backlog
            )
            return plain.listen(protocolFactory)
        with opened:  # the reactor works on a duplicate
            port: IListeningPort = self._reactor.adoptStreamPort(
                opened.fileno(), socket.AF_INET6, protocolFactory
            )
        return succeed(port)

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            opened.bind(("::", self._port))
            opened.listen(self._backlog)
        except OSError:
            opened.close()
            raise
        return opened


_HINTS = {
    errno.EADDRINUSE: "another program has it (ss -ltnp shows which): stop that one or choose another port",
    errno.EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address: see `ip address`",
}


def why_not(failure: Failure) -> str:
    """Say in one line why an endpoint could not listen, and what helps."""
    cause: object = failure.value
    if isinstance(cause, CannotListenError):
        cause = cause.socketError
    if isinstance(cause, LookupError):
        return "no such socket was passed to this process: see the [Socket] unit and its FileDescriptorName"
    if not isinstance(cause, OSError) or cause.errno is None:
        return str(cause)
    hint = None if cause.strerror and ": " in cause.strerror else _HINTS.get(cause.errno)
    return f"{cause.strerror}; {hint}" if hint else str(cause.strerror)
