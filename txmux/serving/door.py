"""Where clients come in, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.protocol import ServerFactory
from typing_extensions import override

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from txmux.frontend.connection import MuxProtocol
    from txmux.frontend.listener import MuxFactory
    from txmux.rules.model import Keepalive


class Forwarding(ServerFactory):
    """Stands for a listener at a port that Twisted opens, and that has one factory for good.

    Attributes:
        to: The listener; without one, clients are closed.
    """

    noisy = False
    to: MuxFactory | None = None

    def lead(self, to: MuxFactory) -> None:
        """Let the next clients be those of this listener."""
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
class Door:
    """One port.

    Attributes:
        port: Accepts the clients.
        factory: The listener that they are led to.
        keepalive: What its connections inherit.
        forwarding: What leads them there, if Twisted has opened the port.
    """

    port: Any
    factory: MuxFactory
    keepalive: Keepalive | None
    forwarding: Forwarding | None = None
