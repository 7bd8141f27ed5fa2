import errno
import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet import error
from twisted.logger import capturedLogs, eventAsText
from twisted.python.failure import Failure

from tests.net.relay.test_other_transports import certificate
from tests.support.folders import make_folder
from tests.support.mux import MuxTestCase, backend_at, server_at
from tests.support.peers import PeerFactory, close, listen, make_stalled_port, reactor
from tests.support.ports import free_port
from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.pool.server_health import MemberState
from txmux.client import configuration
from txmux.client.socket_options import listener_keepalive
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Server, ServerTLS
from txmux.rules.reading.endpoints import server
from txmux.serving import listening_ports
from txmux.tcp.connector import connect_cause


class ServersTest(MuxTestCase):
    async def lead(self, backend: Backend) -> Any:
        self.client = await self.connect(self.mux([route("any", backend)], reactor=reactor))
        self.client.send(b"x")
        return self.client

    async def test_log_has_the_address_that_the_server_saw(self) -> None:
        path = str(make_folder(self) / "socket")
        port = self.backend_port()
        self.addCleanup(reactor.listenUNIX(path, self.backend).stopListening)
        texts = (f"127.0.0.1:{port}", f"localhost:{port}", f"tcp:127.0.0.1:{port}", f"unix:{path}")
        for number, text in enumerate(texts):
            backend = Backend("b", (server(text),), connect_timeout=60.0)
            mux = self.mux([route("any", backend)], reactor=reactor)
            client = await self.connect(mux, b"x")
            peer = await self.backend.heard(1, number)
            seen = peer.transport.getPeer()
            close(client, peer)
            await client.is_lost()
            record = await self.logged(number + 1)
            expected = None if number == 3 else f"{seen.host}:{seen.port}"
            self.assertEqual((text, record.server_local), (text, expected))

    async def test_why_no_server_is_reached(self) -> None:
        """The last attempt counts, and there are no more than `retries` allow; after each of them another server is tried."""
        mute, stalled = PeerFactory(), make_stalled_port(self)
        make_stalled_port(self, "::1", stalled)  # on most machines localhost has both addresses
        secure = reactor.listenSSL(0, PeerFactory(), certificate(), interface="127.0.0.1")
        self.addCleanup(secure.stopListening)
        refusing, here = server_at(free_port()), server_at(self.backend_port())
        untrusted = server(f"tls:localhost:{secure.getHost().port}")
        bad = Server("tls:x:1:trustRoots=/nowhere", "endpoint")
        for servers, last, reason, settings in (
            ((refusing, here), 0, "connect-refused", {"retries": 0}),
            ((server_at(stalled), refusing), 1, "connect-refused", {"connect_timeout": 0.5}),
            ((server(f"localhost:{stalled}"),), 0, "connect-timeout", {"connect_timeout": 0.1}),
            ((server("unix:/nonexistent/socket"),), 0, "connect-refused", {}),
            ((server(f"ssl:127.0.0.1:{listen(self, mute)}"),), 0, "connect-timeout", {"connect_timeout": 0.3}),
            ((untrusted,), 0, "tls-failed", {}),
            ((bad,), 0, "error", {}),
        ):  # fmt: skip
            await self.is_closed(await self.lead(Backend("backend", servers, **settings)))
            record = await self.assert_logged(reason=reason, backend="backend")
            resolved = (f"{host}:{stalled}" for host in ("127.0.0.1", "[::1]"))
            self.assertIn(record.server, (servers[last].text, *resolved))
            self.records.clear()
        await (await mute.peer()).is_lost()
        for number, first in enumerate((server(f"tcp:{refusing.text}:timeout=3"), untrusted, bad)):
            await self.lead(Backend("b", (first, here)))
            await self.backend.heard(1, number)

    async def test_mute_server_costs_the_connect_timeout_with_its_own_cause(self) -> None:
        for what, port, options in (
            ("no connection within", make_stalled_port(self), {}),
            ("no TLS handshake within", listen(self, PeerFactory()), {"tls": ServerTLS()}),
        ):
            with capturedLogs() as logged:
                client = await self.lead(backend_at(port, connect_timeout=0.1, **options))
                await self.assert_ended(client, reason="connect-timeout")
            self.assertIn(f"{what} 0.1 s", " ".join(map(str, map(eventAsText, logged))))
            self.records.clear()

    async def test_half_closed_server_reached_by_name_gets_the_rest(self) -> None:
        port = self.backend_port()
        client = await self.lead(
            Backend("named", (server(f"localhost:{port}"),), connect_timeout=60.0)
        )
        peer = await self.backend.peer()
        peer.send(b"bye")
        await client.has_all(peer.finish)
        client.send(b"z" * 20)
        client.finish()
        await peer.has(21)
        close(client, peer)
        await self.assert_logged(reason="done", bytes_in=21, bytes_out=3)

    async def test_server_may_be_an_endpoint_string(self) -> None:
        text = f"tcp:127.0.0.1:{self.backend_port()}:timeout=3"
        self.assertEqual(server(text).kind, "endpoint")
        client = await self.lead(Backend("string", (server(text),)))
        peer = await self.backend.heard(1)
        await peer.has_all(client.finish)
        peer.send(b"half-close works")
        peer.close()
        await client.has(16)
        client.close()
        await self.assert_logged(reason="done", server=text)

    async def test_local_trouble_and_failed_handshakes_are_no_refusals(self) -> None:
        for problem, expected in [
            (error.ConnectBindError(errno.EADDRNOTAVAIL, "no port"), "error"),
            (OSError(errno.EMFILE, "too many"), "error"),
            (ZeroDivisionError(), "error"),
            (SSL.Error(), "tls-failed"),
            (error.ConnectionRefusedError(), "connect-refused"),
            (error.DNSLookupError(), "connect-refused"),
            (error.TimeoutError(), "connect-timeout"),
        ]:
            self.assertEqual(connect_cause(Failure(problem)), expected)

    async def test_option_that_the_system_does_not_take(self) -> None:
        """No server has refused anything; and the log names the option."""
        plan = ServerSocketPlan(((socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"none"),))
        self.patch(ServerSocketPlan, "of", lambda _: plan)
        for self.relay in ("auto", "portable"):
            self.records.clear()
            with capturedLogs() as logged:
                servers = backend_at(self.backend_port(), self.backend_port(), retries=0)
                port = self.mux([route("any", servers)])
                [upstream] = self.factory.upstreams.all()
                for number in range(5):
                    client = await self.connect(port, b"x")
                    await client.is_lost()
                    await self.assert_logged(number + 1, reason="error")
            # It would be the same for each client.
            self.assertIn(MemberState.EJECTED, [one.state for one in upstream.pool.members])
            said = "".join(map(eventAsText, logged))
            self.assertIn("does not take the socket option TCP_CONGESTION = b'none': No such", said)
            self.assertEqual(self.backend.peers, [])

    async def test_options_are_set_for_each_family_and_from_the_first_packet(self) -> None:
        options = (
            (socket.IPPROTO_IP, socket.IP_TOS, 184),
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 184),
        )
        plain = listener_keepalive
        for module in (configuration, listening_ports):
            self.patch(module, "socket_options", lambda listener: (*plain(listener), *options))
        for host, (level, name, value) in zip(("127.0.0.1", "::1"), options, strict=True):
            for self.relay in ("auto", "portable"):
                self.forget()
                backend = Backend("b", (server_at(listen(self, self.backend, host), host),))
                port = self.mux([route("any", backend)], interface=host)
                client = await self.connect(port, b"x", host=host)
                await self.backend.heard(1)
                [one] = self.factory.connections
                for its in (one.socket, one.server):
                    self.assertEqual(its.getsockopt(level, name), value)
                client.reset()
                await self.until_logged()


class WaitingTest(MuxTestCase):
    async def wait(self, **settings: Any) -> Any:
        backend = backend_at(make_stalled_port(self), connect_timeout=30)
        self.client = await self.connect(
            self.mux([route("any", backend, name="waits")], reactor=reactor, **settings)
        )
        self.client.send(b"hello")
        await self.seen(5)
        return self.client

    async def test_notices_at_once_that_the_client_is_gone(self) -> None:
        client = await self.wait()
        client.reset()
        await self.assert_logged(reason="client-gone", route="waits", backend="backend", bytes_in=5)

    async def test_keepalive_where_the_client_sends_more_meanwhile(self) -> None:
        client = await self.wait()
        [connection] = self.factory.connections
        server = connection.server
        client.send(b"more")
        await self.seen(9)
        self.assertEqual(server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertIsNotNone(connection.transport)
        client.reset()
        await self.logged()

    async def test_stops_reading_a_client_that_sends_too_much(self) -> None:
        client = await self.wait(peek_limit=1000)
        client.send(bytes(32 * 1024 * 1024))
        connection = self.only()
        while connection.transport in reactor.getReaders():
            await self.turn()
        self.assertLess(connection.record.bytes_in, 256 * 1024)
        self.factory.abort("drained")
        await self.logged()

    async def test_paused_client_is_read_again_behind_a_second_fallback(self) -> None:
        last = backend_at(self.backend_port())
        between = backend_at(make_stalled_port(self), retries=0, fallback=last)
        first = backend_at(make_stalled_port(self), retries=0, fallback=between)
        client = await self.connect(self.mux([route("any", first)], peek_limit=1000))
        client.send(bytes(1_000_000))
        await self.seen(1000)
        for _ in range(2):
            await self.turn(3)
            self.time.advance(5)
        close(client, await self.backend.heard(1_000_000))
        await self.logged()

    async def test_drain_cancels_the_attempt(self) -> None:
        client = await self.wait()
        self.factory.abort("drained")
        await self.is_reset(client)
        await self.assert_logged(reason="drained")

    async def test_leaving_client_cancels_the_handshake(self) -> None:
        mute = PeerFactory()
        port = listen(self, mute)
        endpoint = Backend("secure", (server(f"ssl:127.0.0.1:{port}"),))
        for number, backend in enumerate((endpoint, backend_at(port, tls=ServerTLS("a.example")))):
            client = await self.connect(self.mux([route("any", backend)], reactor=reactor), b"x")
            peer = await mute.heard(1, number)
            client.reset()
            await self.assert_ended(peer, number + 1, reason="client-gone")

    async def test_half_closed_client_gets_its_answer(self) -> None:
        stalled = make_stalled_port(self)
        backend = backend_at(stalled, self.backend_port(), connect_timeout=0.5)
        client = await self.connect(self.mux([route("any", backend)], reactor=reactor), b"all")
        client.finish()
        peer = await self.backend.peer()
        await peer.has_all()
        self.assertEqual(bytes(peer.received), b"all")
        peer.send(b"answer")
        await client.has_all(peer.close)
        self.assertEqual(bytes(client.received), b"answer")
        client.close()
        await self.assert_logged(reason="done")
