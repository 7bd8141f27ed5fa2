"""Cancel requests of PostgreSQL reach each server that may have the query, and no other."""

from typing import Any

import attrs
from twisted.logger import capturedLogs

from tests.support.kit import CommandTestCase, MuxTestCase, backend_at, free_port
from tests.support.peers import Peer, PeerFactory, listen, make_stalled_port
from txmux.backends.pool.member import ResolvedAddress
from txmux.features.cancel_requests.rows import REQUESTS
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Refusal, Route

CANCEL = bytes.fromhex("00000010 04d2162e 00000001 00000002")
LONG = bytes.fromhex("0000002c 04d2162e") + bytes(36)
"""Of protocol 3.2, with a key of 32 bytes."""


def backend(name: str, *ports: int, **settings: Any) -> Backend:
    return attrs.evolve(backend_at(*ports), name=name, **settings)


class CancelTest(MuxTestCase):
    def servers(self, count: int) -> list[int]:
        self.factories = [PeerFactory() for _ in range(count)]
        return [listen(self, one) for one in self.factories]

    def by_name(self, *ports: int) -> list[Route]:
        return [
            route(f"postgres sni={number}.example", backend(f"b{number}", port))
            for number, port in enumerate(ports)
        ]

    async def assert_cancelled(self, peer: Peer, count: int, said: str, **wanted: Any) -> None:
        self.assertEqual((await self.assert_ended(peer, count, **wanted)).facts["cancel"], said)

    async def assert_reaches(self, port: int, said: bytes = CANCEL, **wanted: Any) -> None:
        """All that are served: they get what the client says, and close."""
        client = await self.connect(port, said)
        for server in self.factories:
            peer = await server.heard(len(said))
            self.assertEqual(peer.received, said)
            peer.close()
        count = len(self.factories)
        await self.assert_cancelled(client, 1, f"{count} of {count}", reason="done", **wanted)

    async def test_each_server_has_it_and_the_client_waits_for_all(self) -> None:
        """However its bytes come, and with any key; what follows reaches nobody."""
        port = self.mux(self.by_name(*self.servers(2)))
        gssenc = bytes.fromhex("00000008 04d21630")
        for number, (before, request) in enumerate(((b"", CANCEL), (b"", LONG), (gssenc, CANCEL))):
            client = await self.connect(port)
            for byte in before + request + b"more":
                client.send(bytes([byte]))
                await self.turn(3)
            one, two = [await server.heard(len(request), number) for server in self.factories]
            self.assertEqual((one.received, two.received), (request, request))
            one.close()
            await one.is_lost()
            await self.turn(5)
            self.assertFalse(client.finished)
            two.close()
            await self.assert_cancelled(client, number + 1, "2 of 2", reason="done", route=None)
        cells = self.factory.configuration.counts.cells
        self.assertEqual(REQUESTS.read(cells), {"sent": 6, "failed": 0})

    async def test_servers_of_a_route_that_takes_it(self) -> None:
        """Another server than that of the session would ignore it; one alone is relayed."""
        ports = self.servers(3)
        await self.assert_reaches(self.mux([
            route("postgres user=a", backend("a", ports[0], fallback=backend("b", ports[1]))),
            route("postgres", backend("c", ports[2])), route("postgres", backend("d", free_port())),
        ]))  # fmt: skip
        its = route("postgres", backend_at(self.backend_port()), name="p")
        client = await self.connect(self.mux([its]), CANCEL)
        server = await self.backend.heard(16)
        server.send(b"x")
        await client.has(1)
        await self.assert_closed(server, client, 2, route="p", reason="done")

    async def test_others_go_where_they_went(self) -> None:
        closed = route("any", Refusal.CLOSE, name="closed", from_=["127.0.0.1"])
        port = self.mux([closed, *self.by_name(free_port(), free_port())])
        client = await self.connect(port, CANCEL)
        record = await self.assert_ended(client, route="closed", reason="denied")
        self.assertNotIn("cancel", record.facts)

    async def test_routes_that_keep_the_client_out(self) -> None:
        ports, closed = self.servers(2), free_port()
        routes = [
            route("postgres sni=a", backend("a", closed), from_=["192.0.2.0/24"]),
            attrs.evolve(route("postgres sni=b", backend("b", closed)), dry_run=True),
            route("postgres sni=c", Refusal.RESET),
            route("not postgres sni=d", backend("d", closed), not_from=["127.0.0.0/8"]),
            route("postgres database=e", backend("e", ports[0])),
            route("tls", backend("f", closed)),
        ]
        await self.assert_reaches(self.mux(routes, default=backend("g", ports[1])))

    async def test_servers_that_are_away(self) -> None:
        port = self.mux(self.by_name(free_port(), *self.servers(1), make_stalled_port(self)))
        client = await self.connect(port, CANCEL)
        (peer := await self.factories[0].heard(16)).close()
        await peer.is_lost()
        self.time.advance(2.9)
        await self.turn(3)
        self.assertFalse(client.finished)
        self.time.advance(0.2)
        await self.assert_cancelled(client, 1, "1 of 3", reason="done", detect_ms=0.0)
        cells = self.factory.configuration.counts.cells
        self.assertEqual(REQUESTS.read(cells), {"sent": 1, "failed": 2})
        port = self.mux(self.by_name(free_port(), free_port()))
        with capturedLogs() as events:
            for number in range(2, 6):
                client = await self.connect(port, CANCEL)
                await self.assert_cancelled(client, number, "0 of 2", reason="connect-refused")
        # Each is the only one.
        self.assertNotIn("no server is up", str([event["log_format"] for event in events]))

    async def test_no_place_is_taken(self) -> None:
        """Requests that servers leave open, or do not accept, leave the places of `max_connections` to sessions."""
        (one, two), away = self.servers(2), make_stalled_port(self)
        first = backend("a", one, max_connections=1)
        routes = [
            route("ssh", first),
            route("postgres sni=a.example", first),
            route("postgres sni=c.example", backend("c", two, away, max_connections=1)),
        ]
        port = self.mux(routes)
        cancelling = [await self.connect(port, CANCEL) for _ in range(2)]
        for number in range(2):
            for server in self.factories:
                await server.heard(16, number)
        session = await self.connect(port, b"SSH-2.0-x\r\n")
        (await self.factories[0].heard(11, 2)).send(b"x")
        await session.has(1)
        # Nor does the end of a request free one that the session has.
        for one_of in cancelling:
            one_of.reset()
        await self.turn(5)
        await self.connect_until_lost(port, b"SSH-2.0-y\r\n")
        session.reset()

    async def test_address_that_a_look_up_finds_meanwhile(self) -> None:
        """It gets the request instead of one that fails; no slot stays taken."""
        ports = self.servers(2)
        stalled = backend("b", make_stalled_port(self), connect_timeout=1)
        port = self.mux([*self.by_name(ports[0]), route("postgres sni=b", stalled)])
        client = await self.connect(port, CANCEL)
        await self.factories[0].heard(16)
        pool = self.factory.upstreams.upstream_of(stalled).pool
        pool.set_addresses(stalled.servers[0], [ResolvedAddress("127.0.0.1", ports[1])])
        self.time.advance(1)
        peers = [await one.heard(16) for one in self.factories]
        (member,) = pool.members
        self.assertEqual(member.health.connections, 1)
        for peer in peers:
            peer.close()
        await self.assert_cancelled(client, 1, "2 of 2", reason="done")
        self.assertEqual((member.health.connections, pool.connections), (0, 0))

    async def test_bounds(self) -> None:
        """Of servers, of connections to them at once, and of clients of a source."""
        server = PeerFactory()
        ports = [listen(self, server) for _ in range(102)]
        port = self.mux([route("postgres", backend("b", *ports))])
        clients = [await self.connect(port, CANCEL) for _ in range(17)]
        while len(server.peers) < 160:
            await self.turn()
        await self.turn(20)
        self.assertEqual(len(server.peers), 160)
        clients[0].reset()
        await self.logged()
        self.time.advance(0)
        await server.peer(169)
        for client in clients[2:]:
            client.reset()
        await self.until_logged(16)
        while not clients[1].finished:
            for peer in server.peers:
                peer.close()
            await self.turn()
        await self.assert_cancelled(clients[1], 17, "100 of 102", reason="done")

    async def test_client_that_leaves_or_stops(self) -> None:
        port = self.mux(self.by_name(*self.servers(2)))
        half = await self.connect(port, CANCEL[:9])
        half.finish()
        await self.assert_ended(half, reason="client-gone")
        slow = await self.connect(port, CANCEL[:9])
        await self.seen(9)
        self.time.advance(5)
        await self.assert_ended(slow, 2, reason="no-route")
        gone = await self.connect(port, CANCEL)
        servers = [await server.heard(16) for server in self.factories]
        gone.reset()
        await self.assert_logged(3, reason="client-gone")
        for peer in servers:
            await peer.is_lost()

    async def test_header_precedes_it(self) -> None:
        routes = [
            route(f"postgres sni={port}", backend(str(port), port, proxy_protocol="v1"))
            for port in self.servers(2)
        ]
        port = self.mux(routes, accept_proxy_from=("127.0.0.1",))
        header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
        await self.assert_reaches(port, header + CANCEL, client="192.0.2.1:1")

    async def test_servers_inside_tls(self) -> None:
        """They are those of a client in the clear, too, unless it would have to show a certificate."""
        ports = self.servers(3)
        outer = [
            self.tls.route("one", "postgres sni=a.example", outcome=backend("a", ports[0])),
            self.tls.route("two", "postgres sni=b.example"),
            self.tls.route("three", "postgres sni=c.example", client_ca=self.tls.ca),
            self.tls.route("tls", "tls"),
        ]
        inner = [
            attrs.evolve(route(f"postgres user={port}", backend(str(port), port)), under=(under,))
            for under, port in (("two", ports[1]), ("three", free_port()), ("tls", ports[1]), ("tls", ports[2]))
        ]  # fmt: skip
        port = self.mux([*outer, *inner])
        client = await self.connect(port, CANCEL)
        for server in self.factories[:2]:
            (await server.heard(16)).close()
        await self.assert_cancelled(client, 1, "2 of 2", reason="done")
        secure = await self.tls.client(port)
        secure.send(CANCEL)
        for server, number in ((self.factories[1], 1), (self.factories[2], 0)):
            (await server.heard(16, number)).close()
        await secure.until(lambda: secure.told_close_notify)
        secure.close()
        self.assertEqual((await self.assert_logged(2, reason="done")).facts["cancel"], "2 of 2")


class CancelRequestTests(CommandTestCase):
    text = (
        "[listen a]\nendpoint = :1\ndefault = reject\n"
        "[route shop]\nmatch = postgres sni=shop.test\nbackend = 10.0.0.1:5432\n"
        "[route inside]\nmatch = postgres sni=inside.test\nterminate_tls = x.pem\n"
        "[route wiki]\nunder = inside\nmatch = postgres user=*\nbackend = 10.0.0.2:5432\n"
        "[route any]\nmatch = postgres sni=*.x.test\nbackend = b\n"
        "[backend b]\nserver = {sni}:5432\nallow_names = *.x.test\n"
        "[route near]\nmatch = postgres database=x\nfrom = 10.0.0.0/8\nbackend = 10.0.0.3:5432\n"
    )

    def test_goes_to_each_server_that_may_have_the_query(self) -> None:
        (self.folder / "x.pem").touch()
        request = r"\x00\x00\x00\x10\x04\xd2\x16\x2e12345678"
        gssenc = r"\x00\x00\x00\x08\x04\xd2\x16\x30"
        for text, client, servers in (
            (request, "192.0.2.1", "at byte 8: cancel, to 10.0.0.1:5432, 10.0.0.2:5432\n"),
            (gssenc + request, "10.9.9.9", "10.0.0.2:5432, 10.0.0.3:5432\n"),
        ):
            self.assertIn(servers, self.explain("--text", text, "--from", client))
