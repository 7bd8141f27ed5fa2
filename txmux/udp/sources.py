"""Which address and port of this machine, or of the client, a server sees."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import attrs

from txmux.backends.connect.source import Ports
from txmux.net.sockets.client import IN_USE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.backends.connect.source import Source, Sources
    from txmux.wire.proxyprotocol.header import Address


def bind_for(server: socket.socket, sources: Sources, host: str, client: Address) -> None:
    """Bind a socket to the source address that the rules name.

    Args:
        server: The socket to it.
        sources: The addresses.
        host: The server's own.
        client: The client's.

    Raises:
        ConnectBindError: None of them goes with the server.
        OSError: None of them can be had.
    """
    problem = None
    for source in sources.towards(host, client):
        for one in _tries(source, client):
            try:
                _bind(server, one)
            except OSError as failed:  # noqa: PERF203 - another port or address may do
                problem = problem or failed
                if failed.errno != errno.EADDRINUSE:
                    break
            else:
                return
    if problem is not None:
        raise _explained(problem)


def _tries(source: Source, client: Address) -> Iterator[Source]:
    """Yield what is worth trying: of a client's own address its port first, by which servers of QUIC tell connections apart."""
    if source.transparent:
        yield attrs.evolve(source, ports=Ports(range(client.port, client.port + 1)))
    for _ in range(source.tries):
        yield source


def _bind(server: socket.socket, source: Source) -> None:
    """Bind a socket to a port that no other flow has: what a server answers that one would come here.

    A client on this machine may share its own port, if it allows that.
    """
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, source.transparent)
    try:
        source.bind(server)
    finally:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _explained(problem: OSError) -> OSError:
    return OSError(problem.errno, IN_USE) if problem.errno == errno.EADDRINUSE else problem
