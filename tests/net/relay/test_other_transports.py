from functools import cache
from typing import Any

from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.ssl import CertificateOptions

from tests.net.relay.wiring import unsent
from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from tests.support.mux import MuxTestCase
from tests.support.peers import Peer, reactor
from txmux.rules.embedding import route
from txmux.rules.model import Backend
from txmux.rules.reading.endpoints import server


@cache
def certificate() -> CertificateOptions:
    options: CertificateOptions = make_authority("localhost", "localhost").private().options()
    return options


class TlsServerTest(MuxTestCase):
    async def relayed(self) -> tuple[Peer, Peer]:
        port = reactor.listenSSL(0, self.backend, certificate(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        text = f"ssl:127.0.0.1:{port.getHost().port}"
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

    async def test_server_closes(self) -> None:
        client, peer = await self.relayed()
        await client.is_lost(peer.close)
        self.assertFalse(client.was_reset())
        self.assert_story(await self.logged(), reason="done", bytes_in=8, bytes_out=6)

    async def test_client_finishes(self) -> None:
        client, peer = await self.relayed()
        await peer.is_lost(client.finish)
        self.assertFalse(peer.was_reset())
        await client.is_lost()
        self.assert_story(await self.logged(), reason="done")

    async def assert_reset_is_passed_on(self, sender: Peer, other: Peer, reason: str) -> None:
        await self.is_reset(other, sender.reset)
        self.assert_story(await self.logged(), reason=reason)

    async def test_server_resets(self) -> None:
        client, peer = await self.relayed()
        await self.assert_reset_is_passed_on(peer, client, "server-reset")

    async def test_client_resets(self) -> None:
        client, peer = await self.relayed()
        await self.assert_reset_is_passed_on(client, peer, "client-reset")

    async def test_tls_on_both_sides(self) -> None:
        plain, peer = await self.relayed()
        await plain.is_lost(peer.close)
        await self.logged()
        outer = reactor.listenSSL(0, self.factory, certificate(), interface="127.0.0.1")
        self.addCleanup(outer.stopListening)
        insecure = CertificateOptions()
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", outer.getHost().port, insecure)
        client: Peer = await connectProtocol(endpoint, Peer())
        client.send(b"question")
        peer = await self.backend.heard(8, 1)
        await client.is_lost(peer.close)
        self.assertFalse(client.was_reset())
        self.assert_story(await self.logged(2), reason="done")

    async def test_what_is_unsent_cannot_be_known(self) -> None:
        await self.relayed()
        (connection,) = self.factory.connections
        relay: Any = connection.stage
        self.assertEqual(unsent(relay.relay.server.transport), 0)


class UnixTest(MuxTestCase):
    async def test_half_close(self) -> None:
        folder = make_folder(self)
        path = str(folder / "backend")
        self.addCleanup(reactor.listenUNIX(path, self.backend).stopListening)
        backend = Backend("unix", (server(f"unix:{path}"),))
        client = await self.connect(self.mux([route("any", backend)]), b"question")
        client.finish()
        peer = await self.backend.peer()
        await peer.has_all()
        peer.send(b"answer")
        await client.has_all(peer.close)
        self.assertEqual((bytes(peer.received), bytes(client.received)), (b"question", b"answer"))
        client.close()
        self.assert_story(await self.logged(), reason="done", server=f"unix:{path}")
