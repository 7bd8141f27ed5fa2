"""The portable relay keeps the relays' contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.net.relay.contract import OrderContract, ResetContract
from tests.net.relay.wiring import LeanTcpWiring, UnixWiring, portable_sides
from tests.support.peers import reactor

if TYPE_CHECKING:
    from tests.net.relay.wiring import Sides, Wiring
    from txmux.net.relay.ends import End


class _Portable:
    def make_sides(self, _clock: object, client: End, server: End) -> Sides:
        return portable_sides(client, server)


class PortableRelayTest(_Portable, OrderContract, ResetContract, TestCase):
    """Over TCP sockets of Twisted's."""

    async def test_endings_in_one_turn(self) -> None:
        client, server = await self.start()
        server.transport.pauseProducing()
        size = 1024 * 1024
        client.send(bytes(size))
        relayed: Any = self.relay
        while relayed._client.received < size:
            await deferLater(reactor, 0)
        client.reset()
        while not relayed._client.is_closed:
            await deferLater(reactor, 0)
        self.ends[1].readConnectionLost()
        server.transport.resumeProducing()
        result = await self.over(server)
        self.assertEqual(len(server.received), size)
        self.assertTrue(server.was_reset())
        self.assertEqual(result.reason, "client-reset")


class PortableUnixTest(_Portable, OrderContract, TestCase):
    """Over UNIX sockets of Twisted's."""

    def make_wiring(self) -> Wiring:
        return UnixWiring(reactor, self)


class PortableLeanTest(_Portable, OrderContract, ResetContract, TestCase):
    """Over TCP sockets that the reactor does not serve."""

    def make_wiring(self) -> Wiring:
        return LeanTcpWiring(reactor)
