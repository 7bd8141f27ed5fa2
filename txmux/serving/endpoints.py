"""Endpoints that Twisted opens, and the errors of sockets that cannot be opened."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.client.active_listener import ActiveListener
from txmux.errors import ListenError, cause_of
from txmux.files import on_disk
from txmux.net.addresses import text_of
from txmux.net.sockets.plainsocket import admit_none, has_interface
from txmux.rules.lint.privileges import (
    CANNOT_LISTEN,
    LATER,
    NO_ADDRESS,
    named_servers,
    no_interface,
    no_socket,
)
from txmux.rules.model import Listener, Rules, Server
from txmux.rules.problems import Problem
from txmux.rules.reading.endpoints import files_of, parse_endpoint
from txmux.rules.reading.endpointstrings import SERVER, ports_text, split_arguments
from txmux.serving.listen_addresses import BACKLOG, ListenAddress, listen_addresses

OpenedPorts: TypeAlias = "dict[str, tuple[IListeningPort, ForwardingFactory]]"
"""Ports and their factories by the keys of their addresses."""

_MOST_WAITING = 1 << 16
_LAST = 64
"""Reads of a UNIX socket that was shut down when its queue was empty, or nearly; each accepts several clients."""
_SHUT: int = getattr(select, "POLLRDHUP", 0)

_log = Logger()


def server_endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    from twisted.internet.endpoints import serverFromString  # noqa: PLC0415 - it imports all of TLS

    named: IStreamServerEndpoint = serverFromString(reactor, with_backlog(text))
    return named


def with_backlog(text: str) -> str:
    """Add the backlog to an endpoint string that may have one and has none."""
    arguments = split_arguments(text)
    form = SERVER.get(arguments.kind.lower())
    if form is None or "backlog" not in form.names or "backlog" in arguments.named:
        return text
    if len(arguments.positional) > form.names.index("backlog"):
        return text
    return f"{text}:backlog={BACKLOG}"


class ForwardingFactory(ServerFactory):
    """Passes the clients of a port that Twisted has opened, whose factory cannot change, to a listener.

    Attributes:
        to: The listener; until there is one, clients are closed.
    """

    noisy = False
    to: ServerFactory | None = None

    def forward_to(self, to: ActiveListener) -> None:
        assert isinstance(to, ServerFactory)  # noqa: S101 - Twisted opens no ports for datagrams
        before, self.to = self.to, to
        if self.numPorts and before is not to:
            to.doStart()
            if before is not None:
                before.doStop()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:  # Twisted's type for it is private
        return None if self.to is None else self.to.buildProtocol(addr)

    def startFactory(self) -> None:
        if self.to is not None:
            self.to.doStart()

    def stopFactory(self) -> None:
        if self.to is not None:
            self.to.doStop()


async def open_ports(
    reactor: Any,
    listeners: Iterable[Listener],
    is_open: Callable[[str], object] = lambda _: None,
    lacking: list[str] | None = None,
) -> OpenedPorts:
    """Open the ports of endpoints that are not plain, unless they are open.

    If one cannot be opened, none is left open; with `lacking`, the reason is added there, and the others are opened.
    """
    opened: OpenedPorts = {}
    for listener in listeners:
        for address in listen_addresses(listener):
            if address.is_socket or is_open(address.key):
                continue
            forwarding = ForwardingFactory()
            try:
                for file in files_of(SERVER, address.text).values():
                    with on_disk(file):
                        pass  # it answers, or else `check_disks` has found that it does not
                endpoint = server_endpoint(reactor, address.text)
                port = await endpoint.listen(forwarding)
            except Exception as problem:
                if lacking is not None:
                    lacking.append(str(listen_error(address, problem)))
                    _log.error("{why}", why=lacking[-1])
                    continue
                for opened_port, _ in opened.values():
                    await stop_listening(opened_port)
                raise listen_error(address, problem) from problem
            opened[address.key] = port, forwarding
            _log.info(
                "listening on {address} for [listen {name}]",
                address=text_of(port.getHost()),
                name=listener.name,
            )
    return opened


def check_servers(reactor: Any, servers: Iterable[Server]) -> None:
    """Make the endpoints of servers that are named by endpoint strings, to find errors: that reads the files they name."""
    for server in servers:
        if server.kind == "endpoint":
            from twisted.internet.endpoints import clientFromString  # noqa: PLC0415 - it imports all of TLS

            try:
                clientFromString(reactor, server.text)
            except Exception as problem:
                why = cause_of(problem)
                raise ListenError(f"server {server.text} cannot be used: {why}") from problem


def unusable_servers(reactor: Any, rules: Rules) -> Iterator[Problem]:
    """Yield why endpoint strings name no servers."""
    for section, key, number, server in named_servers(rules):
        if isinstance(server, Server):
            try:
                check_servers(reactor, [server])
            except ListenError as problem:
                yield section.problem(str(problem), key, number)


def accept_waiting(port: IListeningPort) -> None:
    any_port: Any = port
    # Twisted has closed it, since another process has shut the socket down.
    if any_port.fileno() < 0:
        return
    waiting = select.poll()
    waiting.register(any_port.fileno(), select.POLLIN | _SHUT)
    # Bounded by the longest queue, since further clients may come all the time.
    left = _MOST_WAITING
    # After a shutdown by another process, poll reports a hang-up.
    while left and (events := waiting.poll(0)) and events[0][1] & select.POLLIN:
        # Of a UNIX socket, the queue stays, and poll always says that clients wait.
        if events[0][1] & _SHUT:
            left = min(left, _LAST)
        left -= 1
        any_port.doRead()


def accept_last(port: IListeningPort, *, for_good: bool = False) -> None:
    """Accept all clients that wait, and let the system refuse others from then on, at this socket in all processes.

    Otherwise the system would accept those who come until another process shuts the socket down, and then cut them. If this is `for_good`,
    it does so to none; or else one that comes in between is cut.
    """
    any_port: Any = port
    if any_port.fileno() >= 0:
        with socket.socket(fileno=os.dup(any_port.fileno())) as listening, suppress(OSError):
            if for_good:
                admit_none(listening)
            accept_waiting(port)
            listening.shutdown(socket.SHUT_RD)  # another worker may have done so
        accept_waiting(port)


def stop_listening(port: IListeningPort) -> Deferred[None]:
    """Close a port; an error is logged, so that others are closed, too."""
    stop: Any = port.stopListening
    stopping: Deferred[None] = maybeDeferred(stop)
    return stopping.addErrback(_log_trouble)


def _log_trouble(failure: Failure) -> None:
    # The folder of a UNIX socket may belong to root, whose privileges were dropped for `user`.
    _log.warn("a listening socket cannot be removed: {why}", why=failure.getErrorMessage())


_HINTS = {
    errno.ENOENT: "its folder is not there: create it, or correct the path",
    socket.EAI_NONAME: "write an IP address",
    errno.EADDRINUSE: "another program has it (ss -ltnp shows which): stop that one or choose another port",
    errno.EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
    errno.EMFILE: "until old endpoints are closed, they take descriptors beside the new ones: raise the limit (LimitNOFILE=, ulimit -n), or restart txmux",
}
_IN_USE_FOR_UDP = (
    _HINTS[errno.EADDRINUSE],
    _HINTS[errno.EADDRINUSE].replace("ss -ltnp", "ss -lunp")
    + "; an old worker of txmux keeps it until its flows there have ended",
)


def listen_error(
    address: ListenAddress, cause: BaseException | None, ports: Sequence[int] = ()
) -> ListenError:
    """Describe why there is no socket at an address, or at some of the ports of its line."""
    why = why_no_socket(address, cause, ports)
    key = "" if address.setting else " endpoint"
    return ListenError(f"{address.section}{key}: {CANNOT_LISTEN} {address.line}: {why}")


def why_no_socket(
    address: ListenAddress, cause: BaseException | None, ports: Sequence[int] = ()
) -> str:
    why = _reason(address, cause)
    if address.text.startswith("unix:"):
        why = why.replace(
            _HINTS[errno.EACCES], "let the user that txmux runs as write to its folder"
        )
    if address.text.startswith("udp:"):
        why = why.replace(*_IN_USE_FOR_UDP)
    if address.ports:
        why = f"{ports_text(ports or [address.port])}: {why}"
    return why


def _reason(address: ListenAddress, cause: BaseException | None) -> str:
    """Say what `txmux check` does, where that could see it, too."""
    if isinstance(cause, CannotListenError):
        cause = cause.socketError
    number = cause.errno if isinstance(cause, OSError) else None
    if number == errno.EADDRNOTAVAIL:
        return NO_ADDRESS if address.setting else f"{NO_ADDRESS}{LATER}"
    if number in {errno.ENOENT, errno.EEXIST} and address.kind == "unix":
        found = no_socket(Path(address.key.removeprefix("unix:")))
        return found[0] if found else why_not(cause)
    if address.kind == "systemd":
        return why_not(cause)
    return no_interface(parse_endpoint(address.text).host, has_interface) or why_not(cause)


def why_not(cause: object) -> str:
    """Describe an error of a listening socket, and what to do."""
    if isinstance(cause, LookupError):
        return "no such socket was passed to this process: see the [Socket] unit and its FileDescriptorName"
    if not isinstance(cause, OSError) or cause.errno is None:
        return str(cause)
    hint = None if cause.strerror and ": " in cause.strerror else _HINTS.get(cause.errno)
    return f"{cause.strerror}; {hint}" if hint else str(cause.strerror)
