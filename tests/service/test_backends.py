"""Backends of a whole service: pools that are shared, names, and TLS to servers."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.backends.certificates import make_authority
from tests.backends.nameserver import SILENCE, NameServer, a, srv
from tests.backends.tls_case import authority
from tests.frontend.test_connecting import free_port
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.support.service import ServiceTestCase
from txmux.backends import resolve
from txmux.backends.lookup import Lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.backends.certificates import Identity

_HEAD = "[txmux]\naccess_log = LOG\naccess_log_format = json\n"
_PUBLIC = "[listen public]\nendpoint = 127.0.0.1:0\n"
_ALL = "[route all]\nmatch = any\nbackend = {}\n"


class BackendsCase(ServiceTestCase):
    """A service, and the servers and clients of a test."""

    def lines(self) -> list[dict[str, Any]]:
        """Give the access log."""
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor work until something is so."""
        while not condition():
            await deferLater(reactor, 0.005)

    async def logged(self, count: int) -> dict[str, Any]:
        """Wait for so many lines of the access log, and give the last one."""
        await self.until(lambda: len(self.lines()) >= count)
        self.assertEqual(len(self.lines()), count)
        return self.lines()[-1]

    async def client(self, port: int, data: bytes = b"x") -> Peer:
        """Connect a client, which says something."""
        client = await connect(self, port)
        client.send(data)
        return client

    async def finish(self, *ends: Peer) -> None:
        """Close connections."""
        for end in ends:
            end.close()
        for end in ends:
            await end.is_lost()


class SharedTest(BackendsCase):
    """One backend that is reached by several ways."""

    async def test_one_pool(self) -> None:
        """Connections of two listeners, and those for which it is the fallback, count together."""
        server = PeerFactory()
        rules = f"""{_HEAD}
[listen one]
endpoint = 127.0.0.1:0
[listen two]
endpoint = 127.0.0.1:0
[listen three]
endpoint = 127.0.0.1:0
[route one]
match = any
under = one
backend = pool
[route two]
match = any
under = two
backend = pool
[route three]
match = any
under = three
backend = other
[backend other]
server = 127.0.0.1:{free_port()}
fallback = pool
[backend pool]
server = 127.0.0.1:{listen(self, server)}
max_connections = 2
"""
        one, two, three = self.run_service(rules)
        clients = [await self.client(one), await self.client(three)]
        await server.peer(1)
        for number, port in enumerate((one, two, three), start=1):
            await (await self.client(port)).is_lost()
            self.assertEqual((await self.logged(number))["reason"], "limit")
        await self.finish(clients[0], server.peers[0])
        await self.logged(4)
        last = await self.client(two)
        peer = await server.peer(2)
        await self.finish(last, peer, clients[1], server.peers[1])
        await self.logged(6)


class NamesTest(BackendsCase):
    """Servers that are known by name only."""

    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer()
        self.dns.listen()
        self.addCleanup(self.dns.stop)
        none = self.folder / "none"
        lookup = partial(Lookup, servers=[self.dns.place], resolv_conf=none, hosts=none)
        self.patch(resolve, "Lookup", lookup)

    def serve(self, server: str, more: str = "") -> None:
        """Lead everybody to these servers."""
        rules = f"{_HEAD}{_PUBLIC}{_ALL.format('named')}[backend named]\nserver = {server}\n{more}"
        (self.port,) = self.run_service(rules)

    def servers(self, *hosts: str) -> tuple[int, list[PeerFactory]]:
        """Listen on the same port of several addresses."""
        factories = [PeerFactory() for _ in hosts]
        opened: list[Any] = []
        while len(opened) < len(hosts):
            port = opened[0].getHost().port if opened else 0
            try:
                factory, host = factories[len(opened)], hosts[len(opened)]
                opened.append(reactor.listenTCP(port, factory, interface=host))
            except CannotListenError:  # another program has it there
                for listening in opened:
                    listening.stopListening()
                opened.clear()
        for listening in opened:
            self.addCleanup(listening.stopListening)
        return opened[0].getHost().port, factories

    async def test_first_client(self) -> None:
        """The first client after the start is served, though the name is not known yet."""
        port, (server,) = self.servers("127.0.0.1")
        self.dns.zone["web.test"] = a("127.0.0.1")
        self.serve(f"web.test:{port}")
        client = await self.client(self.port, b"at once")
        peer = await server.peer()
        await peer.has(7)
        await self.finish(client, peer)
        self.assertEqual((await self.logged(1))["server"], f"127.0.0.1:{port}")

    async def test_answers_change(self) -> None:
        """New clients follow the answers; old connections stay; a name that vanishes keeps what it had."""
        port, (first, second) = self.servers("127.0.0.1", "127.0.0.2")
        self.dns.zone["web.test"] = a("127.0.0.1", ttl=1)
        self.serve(f"web.test:{port}", "resolve = 1s")
        old = await self.client(self.port)
        kept = await first.peer()
        self.dns.zone["web.test"] = a("127.0.0.2", ttl=1)
        await self.until(lambda: self.hosts() == ["127.0.0.2"])
        client = await self.client(self.port)
        await self.finish(client, await second.peer())
        kept.send(b"still here")
        await old.has(10)
        with capturedLogs() as events:
            del self.dns.zone["web.test"]
            await self.until(
                lambda: any("no such name" in str(event.get("trouble")) for event in events)
            )
        client = await self.client(self.port)
        await self.finish(client, await second.peer(1))
        await self.finish(old, kept)
        await self.logged(3)

    def hosts(self) -> list[str]:
        """Give the addresses that are in use."""
        upstreams = self.running.factories[0].upstreams._upstreams.values()
        return [member.target.host for one in upstreams for member in one.pool.members]

    async def test_no_answer(self) -> None:
        """A name server that is silent costs only the first clients of that backend a moment; others nothing."""
        self.dns.zone["web.test"] = a("127.0.0.1")
        self.dns.fail("web.test", SILENCE)
        server = PeerFactory()
        rules = f"""{_HEAD}{_PUBLIC}
[route named]
match = ssh
backend = named
[route other]
match = http
backend = 127.0.0.1:{listen(self, server)}
[backend named]
server = web.test:80
"""
        (port,) = self.run_service(rules)
        waiting = await self.client(port, b"SSH-2.0-x\r\n")
        other = await self.client(port, b"GET / HTTP/1.1\r\n")
        peer = await server.peer()
        await self.finish(other, peer)
        self.assertEqual((await self.logged(1))["reason"], "done")
        await waiting.is_lost()
        line = await self.logged(2)
        self.assertEqual((line["reason"], line["server"]), ("no-server", None))
        self.assertLess(line["duration_ms"], 4000)

    async def test_hundreds(self) -> None:
        """An answer with 500 addresses makes 500 servers, and clients are served meanwhile."""
        port, (server,) = self.servers("127.0.0.1")
        self.dns.zone["web.test"] = a(*(f"127.0.{i // 250}.{1 + i % 250}" for i in range(500)))
        self.serve(f"web.test:{port}", "balance = first\nretries = 1000\neject = off")
        client = await self.client(self.port)
        peer = await server.peer()
        self.assertEqual(len(self.hosts()), 500)
        await self.finish(client, peer)
        await self.logged(1)

    async def test_service_records(self) -> None:
        """Those with the lowest priority are used, the others when these are gone."""
        port, (near, far) = self.servers("127.0.0.1", "127.0.0.2")
        self.dns.zone["_ssh._tcp.test"] = [
            srv("near.test", port, priority=1),
            srv("far.test", port, priority=2),
        ]
        self.dns.zone["near.test"] = a("127.0.0.1")
        self.dns.zone["far.test"] = a("127.0.0.2")
        self.serve("srv:_ssh._tcp.test", "eject = failures=1")
        for number in range(3):
            await self.finish(await self.client(self.port), await near.peer(number))
        (port_of_near,) = (p for p in reactor.getReaders() if getattr(p, "factory", None) is near)
        await port_of_near.stopListening()
        for number in range(2):
            await self.finish(await self.client(self.port), await far.peer(number))
        self.assertEqual(len(near.peers), 3)
        await self.logged(5)


class TLSTest(BackendsCase):
    """Servers to which TLS is spoken."""

    def secure(self, identity: Identity, **settings: Any) -> tuple[int, PeerFactory]:
        """Start a server with this certificate."""
        factory = PeerFactory()
        made = identity.private()
        options = CertificateOptions(made.privateKey.original, made.original, **settings)
        port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port, factory

    async def test_bad_certificates(self) -> None:
        """Each is a reason of its own in the service's log, and no other backend suffers."""
        ca = authority().write(self.folder / "ca.pem")
        identities = {
            "right": (authority().issue("www.example.com"), None),
            "wrong": (authority().issue("other.example.com"), "is for other.example.com, not for"),
            "expired": (authority().issue("www.example.com", ends=-1), "its certificate expired"),
            "selfmade": (make_authority("x", "www.example.com"), "self-signed and not trusted"),
            "unknown": (
                make_authority("Elsewhere").issue("www.example.com"),
                "of an unknown authority",
            ),
        }
        rules, servers = [_HEAD, _PUBLIC], {}
        for name, (identity, _) in identities.items():
            port, servers[name] = self.secure(identity)
            rules.append(
                f"[route {name}]\nmatch = payload text={name}\nbackend = {name}\n"
                f"[backend {name}]\nserver = 127.0.0.1:{port}\ntls = yes\n"
                f"tls_name = www.example.com\ntls_ca = {ca}\n"
            )
        (port,) = self.run_service("\n".join(rules))
        for number, (name, (_, why)) in enumerate(identities.items(), start=1):
            with capturedLogs() as events:
                client = await self.client(port, name.encode())
                if why is None:
                    peer = await servers[name].peer()
                    await peer.has(5)
                    peer.send(b"good")
                    await client.has(4)
                    await self.finish(peer)
                await client.is_lost()
                line = await self.logged(number)
            told = [event["why"] for event in events if "why" in event]
            self.assertEqual((name, line["reason"]), (name, "tls-failed" if why else "done"))
            if why:
                (said,) = told
                self.assertIn(why, said)

    async def test_alpn(self) -> None:
        """What was agreed on with the client is offered to the server, unless the rules name something else."""
        ca = authority().write(self.folder / "ca.pem")
        own = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        port, server = self.secure(
            authority().issue("www.example.com"), acceptableProtocols=[b"h2", b"imap"]
        )
        backend = f"server = 127.0.0.1:{port}\ntls = yes\ntls_name = www.example.com\ntls_ca = {ca}"
        rules = f"""{_HEAD}{_PUBLIC}
[route front]
match = tls
terminate_tls = {own}
alpn = h2, http/1.1
[route same]
match = payload text=same
under = front
backend = same
[route other]
match = payload text=other
under = front
backend = other
[backend same]
{backend}
[backend other]
{backend}
alpn = imap
"""
        (port,) = self.run_service(rules)
        for number, (said, wanted) in enumerate(((b"same", b"h2"), (b"other", b"imap"))):
            client = SecurePeer((client_context(ca, alpn=("h2",)), "a.example"))
            await connect_tls(self, port, client)
            await client.ready()
            client.send(said)
            peer = await server.peer(number)
            await peer.has(len(said))
            self.assertEqual(peer.transport.negotiatedProtocol, wanted)
            peer.reset()
            await client.has_all()
            client.reset()
            await self.logged(number + 1)
