"""Makes the endpoint string ``txmux:/run/x.sock`` known; imports nothing heavy, since every ``twist`` command reads it."""

from importlib import import_module
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _Parser:
    """For servers that take the sockets which txmux hands over."""

    prefix = "txmux"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        """Make the endpoint."""
        return import_module("txmux.adopt").AdoptingEndpoint.parsed(reactor, *args, **kwargs)


adopting = _Parser()
