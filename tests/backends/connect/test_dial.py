"""What is said of a server that could not be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.error import ConnectionRefusedError as TwistedRefused
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.peers import reactor
from tests.support.ports import free_port
from txmux.backends.connect.client import ProxyClientFactory
from txmux.backends.connect.dial import reason_of
from txmux.net.header_first import HeaderFirst

if TYPE_CHECKING:
    from collections.abc import Callable


class ReasonTest(SynchronousTestCase):
    """`reason_of`."""

    def test_lost_while_connecting(self) -> None:
        lost = Failure(ConnectError(string=Failure(ConnectionDone())))
        self.assertEqual(reason_of(lost), "the connection was closed")

    def test_cause_is_said_once(self) -> None:
        refused = Failure(ConnectError(113, "No route to host"))
        self.assertEqual(reason_of(refused), "no route to host")

    def test_no_port(self) -> None:
        for problem in (
            ConnectError(99, "Cannot assign requested address"),
            OSError(99, "Cannot assign requested address"),
        ):
            self.assertIn("more addresses in source have more ports", reason_of(Failure(problem)))
        gone = Failure(ConnectError(99, "10.0.0.1 is not an address of this machine"))
        self.assertIn("is not an address of this machine", reason_of(gone))


class ItselfTest(TestCase):
    """A port that nobody listens at, by way of the reactor's own sockets."""

    timeout = 300

    async def test_refused_whatever_is_sent_first(self) -> None:
        options, timeout = CertificateOptions(), 60
        wraps: tuple[Callable[[Any], Any], ...] = (
            lambda factory: factory,
            lambda factory: HeaderFirst(factory, b"PROXY UNKNOWN\r\n"),
            lambda factory: TLSMemoryBIOFactory(options, isClient=True, wrappedFactory=factory),
        )
        for wrap in wraps:
            port = free_port()
            waiting: Deferred[object] = Deferred()
            factory = wrap(ProxyClientFactory(waiting.callback, waiting.errback))
            reactor.connectTCP("127.0.0.1", port, factory, timeout, ("127.0.0.1", port))
            with self.assertRaises(TwistedRefused) as caught:
                await waiting
            self.assertIn("nothing listens there", str(caught.exception))
