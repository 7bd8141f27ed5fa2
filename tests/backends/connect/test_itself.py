"""Connections to oneself, which are not to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as TwistedRefused
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from tests.support.peers import reactor
from tests.support.ports import free_port
from txmux.backends.connect.client import ProxyClientFactory
from txmux.net.header_first import HeaderFirst

if TYPE_CHECKING:
    from collections.abc import Callable


class ItselfTest(TestCase):
    """A port that nobody listens at, by way of the reactor's own sockets."""

    timeout = 300

    async def refused(self, wrap: Callable[[Any], Any] = lambda factory: factory) -> None:
        """Connect from the port that is connected to."""
        port = free_port()
        waiting: Deferred[object] = Deferred()
        factory = ProxyClientFactory(waiting.callback, waiting.errback)
        reactor.connectTCP("127.0.0.1", port, wrap(factory), 60, ("127.0.0.1", port))
        with self.assertRaises(TwistedRefused) as caught:
            await waiting
        self.assertIn("nothing listens there", str(caught.exception))

    async def test_plain(self) -> None:
        """It is refused."""
        await self.refused()

    async def test_with_header(self) -> None:
        """So it is when bytes go first, which come back."""
        await self.refused(lambda factory: HeaderFirst(factory, b"PROXY UNKNOWN\r\n"))

    async def test_tls(self) -> None:
        """So it is with TLS."""
        options = CertificateOptions()
        await self.refused(
            lambda factory: TLSMemoryBIOFactory(options, isClient=True, wrappedFactory=factory)
        )
