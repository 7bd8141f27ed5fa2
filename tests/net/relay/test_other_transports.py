import socket
from contextlib import closing
from functools import cache, partial
from typing import Any

from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.reactors import PrivateReactor
from tests.net.relay.wiring import unsent
from tests.support.kit import MuxTestCase, make_authority
from tests.support.peers import Peer, listen_tls, reactor
from txmux.net.relay.peers import Peer as NetPeer
from txmux.net.relay.transport_end import TransportEnd
from txmux.net.sockets.poller import READ, WRITE, ReactorPoller
from txmux.rules.embedding import route
from txmux.rules.model import Backend
from txmux.rules.reading.endpoints import server
from txmux.testing import WaterMarkTransport


@cache
def certificate() -> CertificateOptions:
    options: CertificateOptions = make_authority("localhost", "localhost").private().options()
    return options


class TransportEndTest(SynchronousTestCase):
    def test_half_close_that_takes_a_while(self) -> None:
        """Who waits for it is told when it is done; before, nothing more is read as long as something waits."""
        private = self.enterContext(closing(PrivateReactor("select")))
        transport, seen = WaterMarkTransport(), list[int]()
        transport.connect(NetPeer())
        end = TransportEnd(transport, ReactorPoller(private.reactor))
        end.watch(-1, 0, seen.append)
        end.data_received(b"waits")
        end.change(-1, READ)
        private.turn()
        self.assertEqual(({*seen}, transport.paused, end.recv(9)), ({READ}, True, b"waits"))
        end.change(-1, READ)
        private.turn()
        self.assertEqual(({*seen}, transport.paused), ({READ}, False))
        seen.clear()
        end.pauseProducing()  # it is full
        end.change(-1, WRITE)
        private.turn()
        self.assertEqual(seen, [])
        end.resumeProducing()
        self.assertRaises(BlockingIOError, end.shutdown, socket.SHUT_WR)
        private.turn()
        end.write_finished()
        self.assertEqual(seen, [WRITE] * 2)
        end.shutdown(socket.SHUT_WR)
        end.data_received(b"nobody's")
        end.shutdown(socket.SHUT_RD)
        self.assertEqual(end.recv(9), b"")


class TlsServerTest(MuxTestCase):
    async def relayed(self) -> tuple[Peer, Peer]:
        text = f"ssl:127.0.0.1:{listen_tls(self, self.backend, certificate())}"
        # Times of the real clock, in which nothing here must end.
        times = {"connect_timeout": 600, "unanswered_timeout": 600}
        backend = Backend("secure", (server(text),), **times)  # type: ignore[arg-type]
        routes = [route("any", backend)]
        client = await self.connect(
            self.mux(routes, reactor=reactor, detect_timeout=600), b"question"
        )
        peer = await self.backend.heard(8)
        await peer.tell(client, b"answer")
        return client, peer

    async def test_ends_are_passed_on(self) -> None:
        for is_server, end, reason in self.anew((
            (True, Peer.close, "done"), (False, Peer.finish, "done"),
            (True, Peer.reset, "server-reset"), (False, Peer.reset, "client-reset"),
        )):  # fmt: skip
            client, peer = await self.relayed()
            connection: Any = self.only()  # what is unsent cannot be known
            self.assertEqual(unsent(connection.stage.relay.server.transport), 0)
            sender, other = (peer, client) if is_server else (client, peer)
            await self.is_gone(other, partial(end, sender))
            self.assertEqual(other.was_reset(), end is Peer.reset)
            await client.is_lost()
            await self.assert_logged(reason=reason, bytes_in=8, bytes_out=6)

    async def test_tls_on_both_sides(self) -> None:
        plain, peer = await self.relayed()
        await plain.is_lost(peer.close)
        await self.logged()
        outer = listen_tls(self, self.factory, certificate())
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", outer, CertificateOptions())
        client: Peer = await connectProtocol(endpoint, Peer())
        client.send(b"question")
        peer = await self.backend.heard(8, 1)
        await client.is_lost(peer.close)
        self.assertFalse(client.was_reset())
        self.assert_story(await self.logged(2), reason="done")
