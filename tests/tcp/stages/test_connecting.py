import errno
import math
import socket
from typing import Any
from unittest.mock import patch

from OpenSSL import SSL
from twisted.internet import error
from twisted.logger import capturedLogs, eventAsText
from twisted.python.failure import Failure

from tests.net.relay.test_other_transports import certificate
from tests.support.kit import Peer, free_port, listen, make_folder, reactor
from tests.support.mux import RESET, MuxTestCase, backend_at, server_at
from tests.support.peers import PeerFactory, close, listen_tls, make_stalled_port
from tests.support.servers import counted
from txmux.access.loops import MOST_HOPS
from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.pool.server_health import MemberState
from txmux.client import configuration
from txmux.client.socket_options import listener_keepalive
from txmux.net.sockets.transport import SocketTransport
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Server, ServerTLS
from txmux.rules.reading.endpoints import server
from txmux.serving import listening_ports
from txmux.tcp import connection as tcp_connection
from txmux.tcp.connector import connect_cause
from txmux.tcp.moving import Unpacking, packed


class ServersTest(MuxTestCase):
    async def lead(self, backend: Backend) -> Peer:
        return await self.connect(self.mux([route("any", backend)], reactor=reactor), b"x")

    async def test_log_has_the_address_that_the_server_saw(self) -> None:
        """A server may be an endpoint string; each kind has half-close."""
        path = str(make_folder(self) / "socket")
        port = self.backend_port()
        self.addCleanup(reactor.listenUNIX(path, self.backend).stopListening)
        endpoint = f"tcp:127.0.0.1:{port}:timeout=3"
        self.assertEqual(server(endpoint).kind, "endpoint")
        for text in self.anew((f"127.0.0.1:{port}", f"localhost:{port}", endpoint, f"unix:{path}")):
            backend = Backend("b", (server(text),), connect_timeout=60.0)
            client, peer = await self.both(self.mux([route("any", backend)], reactor=reactor), b"x")
            seen = peer.transport.getPeer()
            await peer.has_all(client.finish)
            peer.send(b"half-close works")
            peer.close()
            await client.has(16)
            client.close()
            record = await self.assert_logged(reason="done")
            expected = None if "unix" in text else f"{seen.host}:{seen.port}"
            self.assertEqual((text, record.server_local), (text, expected))
            self.assertTrue(text != endpoint or record.server == text)

    async def test_why_no_server_is_reached(self) -> None:
        """The last attempt counts, and there are no more than `retries` allow; after each of them another server is tried."""
        mute, stalled = PeerFactory(), make_stalled_port(self)
        make_stalled_port(self, "::1", stalled)  # on most machines localhost has both addresses
        refusing, here = server_at(free_port()), server_at(self.backend_port())
        untrusted = server(f"tls:localhost:{listen_tls(self, PeerFactory(), certificate())}")
        bad, mute_port = Server("tls:x:1:trustRoots=/nowhere", "endpoint"), listen(self, mute)
        in_time = {"connect_timeout": 0.1}
        for servers, last, reason, settings, said in self.anew((
            ((refusing, here), 0, "connect-refused", {"retries": 0}, ""),
            ((server_at(stalled), refusing), 1, "connect-refused", {"connect_timeout": 0.5}, ""),
            ((server(f"localhost:{stalled}"),), 0, "connect-timeout", in_time, ""),
            ((server_at(stalled),), 0, "connect-timeout", in_time, "no connection within 0.1 s"),
            ((server_at(mute_port),), 0, "connect-timeout", in_time | {"tls": ServerTLS()},
             "no TLS handshake within 0.1 s"),
            ((server("unix:/nonexistent/socket"),), 0, "connect-refused", {}, ""),
            ((server(f"ssl:127.0.0.1:{mute_port}"),), 0, "connect-timeout", {"connect_timeout": 0.3}, ""),
            ((untrusted,), 0, "tls-failed", {}, ""),
            ((bad,), 0, "error", {}, ""),
        )):  # fmt: skip
            with capturedLogs() as logged:
                await self.is_lost_cleanly(await self.lead(Backend("backend", servers, **settings)))
                record = await self.assert_logged(reason=reason, backend="backend")
            self.assertIn(said, " ".join(map(str, map(eventAsText, logged))))
            resolved = (f"{host}:{stalled}" for host in ("127.0.0.1", "[::1]"))
            self.assertIn(record.server, (servers[last].text, *resolved))
            self.assertNotIn("held", record.facts)
        for number in range(2):
            await (await mute.peer(number)).is_lost()
        for number, first in enumerate((server(f"tcp:{refusing.text}:timeout=3"), untrusted, bad)):
            await self.lead(Backend("b", (first, here)))
            await self.backend.heard(1, number)

    async def test_connection_that_has_come_back_too_often_is_reset(self) -> None:
        itself = Server("127.0.0.1:{port}", "tcp", host="127.0.0.1")
        await self.is_reset(await self.lead(Backend("backend", (itself,))))
        await self.until_logged(MOST_HOPS + 1)
        self.assert_story(self.records[0], reason="limit", facts={"hops": f"{MOST_HOPS}"})

    async def test_local_trouble_and_failed_handshakes_are_no_refusals(self) -> None:
        bind = error.ConnectBindError(errno.EADDRNOTAVAIL, "no port")
        for cause, *problems in (
            ("error", bind, OSError(errno.EMFILE, "too many"), ZeroDivisionError()),
            ("tls-failed", SSL.Error()),
            ("connect-refused", error.ConnectionRefusedError(), error.DNSLookupError()),
            ("connect-timeout", error.TimeoutError()),
        ):
            self.assertEqual({connect_cause(Failure(one)) for one in problems}, {cause})

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
                    await self.assert_ended(client, number + 1, reason="error")
            # It would be the same for each client.
            self.assertIn(MemberState.EJECTED, [one.state for one in upstream.pool.members])
            said = "".join(map(eventAsText, logged))
            self.assertIn("does not take the socket option TCP_CONGESTION = b'none': No such", said)
            self.assertEqual(self.backend.peers, [])

    async def test_options_are_set_for_each_family_and_from_the_first_packet(self) -> None:
        of_6 = socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 184
        options = (socket.IPPROTO_IP, socket.IP_TOS, 184), of_6
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
        port = self.mux([route("any", backend, name="waits")], reactor=reactor, **settings)
        return await self.connect_read(port, b"hello")

    async def test_end_of_the_client_cancels_the_attempt(self) -> None:
        """It is noticed at once; a drain cancels it, too."""
        for reason in self.anew(("client-gone", "drained")):
            client = await self.wait()
            if reason == "drained":
                self.factory.abort("drained")
                await self.is_reset(client)
            else:
                client.reset()
            await self.assert_logged(reason=reason, route="waits", backend="backend", bytes_in=5)

    async def test_client_that_sends_more_meanwhile(self) -> None:
        """The server's socket has keepalive, and a client that sends too much is read no further."""
        client = await self.wait(peek_limit=1000)
        [connection] = self.factory.connections
        server = connection.server
        client.send(b"more")
        await self.seen(9)
        self.assertEqual(server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertIsNotNone(connection.transport)
        client.send(bytes(32 * 1024 * 1024))
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
        await self.closed(client, await self.backend.heard(1_000_000))

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


class HeldTests(MuxTestCase):
    def hold(self, *, fallback: Any = RESET, peek_limit: int = 32768, **settings: Any) -> int:
        self.server = free_port()
        settings = {"hold": 60.0, "retries": 0, **settings}
        self.held = backend_at(self.server, fallback=fallback, **settings)
        return self.mux([route("any", self.held)], peek_limit=peek_limit)

    async def held_one(self, port: int, said: bytes = b"x", count: int = 1) -> Peer:
        """Connect one, and wait until so many wait."""
        client = await self.connect(port, said)
        await self.waiting(count)
        return client

    async def waiting(self, count: int) -> None:
        await self.until_so(lambda: len(self.held_clients) == count)

    @property
    def held_clients(self) -> Any:
        return self.factory.upstreams.upstream_of(self.held).pool.waiting

    async def come_up(self, count: int) -> list[Peer]:
        listening = reactor.listenTCP(self.server, self.backend, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        while len(self.backend.peers) < count:
            self.time.advance(0.05)
            await self.turn()
        return self.backend.peers

    async def test_clients_wait_for_a_server_and_none_of_their_bytes_is_lost(self) -> None:
        """One that cannot be suspended keeps its place."""
        port = self.hold()
        first = await self.held_one(port, b"ab")
        connection = self.only()
        self.time.advance(0.01)  # which is what the order goes by
        second = await self.held_one(port, b"x", count=2)
        with patch.object(tcp_connection, "MovedConnection", side_effect=MemoryError):
            self.assertRaises(MemoryError, connection.suspend)
        self.assertEqual(len(self.held_clients), 2)
        first.send(b"cd")
        for connection in self.factory.connections:  # what is tried decides nothing
            self.assertEqual((connection.state, connection.decided), ("connecting", {}))
        self.time.advance(10)
        await self.turn(3)
        for connection in self.factory.connections:
            connection.count_bytes()  # as every few seconds
        peers = await self.come_up(2)
        await peers[0].has(4)
        await peers[1].has(1)
        self.assertEqual([bytes(peer.received) for peer in peers], [b"abcd", b"x"])
        close(first, second, *peers)
        await self.until_logged(2)
        for record in self.records:
            self.assert_story(record, reason="done", server=f"127.0.0.1:{self.server}")
            self.assertRegex(record.facts["held"], r"1[0-9]\.[0-9]s")
        self.assertEqual(len(self.held_clients), 0)
        wanted = {"asked": 2, "unanswered": 2, "bytes in": 5}
        self.assertEqual(counted(self.factory, names=("asked", "unanswered", "bytes in")), wanted)

    async def test_refused_as_ever_when_the_time_is_over(self) -> None:
        """At once, if more than the limit wait."""
        port = self.hold(hold=5.0, hold_limit=2)
        clients = [await self.connect(port, b"x")]
        await self.waiting(1)
        clients.append(await self.held_one(port, b"x", count=2))
        await self.assert_ended(await self.connect(port, b"x"), reason="limit")
        self.records.clear()
        for _ in range(52):
            self.time.advance(0.1)
            await self.turn(2)
        await self.until_logged(2)
        for client, record in zip(clients, self.records, strict=True):
            await self.is_reset(client)
            self.assertRegex(record.facts["held"], r"5\.[0-9]s")
            self.assertEqual(record.reason, "connect-refused")
        tried = f"127.0.0.1:{self.server} connect-refused"
        self.assertEqual(self.records[0].facts["tried"], tried)

    async def test_fallback_comes_after_the_wait(self) -> None:
        other = backend_at(self.backend_port())
        client = await self.held_one(self.hold(hold=1.0, fallback=other), b"x")
        self.assertEqual(self.backend.peers, [])
        self.time.advance(1.0)
        await self.assert_closed(client, await self.backend.heard(1), reason="done")

    async def test_those_that_wait_for_room_do_not_wait_for_a_server(self) -> None:
        port = self.hold(max_connections=1, queue=5)
        clients = [await self.held_one(port, b"x%d" % one, count=one + 1) for one in range(3)]
        peers = await self.come_up(1)
        await self.passes(lambda: not len(self.held_clients))
        self.assertFalse(self.held_clients.blocks)
        for number, client in enumerate(clients):
            await self.passes(lambda number=number: len(peers) > number)  # type: ignore[misc]
            await peers[number].has(2)
            close(client, peers[number])
        await self.until_logged(3)
        self.assertEqual([bytes(peer.received) for peer in peers], [b"x0", b"x1", b"x2"])
        self.assertTrue(all("held" in record.facts for record in self.records))

    async def test_client_that_leaves_is_forgotten(self) -> None:
        events: list[int] = []
        ready = SocketTransport._ready

        def note(transport: SocketTransport, seen: int) -> None:
            events.append(seen)
            ready(transport, seen)

        self.patch(SocketTransport, "_ready", note)
        for number, how in enumerate(["reading", "finished", "full", "unnoticed"], start=1):
            client = await self.held_one(self.hold(peek_limit=1024), b"x")
            self.time.advance(1.0)
            if how == "finished":
                client.finish()
                await self.until_so(lambda: self.only().has_finished)
            elif how == "full":
                client.send(b"x" * 2048)
                client.finish()
                await self.seen(1024)
            elif how == "unnoticed":
                transport = self.only().transport
                self.factory.runtime.poller.unwatch(transport.fileno())
            await self.turn(5)
            events.clear()
            await self.turn(20)
            self.assertEqual(events, [], how)
            # Those whose reset alone shows that they have left come behind the others.
            may_have_left = self.only().stage.held.may_have_left
            self.assertIs(may_have_left, how in {"finished", "full"}, how)
            client.reset()
            if how == "unnoticed":
                await client.is_lost()
                await self.passes(lambda number=number: len(self.records) == number)  # type: ignore[misc]
            record = await self.logged(number)
            self.assertEqual((record.reason, len(self.held_clients)), ("client-gone", 0), how)
            self.assertRegex(record.facts["held"], r"1\.[0-9]s")
        self.assertEqual(self.backend.peers, [])

    async def test_client_that_ends_its_request_while_a_server_is_tried(self) -> None:
        self.held = backend_at(make_stalled_port(self), hold=60.0, retries=0, connect_timeout=0.5)
        port = self.mux([route("any", self.held)])
        for number, turns in enumerate([0, 1], start=1):  # the first time, and in its turn
            client = await self.connect(port, b"x")
            await self.until_so(
                lambda: [one.state for one in self.factory.connections] == ["connecting"]
            )
            for count in range(turns):
                await self.passes(lambda count=count: len(self.held_clients) > count)  # type: ignore[misc]
                await self.passes(lambda: self.only().stage.connector)
            self.time.advance(0.2)
            client.finish()
            await self.until_so(lambda: self.only().has_finished)
            await self.passes(lambda: self.only().stage.held and not self.only().stage.connector)
            self.assertEqual(len(self.held_clients), 1)
            client.reset()
            record = await self.logged(number)
            self.assertEqual((record.reason, len(self.held_clients)), ("client-gone", 0))

    async def test_client_that_ends_its_request_gets_its_answer(self) -> None:
        for number, seconds in enumerate([0.0, 0.02, 0.5, 30.0], start=1):
            client = await self.held_one(self.hold(), b"x")
            self.time.advance(seconds)
            client.finish()
            await self.until_so(lambda: self.only().has_finished)
            self.time.advance(1.0)
            peer = (await self.come_up(number))[-1]
            await peer.has_all()
            self.assertEqual(peer.received, b"x")
            await peer.tell(client, b"answer")
            await self.assert_closed(client, peer, number, reason="done")

    async def test_client_whose_end_could_not_come_waits_less_long(self) -> None:
        port = self.hold(peek_limit=1024, hold=100.0)
        hidden = await self.held_one(port, bytes(2**23))
        connection = self.only()
        await self.until_so(connection.transport.may_have_unread_fin)
        await self.held_one(port, bytes(2048), count=2)
        self.time.advance(29.0)
        self.assertEqual(len(self.held_clients), 2)
        await self.until_so(lambda: connection.cannot_move_because is None)
        moved, _ = connection.suspend()  # another process may have it already
        self.time.advance(2.0)
        self.assertEqual((connection.state, len(self.held_clients)), ("connecting", 1))
        connection.resume(moved)
        self.assertEqual(len(self.held_clients), 2)
        self.time.advance(30.0)
        record = await self.assert_ended(hidden)
        self.assertEqual((record.facts["held"], len(self.held_clients)), ("61.0s", 1))
        self.time.advance(40.0)
        await self.until_logged(2)

    async def test_client_that_no_process_takes_tries_on(self) -> None:
        """One that may not wait any longer, released or late, gets another try for that which was broken off."""
        for number, settings in enumerate([{"hold": 0.0}, {"hold": 1.0}]):
            port = make_stalled_port(self)
            self.held = backend_at(port, retries=0, connect_timeout=60.0, **settings)
            client, connection = await self.try_after_release()
            self.time.advance(5.0)
            self.assertIsNone(connection.cannot_move_because)
            pool = self.factory.upstreams.upstream_of(self.held).pool
            moved, _ = connection.suspend()
            self.assertEqual((pool.connections, len(self.held_clients)), (0, 0))
            connection.resume(moved)
            await self.turn(5)
            self.assertEqual((len(self.records), pool.connections), (number, 1), settings)
            self.time.advance(60.0)
            await self.assert_ended(client, number + 1, reason="connect-timeout")
            self.assertEqual(pool.connections, 0)

    async def test_client_that_another_process_takes_tries_on(self) -> None:
        """Its time ran out while it tried, and others wait there: it gets another try all the same."""
        port = make_stalled_port(self)
        self.held = backend_at(port, retries=0, connect_timeout=60.0, hold=1.0)
        trying = [
            await self.try_after_release() for _ in range(2)
        ]  # of the old process and the new
        self.time.advance(5.0)
        _, connection = trying[0]
        moved, sockets = connection.suspend()
        copies: Any = tuple(one.dup() for one in sockets)
        message = packed([moved])
        self.factory.adopt(Unpacking(message["names"]).read(message["rows"][0]), copies)
        connection.detach()
        await self.turn(5)
        self.assertEqual(self.factory.upstreams.upstream_of(self.held).pool.connections, 2)
        self.time.advance(60.0)
        await self.until_logged(2)
        self.assertEqual({record.reason for record in self.records}, {"connect-timeout"})

    async def try_after_release(self) -> tuple[Peer, Any]:
        """Have a client of a new multiplexer wait for an operator, and then try a server; give it and its connection."""
        mux = self.mux([route("any", self.held)])
        self.factory.upstreams.apply_overrides({}, {"backend": math.inf})
        client = await self.held_one(mux, b"x")
        connection = self.only()
        self.factory.upstreams.apply_overrides({}, {})
        await self.passes(lambda: connection.stage.connector)
        return client, connection

    async def test_no_more_than_the_peek_limit_is_kept(self) -> None:
        client = await self.held_one(self.hold(peek_limit=1024), b"x")
        sent = bytes(range(256)) * 8192
        client.send(sent)
        await self.seen(1024)
        await self.turn(10)
        (connection,) = self.factory.connections
        self.assertLess(connection.record.bytes_in, 300_000)
        (peer,) = await self.come_up(1)
        await peer.has(1 + len(sent))
        self.assertEqual(bytes(peer.received), b"x" + sent)
        await self.assert_closed(client, peer, reason="done")

    async def test_operator_lets_clients_wait_although_a_server_is_up(self) -> None:
        self.held = backend_at(self.backend_port())
        port = self.mux([route("any", self.held)])
        before = await self.connect(port, b"a")
        await self.backend.heard(1)
        self.factory.upstreams.apply_overrides({}, {"backend": math.inf})
        client = await self.held_one(port, b"b")
        self.time.advance(600)
        before.send(b"c")
        await self.backend.peers[0].has(2)  # those that are there go on
        self.assertEqual(len(self.backend.peers), 1)
        self.factory.upstreams.apply_overrides({}, {})
        self.time.advance(0.1)
        peer = await self.backend.heard(1, 1)
        self.assertEqual(len(self.held_clients), 0)
        close(before, client, *self.backend.peers)
        self.assertEqual(bytes(peer.received), b"b")
        await self.until_logged(2)
        self.factory.upstreams.apply_overrides({}, {"backend": 1.0})  # it has ended unnoticed
        client = await self.held_one(port, b"b")
        self.time.advance(0.2)
        close(client, await self.backend.heard(1, 2))
        await self.assert_logged(3, reason="done")
