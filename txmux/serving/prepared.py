"""What a process will serve under other rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from txmux.backends.upstreams import PreparedUpstreams
    from txmux.net.tls.terminations import PreparedTerminations
    from txmux.rules.model import Rules
    from txmux.serving.opening import OpenedPorts
    from txmux.tcp.configuration import Configuration
    from txmux.tcp.listener import MuxFactory
    from txmux.telemetry.access_log import AccessLog

__all__ = ["Prepared"]


class _Serving(Protocol):
    def commit(self, prepared: Prepared, /, *, listening: bool) -> None: ...
    def abandon(self, prepared: Prepared, /) -> None: ...


@attrs.define
class Prepared:
    """What a `Serving` will be under other rules; ends by `commit` or `abandon`.

    Attributes:
        factories: What serves the listeners, in their order.
        configurations: What those become that there are already.
        places: What serves each place, by the place's key.
        reserved: Descriptors that ports will be given.
        ports: Those that Twisted has opened.
    """

    _serving: _Serving
    rules: Rules
    number: int
    sockets: Mapping[str, socket.socket]
    access_log: AccessLog | None
    upstreams: PreparedUpstreams
    terminations: PreparedTerminations
    factories: list[MuxFactory] = attrs.field(factory=list, init=False)
    configurations: dict[MuxFactory, Configuration] = attrs.field(factory=dict, init=False)
    places: dict[str, MuxFactory] = attrs.field(factory=dict, init=False)
    reserved: dict[str, socket.socket] = attrs.field(factory=dict, init=False)
    ports: OpenedPorts = attrs.field(factory=dict, init=False)

    def commit(self, *, listening: bool = True) -> None:
        """Accept the next clients under these rules; ports that are not needed are closed when nobody waits there.

        Args:
            listening: Whether any are accepted; otherwise the connections that there are go on until they end.
        """
        self._serving.commit(self, listening=listening)

    def abandon(self) -> None:
        """Leave everything as it was; the access log is the caller's to close."""
        self._serving.abandon(self)
