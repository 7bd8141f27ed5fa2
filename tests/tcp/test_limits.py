from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import Peer, connect, make_stalled_port
from txmux.rules.embedding import route


class PerSourceTest(MuxTestCase):
    async def client(self, port: int, count: int = 0) -> Peer:
        """Connect one, and wait until so many in all are served."""
        peer = await connect(self, port, source="127.0.0.2")
        await self.accepted(count)
        return peer

    async def assert_refused(self, port: int) -> None:
        count = len(self.records)
        refused = await self.client(port)
        await refused.is_lost()
        self.assertEqual(bytes(refused.received), b"")
        record = await self.assert_logged(count + 1, reason="limit", route=None, bytes_in=0)
        self.assertTrue(record.client.startswith("127.0.0.2:"))

    async def test_recognised_connections_leave_the_undecided_limit(self) -> None:
        """Also that of a client that waits for a server."""
        for server in self.anew((self.backend_port(), make_stalled_port(self))):
            port = self.mux([route("ssh", backend_at(server))], max_undecided_per_source=1)
            first = await self.client(port, 1)
            await self.assert_refused(port)
            first.send(b"SSH-2.0-x\r\n")
            await self.seen(11)
            silent = await self.client(port, 2)
            await self.assert_refused(port)
            silent.close()
            await self.logged(3)
            await self.client(port, 2)
            self.factory.abort("drained")
            await self.logged(5)

    async def test_every_kind_of_end_frees_the_source(self) -> None:
        port = self.mux(max_connections_per_source=1, max_undecided_per_source=1)
        for number, end in enumerate(
            [Peer.close, Peer.reset, lambda one: one.send(b"x"), Peer.finish], 1
        ):
            peer = await self.client(port, 1)
            end(peer)
            await self.logged(number)
        silent = await self.client(port, 1)
        self.time.advance(5)
        await silent.is_lost()
        await self.logged(5)
        await self.client(port, 1)
        self.factory.abort("drained")
        await self.logged(6)
        await self.client(port, 1)
