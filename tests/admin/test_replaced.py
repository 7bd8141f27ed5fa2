"""Requests while it is decided which process serves, and once another one does."""

from twisted.internet.task import deferLater

from tests.admin.asking import JSON, AdminCase, Told, request
from tests.support.peers import Peer, reactor

_BAN = request("POST", "/api/bans", JSON, b'{"network": "192.0.2.1"}')


class ReplacedTest(AdminCase):
    async def held(self) -> Peer:
        """Connect, and send a request that is not answered yet."""
        await self.start()
        peer = await self.connect()
        endpoints = self.running._resources.endpoints
        (clients,) = endpoints._clients.values()
        while not clients._channels:
            await deferLater(reactor, 0)
        endpoints.hold_requests()
        peer.send(_BAN)
        while not clients._held:
            await deferLater(reactor, 0)
        self.assertEqual(len(self.running.control.bans), 0)
        return peer

    async def test_this_process_goes_on(self) -> None:
        peer = await self.held()
        self.running._resources.endpoints.accept()
        await peer.is_lost()
        self.assertEqual(Told.of(bytes(peer.received)).status, 200)
        self.assertEqual(len(self.running.control.bans), 1)

    async def test_another_process_serves(self) -> None:
        peer = await self.held()
        endpoints = self.running._resources.endpoints
        endpoints.be_replaced()
        await peer.is_lost()
        told = Told.of(bytes(peer.received))
        self.assertEqual((told.status, told.headers["connection"]), (503, "close"))
        self.assertEqual(len(self.running.control.bans), 0)
        endpoints.accept()  # that one has ended
        self.assertEqual((await self.send(_BAN)).status, 200)
