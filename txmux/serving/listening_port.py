"""A listening port and the listener it belongs to."""

import os
import socket
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import Deferred

from txmux.client.active_listener import ActiveListener
from txmux.client.socket_options import socket_options
from txmux.net.sockets.plainsocket import SocketOption
from txmux.rules.model import Listener
from txmux.serving.endpoints import ForwardingFactory, stop_listening


@attrs.define
class ListeningPort:
    """A TCP port.

    Attributes:
        options: All options of its socket; if a reload changes one, the port is replaced.
        forwarding: Passes clients to the listener, if Twisted has opened the port.
        is_open: Whether it accepts clients, and does not leave them in the queue.
    """

    is_for_datagrams: ClassVar[bool] = False

    port: Any
    listener: ActiveListener
    options: Sequence[SocketOption] = ()
    forwarding: ForwardingFactory | None = None
    is_open: bool = True

    def can_serve(self, listener: ActiveListener, settings: Listener) -> bool:
        return self.listener is listener and self.options == socket_options(settings)

    def forward_to(self, listener: ActiveListener) -> None:
        """Pass the next clients to a listener that it can serve."""
        if self.forwarding is not None:
            self.forwarding.forward_to(listener)
            self.listener = listener

    def duplicate(self) -> socket.socket:
        duplicate = socket.socket(fileno=os.dup(self.port.fileno()))
        duplicate.setblocking(False)  # noqa: FBT003 - the socket module's signature
        return duplicate

    def close_port(self, *, is_left: bool = False) -> Deferred[None]:  # noqa: ARG002 - connections have sockets of their own
        return stop_listening(self.port)

    def admit_new(self, *, is_admitted: bool) -> None:
        """Set whether new flows are accepted."""

    def listen_again(self, listener: ActiveListener) -> bool:  # noqa: ARG002 - as for `close_port`
        """Reopen the port after `close_port`, if it still has flows; return whether it does."""
        return False

    def await_flows(self, *, on: bool) -> None:
        """Set whether flows of unknown clients may arrive from another process."""
