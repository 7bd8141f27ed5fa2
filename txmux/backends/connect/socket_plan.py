"""How the sockets of a backend to its servers are made."""

from __future__ import annotations

from txmux.backends.connect.source import Sources
from txmux.classes import frozen
from txmux.net.sockets.plainsocket import SocketOption, congestion_options
from txmux.rules.model import Backend, Server

_ANY = Sources(())


@frozen(eq=False)
class ServerSocketPlan:
    """What all sockets of a backend have in common: a key that `of` reads holds for each of them.

    They are those of clients' connections, also to destinations by name and to a proxy, of checks and try-outs, and of flows of UDP.

    Attributes:
        options: What the backend's keys set on each of them but UNIX sockets.
        is_multipath: Whether connections are of Multipath TCP.
        sources: The local addresses.
    """

    options: tuple[SocketOption, ...] = ()
    is_multipath: bool = False
    sources: Sources = _ANY

    @classmethod
    def of(cls, backend: Backend) -> ServerSocketPlan:
        options: list[SocketOption] = []
        sources = Sources(backend.source) if backend.source else _ANY
        return cls(tuple(options), backend.mptcp, sources)

    def options_for(self, server: Server) -> tuple[SocketOption, ...]:
        if server.kind == "tcp":
            return self.options + congestion_options(server.host)
        return self.options if server.kind == "udp" else ()
