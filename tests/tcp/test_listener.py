import socket
import ssl
from ipaddress import ip_network
from unittest.mock import Mock

from twisted.internet.threads import deferToThread

from tests.net.relay.test_other_transports import certificate
from tests.support.mux import MuxTestCase
from tests.support.peers import connect, listen, listen_tls, reactor
from txmux.rules.embedding import route
from txmux.rules.model import Clients, Listener, NetworkSet
from txmux.tcp.listener import MuxFactory
from txmux.tcp.stages.turning_away import Closing


def networks(*texts: str) -> NetworkSet:
    return NetworkSet(map(ip_network, texts))


class ListenerTest(MuxTestCase):
    async def test_allow_and_deny(self) -> None:
        here, other = networks("127.0.0.0/8"), networks("10.0.0.0/8")
        for clients, reason in self.anew((
            (Clients(excluded=here), "denied"), (Clients(other), "denied"),
            (Clients(here, here), "denied"), (Clients(here, other), "no-route"),
        )):  # fmt: skip
            client = await self.connect(self.mux(clients=clients))
            if reason != "denied":
                client.send(b"x")
            record = await self.assert_ended(client, reason=reason)
            self.assertEqual(record.bytes_in, reason != "denied")
            self.assertTrue((record.local or "").startswith("127.0.0.1:"))
            self.assertEqual(self.factory.connections, set())

    async def test_access_log_is_optional(self) -> None:
        factory = MuxFactory((), Listener("x", clients=Clients(excluded=networks("127.0.0.0/8"))))
        client = await connect(self, listen(self, factory))
        await client.is_lost()
        self.assertIs(factory.runtime.reactor, reactor)

    async def test_connection_that_raises_at_its_end_is_aborted(self) -> None:
        port = self.mux([route("ssh", "close")])
        for _ in range(2):
            (await self.connect(port)).send(b"SS")
        while sum(connection.record.bytes_in for connection in self.factory.connections) < 4:
            await self.turn()
        broken = min(self.factory.connections, key=lambda c: c.record.id)
        self.patch(broken, "advance", None)
        emptied = self.factory.emptied()
        self.factory.abort("drained")
        await emptied
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        await self.turn(5)
        self.factory.drop_idle_timers()
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    async def test_access_log_that_raises_loses_its_line_alone(self) -> None:
        self.patch(self.log, "write", Mock(side_effect=ZeroDivisionError))
        await self.connect_until_lost(self.mux(), b"x")
        await self.factory.emptied()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_client_without_close_notify_is_not_awaited_forever(self) -> None:
        self.mux()
        port = listen_tls(self, self.factory, certificate())
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", port))
        secure = await deferToThread(context.wrap_socket, plain)
        self.addCleanup(secure.close)
        secure.sendall(b"x")
        while not any(isinstance(one.stage, Closing) for one in self.factory.connections):
            await self.turn()
        await self.assert_waits(5)
        await self.assert_logged(reason="no-route")
