"""Opening the sockets that a rules file names."""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from txmux.errors import ListenError
from txmux.rules.reading.endpointstrings import SERVER, split_arguments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
    from twisted.python.failure import Failure

    from txmux.rules.model import Server
    from txmux.serving.listen_addresses import ListenAddress

_MOST_WAITING = 1 << 16

_log = Logger()


def server_endpoint(reactor: Any, text: str, backlog: int) -> IStreamServerEndpoint:
    """Make the endpoint for one line of ``endpoint =`` that only Twisted can open.

    Args:
        reactor: Opens the socket.
        text: Checked by the rules parser.
        backlog: Connections that may wait to be accepted, unless the text says otherwise.
    """
    from twisted.internet.endpoints import serverFromString  # noqa: PLC0415 - it imports all of TLS

    named: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(text, backlog))
    return named


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
            from twisted.internet.endpoints import clientFromString  # noqa: PLC0415 - it imports all of TLS

            try:
                clientFromString(reactor, server.text)
            except Exception as problem:
                raise ListenError(f"server {server.text} cannot be used: {problem}") from problem


def accept_waiting(port: IListeningPort) -> None:
    """Accept the clients that wait in the queue of a port, which is about to be closed."""
    any_port: Any = port
    waiting = select.poll()
    waiting.register(any_port.fileno(), select.POLLIN)
    # No more than can have waited: others may come all the time.
    for _ in range(_MOST_WAITING):
        if not waiting.poll(0):
            break
        any_port.doRead()


def stop_listening(port: IListeningPort) -> Deferred[None]:
    """Close a port, whatever comes in between: the others are to be closed cleanly all the same."""
    stop: Any = port.stopListening
    stopping: Deferred[None] = maybeDeferred(stop)
    return stopping.addErrback(_log_trouble)


def _log_trouble(failure: Failure) -> None:
    # A UNIX socket in a folder that belongs to root, of whom `user` has taken the rights.
    _log.warn("a listening socket cannot be tidied up: {why}", why=failure.getErrorMessage())


_HINTS = {
    errno.ENOENT: "its folder is not there: create it (systemd does by RuntimeDirectory=), or correct the path",
    socket.EAI_NONAME: "write an IP address; what follows a '%' is an interface of this machine: see `ip link`",
    errno.EADDRINUSE: "another program has it (ss -ltnp shows which): stop that one or choose another port",
    errno.EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address: see `ip address`; for one that it will have, 'freebind = yes'",
}


def listen_error(place: ListenAddress, cause: BaseException | None) -> ListenError:
    """Say in one line why an endpoint could not listen, and what helps."""
    key = "" if place.setting else "endpoint "
    why = _why_not(cause)
    if place.text.startswith("udp:"):
        why = why.replace("ss -ltnp", "ss -lunp")
    return ListenError(f"{place.section} {key}{place.text}: cannot listen: {why}")


def _why_not(cause: object) -> str:
    if isinstance(cause, CannotListenError):
        cause = cause.socketError
    if isinstance(cause, LookupError):
        return "no such socket was passed to this process: see the [Socket] unit and its FileDescriptorName"
    if not isinstance(cause, OSError) or cause.errno is None:
        return str(cause)
    hint = None if cause.strerror and ": " in cause.strerror else _HINTS.get(cause.errno)
    return f"{cause.strerror}; {hint}" if hint else str(cause.strerror)
