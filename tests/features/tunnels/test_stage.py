import base64
import itertools
import json
import struct
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed

from tests.support.kit import Peer, close, free_port, make_folder
from tests.support.mux import CLOSE, MuxTestCase, backend_at, server_at
from tests.support.servers import counted
from tests.support.tunnels import OPEN, connect_to
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.features.tunnels import TUNNEL
from txmux.features.tunnels.users import TunnelUsers
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Clients, NetworkSet, Reachable, Refusal, Route, Server
from txmux.rules.reading.backend import KEYS
from txmux.tcp.moving import Unpacking, packed

SSH = b"SSH-2.0-test\r\n"
FORWARD = b"GET http://deb.example/x HTTP/1.1\r\nHost: deb.example\r\n\r\n"
MINE = Clients(NetworkSet([ip_network("192.0.2.1")]))
NO_ADDRESS = b"\0\1" + bytes(6)
MATCHES = ("http method=CONNECT", "socks5", "socks4")


def socks5(host: str, port: int, command: int = 1) -> bytes:
    return b"\5%c\0\3%c%b%b" % (command, len(host), host.encode(), struct.pack("!H", port))


def socks4a(host: str, port: int) -> bytes:
    return b"\4\1" + struct.pack("!H", port) + b"\0\0\0\1me\0" + host.encode() + b"\0"


def by_name(names: str, host: str = "{host}", port: int = 0) -> Backend:
    server = Server(f"{host}:{port or '{port}'}", "tcp", host=host, port=port)
    kind = KEYS["allow_names"].kind
    return Backend("named", (server,), allow_names=kind.collect([kind.read(names)]))


def tunnel_route(outcome: Any = None, users: Path | None = None, **more: Any) -> Route:
    keys = {"tunnel": TUNNEL, **({"tunnel_users": users} if users else {})}
    return attrs.evolve(route(MATCHES, CLOSE, name="tunnel"), outcome=outcome, more=keys, **more)


def inner(match: str, outcome: Any, under: str = "tunnel") -> Route:
    return attrs.evolve(route(match, outcome, name=f"in-{match}"), under=(under,))


def of_each(host: str) -> tuple[bytes, bytes, bytes]:
    return connect_to(f"{host}:1"), b"\5\1\0" + socks5(host, 1), socks4a(host, 1)


async def refused(case: MuxTestCase, port: int, said: bytes, answer: bytes, reason: str) -> None:
    count = len(case.records)
    client = await case.connect_until_lost(port, said)
    case.assertEqual(bytes(client.received[: len(answer)]), answer)
    case.assertEqual(client.received.count(b"HTTP/"), answer.count(b"HTTP/"))
    await case.assert_logged(count + 1, reason=reason)


class TunnelTest(MuxTestCase):
    # By a route with a server, nothing that a client says inside can change where it goes.
    async def test_answer_comes_once_a_server_is_connected(self) -> None:
        port = self.mux([tunnel_route(backend_at(self.backend_port()))])
        for number, said, answer, kind in (
            (0, connect_to("db.example:5432"), OPEN, "connect"),
            (1, socks4a("db.example", 5432), b"\0\x5a" + bytes(6), "socks4"),
            (2, b"\5\2\0\2" + socks5("db.example", 5432), b"\5\0\5\0" + NO_ADDRESS, "socks5"),
        ):
            with self.subTest(kind):
                client = await self.connect_answered(port, said, answer)
                server = await self.backend.peer(number)
                server.send(b"220 speaks first\r\n")
                await client.has(len(answer) + 18)
                client.send(b"x")
                await server.has(1)
                self.assertEqual(server.received, b"x")
                close(client, server)
                story = {"route": "tunnel", "reason": "done", "bytes_out": len(answer) + 18}
                record = await self.assert_logged(number + 1, **story)
                facts = {"tunnel": kind, "host": "db.example", "port": "5432"}
                self.assertEqual(record.facts, {**record.facts, **facts})

    async def test_codes(self) -> None:
        """Of a server that refuses, of a network that is not reached (no route leads to a group for TCP), and of what is not allowed, in any form."""
        refuses, group = (
            Backend("none", (one,), retries=0)
            for one in (server_at(free_port()), server_at(9, "224.0.0.1"))
        )
        names = "127.0.0.1", "a.test", "example", "2130706433", "0x7f.1"
        in_brackets = "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "0.0.0.0"
        socks = b"\5\1\0\5\1\0\1\x7f\0\0\1\0\1", b"\4\1\0\1\x7f\0\0\1\0"
        for backend, reason, asked, http, code in (
            (refuses, "connect-refused", [of_each("a")], b"502 Bad Gateway", 5),
            (group, "connect-refused", [(b"", b"\5\1\0" + socks5("a", 1), b"")], b"", 3),
            (by_name("*.example"), "name-denied", map(of_each, names), b"403 Forbidden", 2),
            (by_name("*"), "address-denied", [(connect_to(f"{one}:1"), *socks) for one in in_brackets],
             b"403 Forbidden", 2),
        ):  # fmt: skip
            port = self.mux([tunnel_route(backend)])
            self.records.clear()
            socks5_code = b"\5\0\5%c" % code + NO_ADDRESS
            answers = b"HTTP/1.1 %b\r\n" % http, socks5_code, b"\0\x5b" + bytes(6)
            for its in asked:
                for said, answer in zip(its, answers, strict=True):
                    if said:
                        await refused(self, port, said, answer, reason)

    async def test_timeout_of_a_server(self) -> None:
        backend = Backend("far", (server_at(9, "192.0.2.1"),), retries=0, connect_timeout=1.0)
        client = await self.connect(self.mux([tunnel_route(backend)]), connect_to("a:1"))
        while not any(one.state == "connecting" for one in self.factory.connections):
            await self.turn()
        self.time.advance(1.1)
        await client.is_lost()
        self.assertIn(client.received[:12], (b"HTTP/1.1 504", b"HTTP/1.1 502"))

    async def test_destination_is_what_was_asked_for_whatever_is_said_inside(self) -> None:
        asked = self.backend_port()
        loopback = Reachable([ip_network("127.0.0.0/8")])
        backend = attrs.evolve(by_name("127.0.0.*"), allow_networks=loopback)
        port = self.mux([tunnel_route(), inner("http", backend)])
        client = await self.connect_answered(port, connect_to(f"127.0.0.1:{asked}"), OPEN)
        client.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.9\r\n\r\n")
        close(client, await self.backend.heard(3))
        record = await self.logged()
        self.assertEqual((record.server, record.facts["host"]), (f"127.0.0.1:{asked}", "127.0.0.1"))

    async def test_server_is_counted_what_it_gets_and_sends(self) -> None:
        client, server = await self.tunnelled(SSH)
        server.send(b"x")
        await client.has(len(OPEN) + 1)
        await self.assert_closed(client, server, reason="done", bytes_out=len(OPEN) + 1)
        found = counted(self.factory, names=("bytes in", "bytes out"))
        self.assertEqual(found, {"bytes in": len(SSH), "bytes out": 1})

    async def test_server_that_says_nothing_and_resets(self) -> None:
        """What the client has got was not the server's, so that has not said all; nor after a move."""
        for number, moves in enumerate((False, True)):
            client, server = await self.tunnelled(SSH, number)
            client.finish()
            await server.has_all()
            if moves:
                self.move()
            server.reset()
            await client.is_lost()
            await self.assert_logged(reason="server-reset")
            self.records.clear()

    async def test_silent_client_that_has_moved(self) -> None:
        """Its server owes it nothing: the request was txmux's."""
        client, server = await self.tunnelled()
        self.move()
        server.close()
        await client.is_lost()
        await self.until_logged()
        self.assertEqual(counted(self.factory), {})

    def move(self) -> None:
        """Have another listener go on with the only connection."""
        (connection,) = self.factory.connections
        moved, sockets = connection.suspend()
        message = json.loads(json.dumps(packed([moved])))
        copies: Any = tuple(one.dup() for one in sockets)
        self.mux([self.route])
        (row,) = message["rows"]
        self.factory.adopt(Unpacking(message["names"]).read(row), copies)
        connection.detach()

    async def tunnelled(self, said: bytes = b"", index: int = 0, **keys: Any) -> tuple[Peer, Peer]:
        """Return a client, and the server of its tunnel, that has what the client said inside."""
        self.route = tunnel_route(backend_at(self.backend_port(), **keys))
        port = self.mux([self.route])
        client = await self.connect_answered(port, connect_to("a:22") + said, OPEN)
        return client, await self.backend.heard(len(said), index)

    # Routes under the tunnel look at what comes inside, so the client is answered before.
    async def test_routes_decide_on_what_is_inside(self) -> None:
        backend = backend_at(self.backend_port())
        port = self.mux([tunnel_route(), inner("ssh", backend), inner("tls", Refusal.RESET)])
        client = await self.connect_answered(port, connect_to("a:22"), OPEN)
        self.assertEqual(self.backend.peers, [])
        client.send(SSH)
        close(client, await self.backend.heard(len(SSH)))
        await self.assert_logged(route="in-ssh", reason="done")
        client = await self.connect_answered(port, connect_to("a:443"), OPEN)
        client.send(records(client_hello(server_name("a.example"))))
        await client.is_lost()
        record = await self.logged(2)
        self.assertEqual((record.route, record.facts["sni"]), ("in-tls", "a.example"))
        client = await self.connect(port, connect_to("a:22") + SSH)
        client.finish()
        server = await self.backend.heard(len(SSH), 1)
        self.assertEqual(server.received, SSH)
        await client.has(len(OPEN))
        await self.assert_closed(client, server, 3, route="in-ssh", reason="done")

    async def test_failure_behind_an_answer_closes(self) -> None:
        backend = Backend("none", (server_at(free_port()),), retries=0)
        port = self.mux([tunnel_route(), inner("ssh", backend)])
        await refused(self, port, connect_to("a:22") + SSH, OPEN, "connect-refused")

    async def test_tunnel_in_a_tunnel(self) -> None:
        other = attrs.evolve(tunnel_route(), name="second", under=("tunnel",))
        backend = backend_at(self.backend_port())
        port = self.mux([tunnel_route(), other, inner("any", backend, "second")])
        said = connect_to("a:1") + connect_to("b:2") + SSH
        client = await self.connect_answered(port, said, OPEN + OPEN)
        close(client, await self.backend.heard(len(SSH)))
        record = await self.logged()
        self.assertEqual((record.facts["host"], record.facts["port"]), ("b", "2"))

    async def test_answer_says_what_is_possible(self) -> None:
        said = b"POST / HTTP/1.0\r\n\r\nx"
        for default in (CLOSE, Refusal.REJECT):
            for first, rest in ((FORWARD, b""), (said, b""), (said[:1], said[1:])):
                client = await self.connect(self.mux([tunnel_route()], default=default), first)
                if rest:
                    await self.seen(1)
                    client.send(rest)
                await client.is_lost()
                head, _, body = bytes(client.received).partition(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n"))
                self.assertIn(b"\r\nAllow: CONNECT\r\n", head)
                self.assertIn(b"opens tunnels by CONNECT", body)
                self.assertFalse(client.was_reset())
                await self.assert_logged(reason="no-route", bytes_in=len(first + rest))
                self.records.clear()
        other = attrs.evolve(tunnel_route(), name="second", under=("tunnel",))
        port = self.mux([tunnel_route(), other])
        client = await self.connect_until_lost(port, connect_to("a:1") + FORWARD)
        self.assertTrue(client.received.startswith(OPEN + b"HTTP/1.1 405 "))

    async def test_who_could_have_no_tunnel(self) -> None:
        """The answer is that of all others."""
        elsewhere = Clients(NetworkSet([ip_network("192.0.2.0/24")]))
        by_socks, of_host = (
            attrs.evolve(tunnel_route(), alternatives=route(match, CLOSE).alternatives)
            for match in ("socks5", "http method=CONNECT host=a")
        )
        for said, made, default in (
            (FORWARD, tunnel_route(clients=elsewhere), CLOSE),
            (FORWARD, tunnel_route(dry_run=True), CLOSE), (FORWARD, by_socks, CLOSE),
            (FORWARD, tunnel_route(), Refusal.RESET), (connect_to("b:1"), of_host, CLOSE),
            (SSH, tunnel_route(), CLOSE), (SSH, tunnel_route(), Refusal.REJECT),
        ):  # fmt: skip
            client = await self.connect_until_lost(self.mux([made], default=default), said)
            self.assertEqual(b"not allowed here" in client.received, default == Refusal.REJECT)
            self.assertEqual(bool(client.received), default == Refusal.REJECT)
            await self.assert_logged(reason="no-route")
            self.records.clear()

    async def test_no_request(self) -> None:
        """But much may stand behind one, in one piece."""
        port = self.mux([tunnel_route(backend_at(self.backend_port()))], peek_limit=4096)
        for number, request in enumerate(of_each("a")):
            client = await self.connect(port, request + bytes(30_000))
            close(client, await self.backend.heard(30_000, number))
            await self.logged(number + 1)
        for said in (
            connect_to("http://a/"), connect_to("/"), connect_to("a"), connect_to("a:0"),
            connect_to("a:65536"), connect_to("a:-1"), connect_to("me@a:1"),
            connect_to("[::1%25lo]:1"), connect_to("[a]:1"), connect_to("a\xfc.example:1"),
        ):  # fmt: skip
            await refused(self, port, said, b"HTTP/1.1 400 Bad Request\r\n", "denied")
        long = connect_to("a:1", *(f"X-{n}: {'y' * 40}" for n in range(200)))
        await refused(self, port, long, b"HTTP/1.1 431 ", "denied")
        for said, answer in (
            (b"\5\1\2", b"\5\xff"),
            (b"\5\1\0" + socks5("a", 1, command=2), b"\5\0\5\7" + NO_ADDRESS),
            (b"\5\1\0" + socks5("a", 0), b"\5\0\5\1" + NO_ADDRESS),
            (b"\5\1\0" + socks5("a b", 1), b"\5\0\5\1" + NO_ADDRESS),
            (b"\5\1\0\5\1\0\2", b"\5\0\5\x08" + NO_ADDRESS),
            (b"\4\2\0\1\1\2\3\4\0", b"\0\x5b" + bytes(6)),
        ):
            client = await self.connect(port, said)
            await client.has(len(answer))
            self.assertEqual(bytes(client.received), answer)
            client.close()
        self.assertEqual(len(self.backend.peers), 3)

    async def test_client_that_says_no_more(self) -> None:
        port = self.mux([tunnel_route(backend_at(self.backend_port()))], detect_timeout=2.0)
        client = await self.connect(port, b"CONNECT a:1 HTTP/1.1\r\n")
        while not any(one.state == "tunnelling" for one in self.factory.connections):
            await self.turn()
        self.time.advance(2.1)
        await client.has_all()
        self.assertEqual(client.received[:13], b"HTTP/1.1 408 ")
        client.close()
        self.assertIn("detect_timeout", (await self.logged()).facts["tunnel_error"])

    async def test_http2(self) -> None:
        its = attrs.evolve(tunnel_route(), alternatives=route("http", CLOSE).alternatives)
        client = await self.connect(self.mux([its]), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await client.has(9)
        self.assertEqual(client.received[3], 4)  # SETTINGS
        client.close()
        await self.logged()


def users_file(case: MuxTestCase, *users: str) -> Path:
    import bcrypt  # noqa: PLC0415 - of an extra

    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).replace(b"$2b$", b"$2y$")
    path = make_folder(case) / "users"
    path.write_bytes(b"# who\n" + b"".join(b"%b:%b\n" % (one.encode(), hashed) for one in users))
    return path


def basic(login: str) -> str:
    return f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}"


class LoginTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = users_file(self, "ann")

    def port(self) -> int:
        return self.mux([tunnel_route(backend_at(self.backend_port()), users=self.file)])

    async def test_client_tries_again_on_the_same_connection(self) -> None:
        client = await self.connect(self.port(), connect_to("a:1"))
        await client.until(lambda: client.received.endswith(b"Required\n"))
        self.assertIn(b"407 Proxy Authentication Required\r\n", client.received)
        self.assertIn(b'Proxy-Authenticate: Basic realm="txmux"', client.received)
        self.assertNotIn(b"Connection: close", client.received)
        self.assertEqual(self.backend.peers, [])
        client.send(connect_to("a:1", basic("ann:secret")))
        await client.until(lambda: client.received.endswith(OPEN))
        close(client, await self.backend.peer(0))
        record = await self.logged()
        self.assertEqual(record.facts["user"], "ann")
        self.assertNotIn("tunnel_error", record.facts)
        said = connect_to("a:1", basic("ann:wrong"))
        client = await self.connect(self.listening.getHost().port, said)
        await client.until(lambda: client.received.endswith(b"Required\n"))
        client.finish()
        await client.is_lost()
        self.assertEqual(client.received.count(b"HTTP/1.1"), 1)
        record = await self.logged(2)
        self.assertEqual(record.facts["tunnel_error"], "its login as 'ann' is wrong")

    async def test_wrong_logins(self) -> None:
        port = self.port()
        for login in ("ann:wrong", "bob:secret", f"ann:{'x' * 100}", "ann:secret\0", "ann", ""):
            said = connect_to("a:1", *filter(None, [login and basic(login)])) * 50
            client = await self.connect_until_lost(port, said)
            self.assertEqual(client.received.count(b"HTTP/1.1 407 "), 3)
        twice = "Proxy-Authorization: Basic YW5uOnNlY3JldA=="
        for fields in ((twice, twice), ("Proxy-Authorization: Digest x",)):
            client = await self.connect_until_lost(port, connect_to("a:1", *fields, version="1.0"))
            self.assertIn(b"Connection: close", client.received)
        self.assertEqual(self.backend.peers, [])

    async def test_socks5(self) -> None:
        port = self.port()
        right, wrong = b"\1\3ann\6secret", b"\1\3ann\5other"
        said = b"\5\2\0\2" + right + socks5("a", 1)
        client = await self.connect_answered(port, said, b"\5\2\1\0\5\0" + NO_ADDRESS)
        close(client, await self.backend.peer(0))
        for said, answer, problem in (
            (b"\5\2\0\2" + wrong, b"\5\2\1\1", "its login as 'ann' is wrong"),
            (b"\5\2\0\2\1\2\0\n\1x", b"\5\2\1\1", r"its login as '\x00\n' is wrong"),
            (b"\5\1\0", b"\5\xff", "it offers no login"),
        ):
            await self.logged()
            self.records.clear()
            self.assertEqual((await self.connect_until_lost(port, said)).received, answer)
            self.assertEqual((await self.logged()).facts["tunnel_error"], problem)
        client = await self.connect_until_lost(port, socks4a("a", 1))
        self.assertEqual(client.received, b"\0\x5b" + bytes(6))

    async def test_much_that_comes_while_a_password_is_checked(self) -> None:
        """It waits in the client's socket, and is read once the check is over."""
        asked: list[Deferred[bool]] = []

        def check(*_: object) -> Deferred[bool]:
            asked.append(Deferred())
            return asked[-1]

        self.patch(TunnelUsers, "check", check)
        backend = backend_at(self.backend_port())
        port = self.mux([tunnel_route(backend, users=self.file)], peek_limit=1024)
        again = connect_to("a:1", basic("ann:secret"), "X: " + "x" * 600)
        client = await self.connect(port, connect_to("a:1", basic("ann:wrong")))
        while not asked:
            await self.turn()
        client.send(again + again[:500])
        while not self.only().stage._paused:
            await self.turn()
        client.send(again[500:] + SSH)
        for count in (2, 3):
            asked[-1].callback(False)  # noqa: FBT003 - of a Deferred
            while len(asked) < count:
                await self.turn()
        asked[-1].callback(True)  # noqa: FBT003 - the same
        server = await self.backend.heard(len(SSH))
        self.assertEqual(client.received.count(b"HTTP/1.1 407 "), 2)
        close(client, server)
        await self.logged()

    async def test_no_room_for_a_login(self) -> None:
        """At once, or as another one takes its place."""
        said = connect_to("a:1", basic("ann:secret"))
        for answer in (None, succeed(None)):
            self.patch(TunnelUsers, "check", lambda *_, answer=answer: answer)
            await refused(self, self.port(), said, b"HTTP/1.1 503 ", "denied")
            why = self.records.pop().facts["tunnel_error"]
            self.assertEqual(why, "too many logins wait to be checked")

    async def test_client_leaves_while_its_password_is_checked(self) -> None:
        (await self.connect(self.port(), connect_to("a:1", basic("ann:wrong")))).reset()
        await self.logged()
        self.assertEqual(self.backend.peers, [])


class FurtherRequestTest(MuxTestCase):
    """A login opens what the route of its own request is for, and nothing else."""

    def setUp(self) -> None:
        super().setUp()
        mine, others = users_file(self, "ann"), users_file(self, "ann", "bob")
        made = [route("http upgrade=h2c", Refusal.REJECT, name="closed")]
        for name, match, users in (
            ("admin", "host=127.0.0.2,admin.test", mine),
            ("rest", "version=1.1", others),
        ):
            its = route(f"http method=CONNECT {match}", backend_at(self.backend_port()), name=name)
            made.append(attrs.evolve(its, more={"tunnel": TUNNEL, "tunnel_users": users}))
        self.at = self.mux(made)

    async def test_target_of_another_route(self) -> None:
        """Neither by a further request nor by another form of its address or name."""
        admin = (
            "127.0.0.2",
            "[::ffff:127.0.0.2]",
            "[0:0:0:0:0:ffff:7f00:2]",
            "admin.test",
            "ADMIN.test.",
        )
        for target, at_once in itertools.product(admin, (True, False)):
            again = connect_to(f"{target}:22", basic("bob:secret"))
            client = await self.connect(self.at, connect_to("127.0.0.3:22") + again * at_once)
            await client.has(12)
            if not at_once:
                client.send(again)
            await client.is_lost()
            self.assertEqual(client.received.count(b"HTTP/1.1 "), 2)
            self.assertEqual(client.received.count(b"HTTP/1.1 407 "), 1, target)
            self.assertIn(b"HTTP/1.1 400 ", client.received)
            record = await self.logged()
            self.assertEqual((record.route, record.reason), ("rest", "denied"))
            self.assertIn("another route", record.facts["tunnel_error"])
            self.records.clear()
            client = await self.connect_until_lost(self.at, connect_to(f"{target}:22") + 2 * again)
            self.assertEqual(client.received.count(b"HTTP/1.1 407 "), 3)
            self.assertEqual((await self.logged()).route, "admin")
            self.records.clear()
        self.assertEqual(self.backend.peers, [])

    async def test_whatever_else_has_decided(self) -> None:
        for said in (
            connect_to("127.0.0.3:22", basic("bob:secret"), version="1.0"),
            connect_to("127.0.0.3:22", basic("bob:secret"), "Upgrade: h2c"),
            b"GET / HTTP/1.1\r\n" + basic("bob:secret").encode() + b"\r\n\r\n",
            b"\5\2\0\2\1\3bob\6secret" + socks5("127.0.0.3", 22) + b"\r\n\r\n",
        ):
            client = await self.connect_until_lost(self.at, connect_to("127.0.0.3:22") + said)
            self.assertIn(b"HTTP/1.1 400 ", client.received)
        self.assertEqual(self.backend.peers, [])

    async def test_target_of_the_same_route(self) -> None:
        said = connect_to("127.0.0.3:22") + connect_to("db.example:23", basic("bob:secret"))
        client = await self.connect(self.at, said)
        await client.until(lambda: client.received.endswith(OPEN))
        close(client, await self.backend.peer())
        record = await self.logged()
        self.assertEqual((record.facts["host"], record.facts["port"]), ("db.example", "23"))
        self.assertEqual(record.facts["user"], "bob")


class ProxyHeaderTest(MuxTestCase):
    """The address of a client is that of the header before its tunnel; what it writes inside is only bytes."""

    def believing(self, routes: list[Route], **settings: Any) -> int:
        return self.mux(routes, accept_proxy_from=NetworkSet([ip_network("127.0.0.1")]), **settings)

    async def test_header_before_a_tunnel(self) -> None:
        backend = backend_at(self.backend_port(), proxy_protocol="v1")
        port = self.believing([tunnel_route(), attrs.evolve(inner("any", backend), clients=MINE)])
        for number, (address, is_mine) in enumerate((("192.0.2.1", True), ("192.0.2.2", False))):
            client = await self.connect(port, header_of(address) + connect_to("a:22") + SSH)
            if is_mine:
                server = await self.backend.heard(len(SSH))
                self.assertEqual(bytes(server.received), header_of(address) + SSH)
                close(client, server)
            await client.is_lost()
            record = await self.logged(number + 1)
            self.assertEqual(record.client, f"{address}:1")
            self.assertEqual(record.route, "in-any" if is_mine else "tunnel")

    async def test_limits_count_the_client_of_the_header(self) -> None:
        tunnel = tunnel_route(backend_at(self.backend_port()))
        port = self.believing([tunnel], max_connections_per_source=1)
        first = await self.connect(port, header_of("192.0.2.1") + connect_to("a:22"))
        await first.has(len(OPEN))
        second = await self.connect_until_lost(port, header_of("192.0.2.1") + connect_to("a:22"))
        self.assertEqual(second.received, b"")
        other = await self.connect(port, header_of("192.0.2.2") + connect_to("a:22"))
        await other.has(len(OPEN))
        close(first, other, *self.backend.peers)
        await self.logged(3)

    async def test_header_between_and_inside(self) -> None:
        """It is no request for a tunnel, and inside it is for the server, which gets it as it is."""
        inside = inner("ssh", Refusal.RESET), inner("any", backend_at(self.backend_port()))
        said = header_of("192.0.2.1") + SSH
        client = await self.connect(self.mux([tunnel_route(), *inside]), connect_to("a:22") + said)
        server = await self.backend.heard(len(said))
        self.assertEqual(bytes(server.received), said)
        close(client, server)
        record = await self.logged()
        self.assertEqual((record.route, record.client.partition(":")[0]), ("in-any", "127.0.0.1"))

    async def test_header_to_a_listener_of_this_service(self) -> None:
        """A client that chooses its server cannot claim an address at a listener that believes this machine."""
        loopback = Reachable([ip_network("127.0.0.0/8")])
        backend = attrs.evolve(by_name("127.*"), allow_networks=loopback)
        secret = route("any", backend_at(self.backend_port()), name="secret")
        port = self.believing([tunnel_route(backend), attrs.evolve(secret, clients=MINE)])
        said = header_of("192.0.2.9") + connect_to(f"127.0.0.1:{port}")
        await self.connect_until_lost(port, said + header_of("192.0.2.1") + SSH)
        await self.logged(2)
        self.assertEqual(self.backend.peers, [])
        [inside] = [one for one in self.records if one.reason == "proxy-header"]
        self.assertIn("a client of this service has written it", inside.facts["proxy_error"])


def header_of(address: str) -> bytes:
    return b"PROXY TCP4 %b 192.0.2.99 1 443\r\n" % address.encode()
