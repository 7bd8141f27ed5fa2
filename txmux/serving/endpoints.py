"""Opening the sockets that a rules file names."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from txmux.errors import ListenError
from txmux.rules.reading.endpointstrings import SERVER, split_arguments
from txmux.serving.listening import listen_address, open_socket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from txmux.rules.model import Listener, Server
    from txmux.serving.listening import ListenAddress

__all__ = [
    "PlainEndpoint",
    "check_servers",
    "listen_error",
    "server_endpoint",
    "stop_listening",
]

_log = Logger()


def server_endpoint(reactor: Any, text: str, backlog: int) -> IStreamServerEndpoint:
    """Make the endpoint for one line of ``endpoint =``.

    Args:
        reactor: Opens the socket.
        text: Checked by the rules parser.
        backlog: Connections that may wait to be accepted, unless the text says otherwise.
    """
    address = listen_address(text, backlog)
    if address is not None:
        return PlainEndpoint(address)
    _clear_unix_socket(text)
    named: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(text, backlog))
    if isinstance(named, AdoptedStreamServerEndpoint):
        # Read with the wrong family, clients' addresses would be garbage. systemd makes an IPv6 socket
        # of `ListenStream=443`, whatever the endpoint's `domain` says.
        with socket.fromfd(named.fileno, socket.AF_INET, socket.SOCK_STREAM) as inherited:
            family = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        named.addressFamily = socket.AddressFamily(family)
    return named


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
class PlainEndpoint:
    """Listens with a plain TCP socket.

    Args:
        address: Where.
    """

    def __init__(self, address: ListenAddress) -> None:
        self._address = address

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen for a `MuxFactory`, at once."""
        factory: Any = protocolFactory
        try:
            with open_socket(self._address) as opened:
                return succeed(factory.listen(opened))
        except OSError as problem:
            return fail(CannotListenError(self._address.host, self._address.port, problem))


def stop_listening(port: IListeningPort) -> Deferred[None]:
    """Close a port, whatever comes in between: the others are to be closed cleanly all the same."""
    stop: Any = port.stopListening
    stopping: Deferred[None] = maybeDeferred(stop)
    return stopping.addErrback(_log_trouble)


def _log_trouble(failure: Failure) -> None:
    # A UNIX socket in a folder that belongs to root, of whom `user` has taken the rights.
    _log.warn("a listening socket cannot be tidied up: {why}", why=failure.getErrorMessage())


_HINTS = {
    errno.EADDRINUSE: "another program has it (ss -ltnp shows which): stop that one or choose another port",
    errno.EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address: see `ip address`",
}


def listen_error(listener: Listener, text: str, cause: BaseException | None) -> ListenError:
    """Say in one line why an endpoint could not listen, and what helps."""
    return ListenError(
        f"[listen {listener.name}] endpoint {text}: cannot listen: {_why_not(cause)}"
    )


def _why_not(cause: object) -> str:
    if isinstance(cause, CannotListenError):
        cause = cause.socketError
    if isinstance(cause, LookupError):
        return "no such socket was passed to this process: see the [Socket] unit and its FileDescriptorName"
    if not isinstance(cause, OSError) or cause.errno is None:
        return str(cause)
    hint = None if cause.strerror and ": " in cause.strerror else _HINTS.get(cause.errno)
    return f"{cause.strerror}; {hint}" if hint else str(cause.strerror)
