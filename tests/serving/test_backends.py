"""Backends of a whole service: pools that are shared, names, and TLS to their servers."""

from typing import Any

from twisted.internet.ssl import CertificateOptions
from twisted.logger import capturedLogs, formatEvent

from tests.backends.names.nameserver import SILENCE, NameServer, a
from tests.support.kit import VirtualTime, authority, free_port
from tests.support.peers import PeerFactory, listen, listen_tls, reactor
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.support.service import HEAD, PUBLIC, ServiceTestCase
from txmux.backends.health.checks import key_of
from txmux.backends.names import lookup as lookups
from txmux.backends.names.lookup import Lookup

_ALL = "[route all]\nmatch = any\nbackend = {}\n"


class BackendsTest(ServiceTestCase):
    async def test_one_pool(self) -> None:
        """Connections of two listeners, and those for which it is the fallback, count together."""
        server, listening = PeerFactory(), "endpoint = 127.0.0.1:0\n"
        rules = f"{HEAD}[backend other]\nserver = 127.0.0.1:{free_port()}\nfallback = pool\n"
        for name, to in (("one", "pool"), ("two", "pool"), ("three", "other")):
            rules += f"[listen {name}]\n{listening}[route {name}]\nmatch = any\nunder = {name}\n"
            rules += f"backend = {to}\n"
        rules += f"[backend pool]\nserver = 127.0.0.1:{listen(self, server)}\nmax_connections = 2\n"
        one, two, three = self.run_service(rules)
        clients = [await self.client(one)]
        await server.peer()
        clients.append(await self.client(three))
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

    def begin(self, words: str) -> int:
        self.main, self.backup = PeerFactory(), PeerFactory()
        ports = [listen(self, one) for one in (self.main, self.backup, PeerFactory())]
        (public,) = self.run_service(
            f"{HEAD}{PUBLIC}{_ALL.format('pool')}[backend pool]\n"
            f"server = 127.0.0.1:{ports[0]}\n    127.0.0.1:{ports[1]} backup\n"
            # The server that it asks never answers.
            f"check = http port={ports[2]} interval=1h timeout=1h rise=1 fall=1\n{words}"
        )
        return public

    def check(self, number: int, *, ok: bool) -> None:
        upstreams = self.running.listeners[0].upstreams
        member = upstreams.find("pool").pool.members[number]
        upstreams.apply_check("pool", key_of(member), ok=ok, why="it said no")

    async def test_connections_that_end_where_the_rules_say_so(self) -> None:
        """Those to a server that is down, or to a backup when others are up again."""
        for words, reason in (("yes", "server-down"), ("backup", "server-down"), ("no", "done")):
            public = self.begin(f"end_on_down = {words}\n")
            if words == "backup":
                self.check(0, ok=False)
            client = await self.client(public)
            peer = await (self.backup if words == "backup" else self.main).heard(1)
            self.check(0, ok=words == "backup")
            await (self.finish(client, peer) if words == "no" else client.is_lost())
            self.assertEqual(client.was_reset(), words != "no")
            self.assertEqual((await self.logged(1))["reason"], reason)
            if words == "yes":
                other = await self.client(public)
                peer = await self.backup.heard(1)
                self.check(0, ok=True)
                await self.finish(other, peer)
                self.assertEqual((await self.logged(2))["reason"], "done")
            await self.stop()
            self.log.unlink()

    async def test_client_that_connects_meanwhile(self) -> None:
        """It is connected when the server is down already."""
        public = self.begin("end_on_down = yes\nconnect_timeout = 1s\n")
        upstream = self.running.listeners[0].upstreams.find("pool")
        picked = upstream.pool.pick

        def pick(*args: Any) -> Any:
            found = picked(*args)
            self.check(0, ok=False)
            return found

        self.patch(upstream.pool, "pick", pick)
        client = await self.client(public)
        await self.main.heard(1)
        await client.is_lost()
        self.assertEqual((await self.logged(1))["reason"], "server-down")

    async def test_clients_without_a_byte_eject_a_server(self) -> None:
        """Others get the next ones, be it in a relay of the kernel or not, and it stays connected to those that it has."""
        for relay in ("kernel", "portable"):
            virtual = VirtualTime()
            silent, well = PeerFactory(), PeerFactory()
            ports = [listen(self, one) for one in (silent, well)]
            (public,) = self.run_service(
                f"{HEAD}relay = {relay}\n{PUBLIC}{_ALL.format('pool')}[backend pool]\n"
                f"server = 127.0.0.1:{ports[0]}\n    127.0.0.1:{ports[1]}\nbalance = first\n"
                "eject = unanswered=2 after=5s for=1m\n",
                use=virtual,
            )
            with capturedLogs() as logged:
                sources = "127.0.0.1", "127.0.0.2"
                clients = [await self.client(public, source=source) for source in sources]
                for number in (0, 1):
                    await silent.heard(1, number)
                for _ in range(9):
                    virtual.advance(1)
                clients.append(await self.client(public))
                peer = await well.heard(1)
            why = f"backend pool: 127.0.0.1:{ports[0]} is ejected: no byte to 2 clients in a row for 5 s; it may expect a PROXY header: see proxy_protocol"
            self.assertIn(why, [formatEvent(event) for event in logged])
            self.assertEqual(len(silent.peers), 2)
            await self.finish(*clients, peer, *silent.peers)
            await self.stop()

    async def test_name_server_is_away(self) -> None:
        """A service without a supervisor logs that itself, and asks no longer once no rules name it."""
        port = free_port()
        route = "[route web]\nmatch = http\nbackend = named\n"
        named = f"server = {{host}}:80\nallow_names = *\nresolvers = 127.0.0.1:{port}\n"
        with capturedLogs() as events:
            (public,) = self.run_service(f"{HEAD}{PUBLIC}{route}[backend named]\n{named}")
            client = await self.client(public, b"GET / HTTP/1.1\r\nHost: x.test\r\n\r\n")
            await client.is_lost()
            lines = [str(formatEvent(event)) for event in events]
            self.assertIn(f"names 127.0.0.1:{port}: connection refused", "".join(lines))
            self.reload(f"{HEAD}{PUBLIC}{_ALL.format('127.0.0.1:1')}")
            self.assertFalse([one for one in reactor.getDelayedCalls() if "probe" in str(one)])

    async def test_no_answer(self) -> None:
        """A name server that is silent costs only the first clients of that backend a moment; others nothing."""
        dns, server, none = NameServer(), PeerFactory(), self.folder / "none"
        dns.listen()
        self.addCleanup(dns.stop)
        places = [dns.place]
        self.patch(lookups, "Lookup", lambda clock, _, **__: Lookup(clock, places, none, none))
        dns.zone["web.test"] = a("127.0.0.1")
        dns.fail("web.test", SILENCE)
        rules = f"""{HEAD}{PUBLIC}
[route named]
match = ssh
backend = named
[route other]
match = http
backend = 127.0.0.1:{listen(self, server)}
[backend named]
server = web.test:80
"""
        time = VirtualTime()
        (port,) = self.run_service(rules, use=time)
        waiting = await self.client(port, b"SSH-2.0-x\r\n")
        other = await self.client(port, b"GET / HTTP/1.1\r\n")
        peer = await server.peer()
        await peer.has(16)  # closed over unread bytes, it would be reset
        await self.finish(other, peer)
        self.assertEqual((await self.logged(1))["reason"], "done")
        connections = self.running.listeners[0].connections
        await self.until(lambda: [one.record.backend for one in connections] == ["named"])
        time.advance(1.9)
        self.assertEqual(len(connections), 1)
        time.advance(0.2)
        await waiting.is_lost()
        line = await self.logged(2)
        self.assertEqual((line["reason"], line["server"]), ("no-server", None))
        self.assertLess(line["duration_ms"], 4000)

    async def test_alpn(self) -> None:
        """What was agreed on with the client is offered to the server, unless the rules name something else."""
        ca = authority().write(self.folder / "ca.pem")
        own = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        made, server = authority().issue("www.example.com").private(), PeerFactory()
        key, pem = made.privateKey.original, made.original
        options = CertificateOptions(key, pem, acceptableProtocols=[b"h2", b"imap"])
        port = listen_tls(self, server, options)
        backend = f"server = 127.0.0.1:{port}\ntls = yes\ntls_name = www.example.com\ntls_ca = {ca}"
        rules = f"{HEAD}{PUBLIC}[route front]\nmatch = tls\nterminate_tls = {own}\nalpn = h2, http/1.1\n"
        for name, alpn in (("same", ""), ("other", "alpn = imap")):
            rules += (
                f"[route {name}]\nmatch = payload text={name}\nunder = front\nbackend = {name}\n"
            )
            rules += f"[backend {name}]\n{backend}\n{alpn}\n"
        (port,) = self.run_service(rules)
        for number, (said, wanted) in enumerate(((b"same", b"h2"), (b"other", b"imap"))):
            client = SecurePeer((client_context(ca, alpn=("h2",)), "a.example"))
            await connect_tls(self, port, client)
            await client.ready()
            client.send(said)
            peer = await server.peer(number)
            await peer.has(len(said))
            self.assertEqual(peer.transport.negotiatedProtocol, wanted)
            await client.has_all(peer.reset)
            client.reset()
            await self.logged(number + 1)
