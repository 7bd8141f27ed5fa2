"""A listening port and the listener it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from twisted.internet.protocol import ServerFactory
from typing_extensions import override

from txmux.serving.endpoints import stop_listening

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress

    from txmux.rules.model import Keepalive, Listener
    from txmux.tcp.connection import MuxProtocol
    from txmux.tcp.listener import MuxFactory


class Forwarding(ServerFactory):
    """Stands for a listener at a port that Twisted opens, and that has one factory for good.

    Attributes:
        to: The listener; without one, clients are closed.
    """

    noisy = False
    to: MuxFactory | None = None

    def forward_to(self, to: MuxFactory) -> None:
        """Give the next clients to this listener."""
        before, self.to = self.to, to
        if self.numPorts and before is not to:
            to.doStart()
            if before is not None:
                before.doStop()

    @override
    def buildProtocol(self, addr: IAddress | None) -> MuxProtocol | None:
        return None if self.to is None else self.to.buildProtocol(addr)

    def startFactory(self) -> None:
        """Start the listener."""
        if self.to is not None:
            self.to.doStart()

    def stopFactory(self) -> None:
        """Stop the listener."""
        if self.to is not None:
            self.to.doStop()


@attrs.define
class ListeningPort:
    """One port.

    Attributes:
        port: Accepts the clients.
        factory: The listener that they are led to.
        keepalive: What its connections inherit.
        forwarding: What leads them there, if Twisted has opened the port.
        is_open: Whether it accepts them, and does not leave them in the queue.
        is_for_datagrams: Whether it is a port of UDP.
    """

    is_for_datagrams: ClassVar[bool] = False

    port: Any
    factory: MuxFactory
    keepalive: Keepalive | None
    forwarding: Forwarding | None = None
    is_open: bool = True

    def suits(self, factory: MuxFactory, listener: Listener) -> bool:
        return self.factory is factory and self.keepalive == listener.keepalive

    def forward_to(self, factory: MuxFactory) -> None:
        """Give the next clients to a listener, which it suits."""
        if self.forwarding is not None:
            self.forwarding.forward_to(factory)
            self.factory = factory

    def stop(self, *, is_left: bool = False) -> Deferred[None]:  # noqa: ARG002 - connections have sockets of their own
        """Close the port.

        Args:
            is_left: Whether another process has the same socket.
        """
        return stop_listening(self.port)

    def let_in(self, *, is_let_in: bool) -> None:
        """Say whether clients are let in that have no flow yet."""

    def listen_again(self, factory: MuxFactory) -> bool:  # noqa: ARG002 - as for `stop`
        """Lead clients to a listener, after `stop`, if the port could not be closed yet; tell whether that is so."""
        return False

    def await_flows(self, *, on: bool) -> None:
        """Say whether flows of unknown clients may come from another process."""

    def open(self) -> None:
        self.port.startReading()

    def shut(self) -> None:
        self.port.stopReading()
