"""Listeners that leave clients' bytes in their sockets, since one may be handed over."""

import socket
from typing import Any

from tests.support.kit import MuxTestCase, backend_at, for_each
from tests.support.peers import close, reactor, reset
from tests.support.queues import copy_of, until_taken
from tests.support.taker import Taker
from tests.tcp.stages.test_reading_proxy_header import LINE, SENDERS
from tests.wire.proxyprotocol.vectors import V1, V2
from txmux.rules.embedding import outcome, route
from txmux.rules.model import Backend
from txmux.rules.reading.endpoints import server as server_of

SSH = b"SSH-2.0-test\r\n"
HTTP = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class WaitingTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.taker = Taker(self, self.turn)

    def giving_mux(
        self, *, host: str = "127.0.0.1", backend: Backend | None = None, **settings: Any
    ) -> int:
        server = route("http host=a", backend or backend_at(self.backend_port()), name="http")
        routes = route("ssh", self.taker.outcome, name="ssh"), server
        return self.mux(routes, interface=host, **settings)

    async def test_server_finds_all_bytes_however_they_are_cut(self) -> None:
        port = self.giving_mux()
        for cut in range(1, len(SSH)):
            client = await self.connect(port, SSH[:cut])
            if cut < 4:  # then it is decided
                await self.seen(cut)
                poller: Any = self.factory.runtime.poller
                self.assertEqual(poller.epoll.poll(0), [])
            client.send(SSH[cut:])
            given, _ = await self.taker.taken()
            self.assertEqual(given.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT), 1)
            self.assertEqual(await self.taker.heard(given, len(SSH)), SSH)
            await self.assert_logged(cut, reason="handed-over", bytes_in=0, bytes_out=0)
            close(client, given)

    @for_each("relay", ("auto", "portable"))
    async def test_ordinary_server_gets_all_bytes_however_they_are_cut(self) -> None:
        port, whole = self.giving_mux(), HTTP + b"more"
        for number, cut in enumerate(range(1, len(HTTP)), 1):
            client = await self.connect(port, HTTP[:cut])
            await self.seen(cut)
            client.send(HTTP[cut:])
            server = await self.backend.heard(len(HTTP), number - 1)
            await client.tell(server, b"more", len(whole))
            await server.tell(client, b"answer")
            close(client, server)
            await self.assert_logged(
                number, reason="done", route="http", bytes_in=len(whole), bytes_out=6
            )
            self.assertEqual(bytes(server.received), whole)

    async def test_undecided_client_goes_to_the_default(self) -> None:
        """That is one that has finished, or whose time is over."""
        for finishes in self.anew((True, False)):
            port = self.giving_mux(default=outcome(self.taker.outcome), detect_timeout=3)
            client = await self.connect_read(port, b"SS")
            client.finish() if finishes else self.time.advance(3.1)
            given, reported = await self.taker.taken()
            self.assertIsNone(reported["route"])
            if finishes:
                self.assertEqual(await self.taker.heard(given, 9), b"SS")
                given.sendall(b"late")
                await client.has(4)
            else:
                client.send(b"H")
                self.assertEqual(await self.taker.heard(given, 3), b"SSH")
            await self.assert_logged(reason="handed-over")

    async def test_bytes_before_a_reset_reach_an_ordinary_server(self) -> None:
        path = f"{self.taker.path}2"
        self.addCleanup(reactor.listenUNIX(path, self.backend).stopListening)
        # It is connected at once. Of a client that has gone before, no server hears.
        port = self.giving_mux(backend=Backend("b", (server_of(f"unix:{path}"),)))
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(HTTP[:5])
        await self.seen(5)
        client.sendall(HTTP[5:])
        until_taken(client)  # a reset throws away what is still on its way
        reset(client)
        server = await self.backend.heard(len(HTTP))
        await self.is_gone(server)
        self.assertEqual(bytes(server.received), HTTP)
        await self.assert_logged(reason="client-reset", bytes_in=len(HTTP))

    async def test_full_socket_or_peek_limit_decides_and_loses_nothing(self) -> None:
        server, taker = backend_at(self.backend_port()), outcome(self.taker.outcome)
        for default, peek_limit, count in self.anew(
            ((server, 32768, 50_000), (taker, 32768, 20_000), (taker, 64, 200))
        ):
            port = self.giving_mux(default=default, peek_limit=peek_limit)
            if peek_limit > 64:
                with copy_of(self.listening) as listening:
                    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            said = b"GET / HTTP/1.1\r\nX: " + (bytes(range(48, 98)) * 1000)[:count]
            client = await self.connect(port, said)
            if default is server:
                peer = await self.backend.heard(len(said))
                self.assertEqual(bytes(peer.received), said)
                close(client, peer)
                await self.assert_logged(route=None, reason="done", bytes_in=len(said))
            else:
                given, _ = await self.taker.taken()
                self.assertEqual(await self.taker.heard(given, len(said)), said)
                client.close()
                await self.assert_logged(reason="handed-over", bytes_in=0)

    async def test_proxy_header_is_taken_out_of_the_socket_however_it_is_cut(self) -> None:
        port = self.giving_mux(accept_proxy_from=SENDERS)
        number = 0
        for encoded, header in [*V1.items(), *V2.items()]:
            for cut in {1, len(encoded) // 2, len(encoded) - 1, len(encoded)}:
                number += 1
                client = await self.connect(port, encoded[:cut])
                peer = client.transport.getHost()
                await self.turn(2)
                client.send(encoded[cut:] + SSH)
                given, reported = await self.taker.taken()
                self.assertEqual(given.recv(99), SSH)
                source = header.source
                expected = [str(source.host), source.port] if source else [peer.host, peer.port]
                self.assertEqual(reported["client"], expected)
                self.assertEqual(reported["facts"]["proxy_peer"], f"{peer.host}:{peer.port}")
                logged = str(source) if source else f"{peer.host}:{peer.port}"
                await self.assert_logged(number, reason="handed-over", client=logged)
                close(client, given)

    async def test_ordinary_server_gets_the_bytes_behind_a_header(self) -> None:
        port = self.giving_mux(accept_proxy_from=SENDERS)
        client = await self.connect(port, LINE + HTTP[:3])
        await self.seen(3)
        client.send(HTTP[3:])
        server = await self.backend.heard(len(HTTP))
        self.assertEqual(bytes(server.received), HTTP)
        await self.assert_closed(client, server, reason="done", bytes_in=len(HTTP))
        await self.connect_until_lost(port, b"nothing like it\r\n")
        await self.assert_logged(2, reason="proxy-header")

    async def test_hands_over_ipv6_clients(self) -> None:
        port = self.giving_mux(host="::1")
        client = await self.connect(port, SSH, host="::1")
        given, reported = await self.taker.taken()
        peer = client.transport.getHost()
        self.assertEqual((reported["client"], given.family), (["::1", peer.port], socket.AF_INET6))
        self.assertEqual((given.getpeername()[:2], given.recv(99)), (("::1", peer.port), SSH))
        await self.assert_logged(reason="handed-over", client=f"[::1]:{peer.port}")

    async def test_unix_client_is_closed_by_handover_and_served_by_others(self) -> None:
        self.giving_mux()
        path = f"{self.taker.path}2"
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path)
            opened.listen()
            port: Any = self.factory.listen(opened)
        self.addCleanup(port.stopListening)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(SSH)
            client.settimeout(0)
            await self.assert_logged(reason="error", route="ssh")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(HTTP)
            server = await self.backend.heard(len(HTTP))
            server.close()
        await self.assert_logged(2, reason="done", route="http")
