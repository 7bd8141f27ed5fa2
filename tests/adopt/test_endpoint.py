"""A Twisted server whose clients come from a multiplexer in the same process."""

import select
import socket
import stat
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.logger import capturedLogs
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.adopt.test_receiving import descriptors, without_descriptors
from tests.support.held import held_by
from tests.support.kit import MuxTestCase, backend_at, make_authority, make_folder
from tests.support.peers import Peer, PeerFactory, reactor
from tests.tcp.stages.test_reading_proxy_header import LINE, SENDERS
from txmux.adopt import AdoptedTransport, AdoptingEndpoint
from txmux.rules.embedding import route
from txmux.rules.model import Listener
from txmux.tcp.listener import MuxFactory

SSH = b"SSH-2.0-test\r\n"


class EndpointTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = make_folder(self) / "x.sock"
        self.path = str(self.file)

    async def serve(self, factory: Any, options: str = "", *, use: Any = reactor) -> Any:
        port = await serverFromString(use, f"txmux:{self.path}{options}").listen(factory)
        self.addCleanup(port.stopListening)
        return port

    def giving_mux(self, **settings: Any) -> int:
        return self.mux([route("ssh", f"handover:{self.path}", name="ssh")], **settings)

    async def handed_over(self, count: int = 1) -> None:
        self.assert_story(await self.logged(count), reason="handed-over")

    async def end(self, *peers: Peer) -> None:
        for peer in peers:
            if peer.lost is None:
                peer.close()
        for peer in peers:
            await peer.is_lost()

    async def test_served(self) -> None:
        """A protocol has the client's own connection from its first byte on, the true addresses, and the facts."""
        await self.serve(self.backend)
        port = self.giving_mux()
        client = await self.connect(port, SSH)
        server = await self.backend.heard(len(SSH))
        self.assertEqual(bytes(server.received), SSH)
        transport = server.transport
        self.assertIsInstance(transport, AdoptedTransport)
        self.assertEqual(transport.getPeer(), client.transport.getHost())
        self.assertEqual(transport.getHost(), IPv4Address("TCP", "127.0.0.1", port))
        told = transport.handed_over
        self.assertEqual((told.listener, told.route), ("public", "ssh"))
        self.assertEqual(told.facts, {"software": "test"})
        self.assertIn(told.id, repr(transport))
        await self.handed_over()
        self.assertEqual(self.records[0].id, told.id)
        server.send(b"x" * 100_000)
        await client.has(100_000)
        client.finish()
        await server.has_all()
        self.assertIsNone(server.lost)
        server.send(b"late")
        await client.has(100_004)
        await self.end(client, server)

    async def test_addresses(self) -> None:
        """Those of a client that a PROXY header names, and of one of IPv6."""
        await self.serve(self.backend)
        client = await self.connect(self.giving_mux(accept_proxy_from=SENDERS), LINE + SSH)
        server = await self.backend.heard(len(SSH))
        self.assertEqual(bytes(server.received), SSH)
        self.assertEqual(server.transport.getPeer(), IPv4Address("TCP", "192.168.0.1", 56324))
        self.assertEqual(server.transport.getHost(), IPv4Address("TCP", "192.168.0.11", 443))
        other = await self.connect(self.giving_mux(interface="::1"), SSH, host="::1")
        second = await self.backend.heard(len(SSH), 1)
        peer = other.transport.getHost()
        self.assertEqual(second.transport.getPeer(), IPv6Address("TCP", "::1", peer.port))
        await self.end(client, server, other, second)
        await self.handed_over(2)

    async def test_tls(self) -> None:
        """A server may speak TLS, whose hello is still in the socket; the facts are there all the same."""
        context = make_authority("a.example").private().options()
        await self.serve(TLSMemoryBIOFactory(context, False, self.backend))  # noqa: FBT003
        client = await self.connect(self.mux([route("tls", f"handover:{self.path}")]))
        client.transport.startTLS(CertificateOptions())
        client.send(b"hello")
        server = await self.backend.heard(5)
        self.assertEqual(server.transport.handed_over.facts["tls"], "1.3")
        server.send(b"answer")
        await client.has(6)
        await self.end(client, server)
        await self.handed_over()

    async def test_another_multiplexer(self) -> None:
        """The server may be another multiplexer, which relays; its log has the client's address, and all bytes."""
        port = self.giving_mux()
        rules = [route("ssh", backend_at(self.backend_port()), name="second")]
        its, runtime = Listener("second"), self.factory.runtime
        await self.serve(MuxFactory(rules, its, access_log=self.log, runtime=runtime))
        client = await self.connect(port, SSH)
        own = client.transport.getHost()
        server = await self.backend.heard(len(SSH))
        server.send(b"answer")
        await client.has(6)
        await self.end(client, server)
        record = await self.logged(2)
        self.assert_story(self.records[0], listener="public", reason="handed-over")
        counts = {"bytes_in": len(SSH), "bytes_out": 6}
        where = f"127.0.0.1:{own.port}"
        self.assert_story(record, listener="second", client=where, reason="done", **counts)

    async def test_factory_that_raises_or_wants_no_protocol(self) -> None:
        factory = PeerFactory()
        builds: Any = iter((lambda _: 1 / 0, lambda _: None))
        build = factory.buildProtocol
        factory.buildProtocol = lambda address: next(builds, build)(address)  # type: ignore[assignment,method-assign] # noqa: PLW0108
        await self.serve(factory)
        port = self.giving_mux()
        for number in (1, 2):
            client = await self.connect_until_lost(port, SSH)
            await self.handed_over(number)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        client = await self.connect(port, SSH)
        await self.end(client, await factory.heard(len(SSH)))

    async def test_many_at_once(self) -> None:
        await self.serve(self.backend)
        port = self.giving_mux()
        clients = [await self.connect(port, SSH + b"%d" % number) for number in range(30)]
        peers = {client.transport.getHost(): number for number, client in enumerate(clients)}
        for index in range(30):
            server = await self.backend.peer(index)
            said = SSH + b"%d" % peers[server.transport.getPeer()]
            await server.has(len(said))
            self.assertEqual(bytes(server.received), said)
        await self.end(*clients, *self.backend.peers)
        await self.handed_over(30)

    def give(self, message: bytes = b"", *descriptors: int) -> socket.socket:
        giver = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        giver.connect(self.path)
        giver.settimeout(0)
        if message:
            socket.send_fds(giver, [message], descriptors)
        return giver

    async def is_closed(self, giver: socket.socket) -> None:
        asked = select.poll()
        asked.register(giver, select.POLLIN)
        while not asked.poll(0):
            await self.turn()
        self.assertEqual(giver.recv(9), b"")

    async def test_refused_messages_are_logged(self) -> None:
        await self.serve(self.backend)
        port = self.giving_mux()
        with socket.socket() as other, capturedLogs() as events:
            await self.is_closed(self.give(b"{}", other.fileno()))
            number = descriptors()
            await self.is_closed(self.give(b"[]", other.fileno(), other.fileno()))
        why = "the message cannot be read: KeyError('version')"
        whys = [why, "the message has 2 descriptors, not one"]
        self.assertEqual([event["why"] for event in events if "why" in event], whys)
        # The giver's own end has come, and the other socket has gone.
        self.assertEqual(descriptors(), number)
        await self.end(await self.connect(port, SSH), await self.backend.heard(len(SSH)))
        await self.handed_over()

    async def test_late_message(self) -> None:
        port = await self.serve(self.backend, use=self.time)
        held, late = held_by(port), self.give()
        await self.turn(3)
        with capturedLogs() as events:
            late.send(b"late")
            await self.is_closed(late)
            never = self.give()
            while not self.time.clock.getDelayedCalls():
                await self.turn()
            self.time.advance(5.1)
            await self.is_closed(never)
        whys = [event["log_format"].partition(": no socket was received: ")[2] for event in events]
        self.assertEqual(whys, ["{why}", "there was no message"])
        self.assertEqual(held_by(port), held)
        # At the end, silent senders are closed.
        silent = self.give()
        while not self.time.clock.getDelayedCalls():
            await self.turn()
        port.stopListening()
        self.assertEqual((silent.recv(9), self.time.clock.getDelayedCalls()), (b"", []))
        port.stopListening()

    async def test_no_descriptors(self) -> None:
        """Clients wait a second, unless the port is closed before."""
        await self.turn()  # the reactor has what it needs
        port = await self.serve(self.backend, use=self.time)
        for is_open in (True, False):
            giver = self.give(b"{}")
            with capturedLogs() as events, without_descriptors():
                while not self.time.clock.getDelayedCalls():
                    await self.turn()
            self.assertEqual([event["why"] for event in events], ["Too many open files"])
            if is_open:
                self.time.advance(1)
                await self.is_closed(giver)
        port.stopListening()
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    def listen(self, options: str = "") -> Any:
        return self.successResultOf(ensureDeferred(self.serve(self.backend, options)))

    def refused(self, options: str = "") -> str:
        listening = ensureDeferred(self.serve(self.backend, options))
        return str(self.failureResultOf(listening, CannotListenError).value)

    def test_parts_of_an_endpoint_string_and_removal_of_the_file(self) -> None:
        for options, mode in (("", 0o600), (":mode=660", 0o660), (":backlog=1:user=root,0", 0o600)):
            port = self.listen(options)
            self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), mode)
            self.assertEqual(port.getHost().name, self.path.encode())
            self.assertIn(self.path, repr(port))
            self.assertEqual(self.backend.numPorts, 1)
            self.successResultOf(port.stopListening())
            self.assertEqual(self.backend.numPorts, 0)
            self.assertFalse(self.file.exists())

        # At the end of the reactor, too.
        self.listen().connectionLost(Failure(ConnectionDone()))
        self.assertFalse(self.file.exists())
        self.assertIn("nobody-at-all", self.refused(":user=nobody-at-all"))
        for text in ("txmux:x:mode=rw", "txmux:x:backlog=many"):
            self.assertRaises(ValueError, serverFromString, reactor, text)
        self.assertRaises(TypeError, serverFromString, reactor, "txmux:x:what=more")
        self.assertIsInstance(serverFromString(reactor, "txmux:x"), AdoptingEndpoint)

    def test_stale_socket_is_replaced(self) -> None:
        """But a successor's file stays, and so does one in use."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed:
            killed.bind(self.path)
        port = self.listen()
        self.assertTrue(self.file.is_socket())
        self.file.rename(f"{self.path}2")
        successor = self.listen()
        port.stopListening()
        self.assertTrue(self.file.exists())
        successor.stopListening()
        port = self.listen()
        self.assertIn("another program listens there", self.refused())
        port.stopListening()
        with socket.socket(socket.AF_UNIX) as stream:
            stream.bind(self.path)
            stream.listen()
            self.assertIn("another program listens there", self.refused())
        self.file.unlink()
        self.file.touch()
        self.assertIn("something other than a socket is there", self.refused())
