"""Which address and port of this machine, or of the client, a server sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.backends.connect.source import Ports

if TYPE_CHECKING:
    import socket

    from txmux.backends.connect.source import Source, Sources
    from txmux.proxyprotocol.header import Address


def bind_for(server: socket.socket, sources: Sources, host: str, client: Address) -> None:
    """Have a server see an address that the rules name.

    Args:
        server: The socket to it.
        sources: The addresses.
        host: The server's own.
        client: The client's.

    Raises:
        ConnectBindError: None of them goes with the server.
        OSError: None of them can be had.
    """
    problems = []
    for source in sources.towards(host, client):
        try:
            _with_port(source, client).bind(server)
        except OSError as problem:  # noqa: PERF203 - another address may do
            problems.append(problem)
        else:
            return
    if problems:
        raise problems[0]


def _with_port(source: Source, client: Address) -> Source:
    """Have a client's own address keep its port, by which servers of QUIC tell connections apart."""
    if not source.transparent:
        return source
    return attrs.evolve(source, ports=Ports(range(client.port, client.port + 1)))
