"""How the sockets of a backend to its servers are made."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from txmux.backends.connect.source import Sources
from txmux.classes import frozen
from txmux.net.sockets.plainsocket import SocketOption, congestion_options
from txmux.rules.model import Backend, Server
from txmux.rules.reading.sections import TABLES

_ANY = Sources(())
_OPTIONS = [
    (key, row, *row.socket_option) for key, row in TABLES["backend"].items() if row.socket_option
]


@frozen(eq=False)
class ServerSocketPlan:
    """What all sockets of a backend have in common: a key that `of` reads holds for each of them.

    They are those of clients' connections, also to destinations by name and to a proxy, of checks and try-outs, and of flows of UDP.

    Attributes:
        options: What the backend's keys set on each of them but UNIX sockets; see `SectionKey.socket_option`.
        is_multipath: Whether connections are of Multipath TCP.
        sources: The local addresses.
    """

    options: tuple[SocketOption, ...] = ()
    is_multipath: bool = False
    sources: Sources = _ANY

    @classmethod
    def of(cls, backend: Backend) -> ServerSocketPlan:
        sources = Sources(backend.source) if backend.source else _ANY
        return cls(tuple(_options_of(backend)), backend.mptcp, sources)

    def options_for(self, server: Server) -> tuple[SocketOption, ...]:
        if server.kind == "tcp":
            return self.options + congestion_options(server.host)
        return self.options if server.kind == "udp" else ()


def _options_of(backend: Backend) -> Iterator[SocketOption]:
    for key, row, level, name in _OPTIONS:
        if value := row.value_in(backend, key):
            yield getattr(socket, level), getattr(socket, name), value
