from tests.support.mux import MuxTestCase
from tests.support.peers import PeerFactory, reactor
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Server


class AskedPortTest(MuxTestCase):
    async def test_address_with_the_port_of_the_client(self) -> None:
        backend = Backend("backend", (Server("127.0.0.2:{port}", "tcp", host="127.0.0.2"),))
        port = self.mux([route("any", backend)])
        self.backend = PeerFactory()
        listening = reactor.listenTCP(port, self.backend, interface="127.0.0.2")
        self.addCleanup(listening.stopListening)
        await self.connect(port, b"x")
        await self.backend.heard(1)
