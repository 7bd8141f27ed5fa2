import ssl
import time

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.support.kit import AdminCase, PeerFactory, Talker, authority, connect, listen, reactor
from tests.support.supervised import is_let_in
from txmux.access.bans import LONGEST_REASON, Ban, banned_network
from txmux.control.steering import hold
from txmux.rules.optional import missing


class BansTest(AdminCase):
    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        await self.route_ssh()

    async def ban(self, network: str, seconds: int | None = None, reason: str = "") -> None:
        wanted = {"network": network, "reason": reason}
        limit = {} if seconds is None else {"seconds": seconds}
        told = await self.post("/api/bans", {**wanted, **limit})
        self.assertEqual(told.status, 200)
        self.assertTrue(told.json["changes"].endswith(" is banned"), told.json)

    async def is_let_in(self) -> bool:
        return await is_let_in(self, self.port, self.backend)

    async def test_ban_holds_at_once_for_new_clients_until_it_is_lifted(self) -> None:
        (client,) = await self.clients(1)
        begun = time.time()
        reason = "a test".ljust(LONGEST_REASON, ".")
        await self.ban("127.0.0.0/8", 3600, reason)
        self.assertFalse(await self.is_let_in())
        self.assertFalse(client.finished)
        (told,) = (await self.get("/api/bans")).json
        self.assertEqual((await self.get("/api/status")).json["bans"]["active"], 1)
        self.assertEqual((told["network"], told["reason"]), ("127.0.0.0/8", reason))
        self.assertTrue(begun <= told["since"] <= time.time())
        self.assertEqual(round(told["until"] - told["since"]), 3600)
        gone = await self.post("/api/bans/remove", {"network": "127.0.0.0/8"})
        self.assertEqual(gone.json["changes"], "127.0.0.0/8 is no longer banned")
        self.assertEqual((await self.get("/api/bans")).json, [])
        self.assertTrue(await self.is_let_in())
        await self.ban("::ffff:127.0.0.9")  # others are accepted and a ban may have no end
        self.assertTrue(await self.is_let_in())
        (told,) = (await self.get("/api/bans")).json
        self.assertEqual((told["network"], told["until"]), ("127.0.0.9", None))
        await self.ban("127.0.0.1")  # bans survive a reload
        self.assertTrue((await self.running.reload()).ok)
        self.assertFalse(await self.is_let_in())

    async def test_ban_while_a_worker_starts_holds_there_too(self) -> None:
        await self.ban("127.0.0.2")
        pool = self.supervisor.pool
        (before,) = pool.workers
        pool.replace(before)
        ban = Ban(banned_network("127.0.0.1"), time.time())
        bans = self.running.control.bans
        telling = bans.add(ban), bans.lift(banned_network("127.0.0.2"))
        begun = [*map(Deferred.fromCoroutine, telling)]
        self.assertFalse(all(worker.ready for worker in pool.all()))
        await gatherResults(begun)
        await self.until(lambda: before not in pool.all())
        self.assertFalse(await self.is_let_in())

    async def test_invalid_bans_are_refused_with_advice(self) -> None:
        one, too_long = {"network": "192.0.2.1"}, "a" * (LONGEST_REASON + 1)
        all_clients = "network: this would ban all clients; to let none in, write txmux pause"
        rows: tuple[tuple[dict[str, object], str], ...] = (
            ({}, "network is missing"),
            ({"network": "x"}, "network: 'x' is not a network; write it as"),
            ({"network": "192.0.2.1/24"}, "; write '192.0.2.0/24' for the network"),
            ({"network": "::/0"}, all_clients),
            ({**one, "seconds": 0}, "seconds: must be a whole number"),
            ({**one, "reason": "a\nb"}, "reason: must be one line"),
            ({**one, "reason": too_long}, f"of up to {LONGEST_REASON} characters"),
            ({**one, "time": 1}, "time: there is no such field"),
        )
        for body, message in rows:
            told = await self.post("/api/bans", body)
            self.assertEqual(told.status, 400, body)
            self.assertIn(message, told.json["error"])
        await self.ban("192.0.2.0/24")
        told = await self.post("/api/bans/remove", {"network": "192.0.2.7"})
        self.assertEqual(told.status, 404)
        self.assertEqual(told.json["error"], "192.0.2.7 is not banned; 192.0.2.0/24 is: unban that")


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

    async def wait_for(self, *expected: str) -> None:
        while True:
            rows = (await self.get("/api/connections")).json
            if sorted(f"{row['listener']} {row['state']}" for row in rows) == sorted(expected):
                return
            await deferLater(reactor, 0.05)

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
        stages = "x peeking", "x handshaking", "x tunnelling", "x connecting"
        await self.wait_for("x relaying", "u connecting", *stages)
        await self.post("/api/bans", {"network": "127.0.0.1"})
        await self.wait_for("x relaying")
        relayed, *others = clients
        for client in others:
            await client.is_lost()
        self.assertFalse(relayed.finished)
        self.assertEqual(len(backend.peers), 1)
        # Workers report once a second.
        while len(rows := (await self.get("/api/recent")).json) < len(others) + 1:
            await deferLater(reactor, 0.05)
        self.assertEqual({row["reason"] for row in rows}, {"denied"})
