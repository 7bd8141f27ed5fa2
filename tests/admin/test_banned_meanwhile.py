"""A ban comes while clients are at each stage before they have a server, and after."""

import ssl

from twisted.internet.task import deferLater

from tests.admin.asking import AdminCase
from tests.backends.connect.tls_case import authority
from tests.support.datagrams import Talker
from tests.support.peers import PeerFactory, connect, listen, reactor
from txmux.control.steering import hold
from txmux.rules.optional import missing

_RULES = """
[listen x]
endpoint = 127.0.0.1:0
detect_timeout = 10m
[listen u]
endpoint = udp:127.0.0.1:0
default = held-u
[route ssh]
under = *
match = ssh
backend = b
[route secure]
under = *
match = tls
terminate_tls = PEM
backend = b
[route tunnel]
under = *
match = socks5
tunnel = yes
backend = b
[route held]
under = *
match = payload text=hold
backend = held
[backend b]
server = 127.0.0.1:PORT
[backend held]
server = 127.0.0.1:PORT
hold = 10m
[backend held-u]
server = udp:127.0.0.1:PORT
hold = 10m
"""


class BannedTest(AdminCase):
    skip = missing("tunnel") or None

    async def states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in (await self.get("/api/connections")).json:
            state = f"{row['listener']} {row['state']}"
            found[state] = found.get(state, 0) + 1
        return found

    async def wait_for(self, **expected: int) -> None:
        wanted = {name.replace("_", " "): count for name, count in expected.items()}
        while (found := await self.states()) != wanted:
            await deferLater(reactor, 0.05)
        self.assertEqual(found, wanted)

    async def test_only_those_with_a_server_stay(self) -> None:
        backend = PeerFactory()
        pem = authority().issue("a.test").write(self.folder / "a.pem", key=True)
        rules = _RULES.replace("PORT", str(listen(self, backend))).replace("PEM", str(pem))
        await self.start("workers = 1", rules)
        for name in ("held", "held-u"):
            await hold(self.running.control, name)
        hello = ssl.MemoryBIO()
        handshake = ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), hello, server_hostname="a.test"
        )
        self.assertRaises(ssl.SSLWantReadError, handshake.do_handshake)
        said = (b"SSH-2.0-a\r\n", b"S", hello.read(), b"\5\1\0", b"hold")
        clients = [await connect(self, self.port) for _ in said]
        for client, data in zip(clients, said, strict=True):
            client.send(data)
        (udp,) = [port for port in self.ports() if port != self.port] or [self.port]
        Talker.listening(self).say(b"x", udp)
        stages = {"x_peeking": 1, "x_handshaking": 1, "x_tunnelling": 1, "x_connecting": 1}
        await self.wait_for(x_relaying=1, u_connecting=1, **stages)
        await self.post("/api/bans", {"network": "127.0.0.1"})
        await self.wait_for(x_relaying=1)
        relayed, *others = clients
        for client in others:
            await client.is_lost()
        self.assertFalse(relayed.finished)
        self.assertEqual(len(backend.peers), 1)
        # Workers report once a second.
        while len(rows := (await self.get("/api/recent")).json) < len(others) + 1:
            await deferLater(reactor, 0.05)
        self.assertEqual({row["reason"] for row in rows}, {"denied"})
