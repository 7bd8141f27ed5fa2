import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.error import ConnectionRefusedError as TwistedRefused
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.backends.pool.pools import Watched, servers
from tests.support.kit import change_constants, free_port, reactor
from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.dial import Dialler, reason_of
from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.net.header_first import HeaderFirst
from txmux.net.sockets import plainsocket
from txmux.net.sockets.plainsocket import SocketOption
from txmux.net.sockets.poller import Poller, ReactorPoller
from txmux.rules.reading.endpoints import server


class ReasonTest(SynchronousTestCase):
    def test_reasons(self) -> None:
        no_port = (99, "Cannot assign requested address")
        for problem, reason in (
            (ConnectError(string=Failure(ConnectionDone())), "^the connection was closed$"),
            (ConnectError(113, "No route to host"), "^no route to host$"),
            (ConnectError(*no_port), "more addresses in source have more ports"),
            (OSError(*no_port), "more addresses in source have more ports"),
            (ConnectError(99, "10.0.0.1 is not an address of this machine"), "is not an address of this machine"),
        ):  # fmt: skip
            self.assertRegex(reason_of(Failure(problem)), reason)


class EndpointTest(TestCase):
    async def test_half_close(self) -> None:
        """A server that has finished sending still reads, also where an endpoint string of Twisted's leads to it, or a socket has begun."""
        listening = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        place = "{}:{}".format(*listening.getsockname())
        begun = socket.socket()
        begun.setblocking(False)  # noqa: FBT003 - the socket module's signature
        begun.connect_ex(listening.getsockname())
        ways: tuple[tuple[str, dict[str, Any]], ...] = (
            (place, {"begun": begun}), (f"tcp:{place}:timeout=60", {}),
        )  # fmt: skip
        for text, options in ways:
            connected: Deferred[ProxyClient] = Deferred()
            factory = ProxyClientFactory(connected.callback, connected.errback)
            factory.connect(Dialler.of(reactor), server(text), 60, **options)
            end = await connected
            its, _ = listening.accept()
            self.addCleanup(its.close)
            self.assertEqual(end.transport.getHost().port, its.getpeername()[1])
            events: DeferredQueue[str] = DeferredQueue()
            receiver: Any = SimpleNamespace(
                peer_finished=lambda events=events: events.put("finished"),
                connection_lost=lambda _, events=events: events.put("lost"),
            )
            end.receiver = receiver
            its.shutdown(socket.SHUT_WR)
            self.assertEqual(await events.get(), "finished")
            end.transport.loseConnection()
            self.assertEqual(await events.get(), "lost")

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


class CongestionTest(TestCase):
    skip = None if hasattr(socket, "TCP_CONGESTION") else "it needs Linux"

    def options(self, to: str, default: str = "bbr") -> tuple[SocketOption, ...]:
        file = Path(self.mktemp())
        file.write_text(f"{default}\n")
        change_constants(self, plainsocket, _SYSTEM_CONGESTION=file)
        return Watched(*servers(to)).members[0].options

    def test_chosen(self) -> None:
        reno = ((socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"),)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", 9))  # a machine without a network has no other address
            with contextlib.suppress(OSError):
                probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
        for near in ("127.0.0.1:80", "127.1.2.3:80", "[::1]:80", f"{own}:80"):
            self.assertEqual(self.options(near), reno)
            self.assertEqual(self.options(near, default="cubic"), ())
        for near in ("192.0.2.1:80", "[2001:db8::1]:80", "unix:/run/x.sock", "{local}:80"):
            self.assertEqual(self.options(near), ())
        change_constants(self, plainsocket, _SYSTEM_CONGESTION=Path(self.mktemp()))
        self.assertEqual(Watched(*servers("127.0.0.1:80")).members[0].options, ())

    async def test_connected(self) -> None:
        listening = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        plan = ServerSocketPlan(self.options("127.0.0.1:80"))
        for poller in (Poller.for_reactor(reactor), ReactorPoller(reactor)):
            connected: Deferred[ProxyClient] = Deferred()
            factory = ProxyClientFactory(connected.callback, connected.errback)
            to = server(f"127.0.0.1:{listening.getsockname()[1]}")
            factory.connect(Dialler(reactor, reactor, poller, sockets=plan), to, 60)
            end = await connected
            its: Any = end.transport.getHandle()
            name = its.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            self.assertEqual(name.rstrip(b"\0"), b"reno")
            lost: Deferred[None] = Deferred()
            end.connectionLost = lambda *_, lost=lost: lost.callback(None)  # type: ignore[method-assign]
            end.transport.abortConnection()
            await lost
