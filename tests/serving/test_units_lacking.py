"""Units whose files for TLS cannot be used: their places stay theirs, and nobody else notices."""

import json
from contextlib import redirect_stdout
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText

from tests.support.kit import Identity, SupervisedTestCase, make_authority
from tests.support.peers import Peer, PeerFactory, listen, listen_tls, reactor
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.cli import main

pytestmark = pytest.mark.by_turns(each=True)

MAIN = """\
[txmux]
include = d/*.ini
workers = 2
access_log = LOG
access_log_format = json
[listen public]
endpoint = 127.0.0.1:0
routes_from = *
"""
ROUTE = (
    "[route {0}]\nmatch = tls sni={1}\nunder = public\nterminate_tls = {0}.pem\n"
    "backend = 127.0.0.1:{2}\n"
)


class CertificateTest(SupervisedTestCase):
    """Three owners: of ``old.team.example``, of ``lacking.team.example``, and, younger, of all names of ``team.example``."""

    def setUp(self) -> None:
        super().setUp()
        self.authority.write(self.folder / "ca.pem")
        self.servers = {name: PeerFactory() for name in ("a_old", "b_lacking", "c_wild")}
        (self.folder / "d").mkdir()
        for name, server in self.servers.items():
            host = "*.team.example" if name == "c_wild" else f"{name[2:]}.team.example"
            if name != "b_lacking":
                self.authority.issue(host).write(self.pem(name), key=True)
            self.unit(name).write_text(ROUTE.format(name, host, listen(self, server)))

    @cached_property
    def authority(self) -> Identity:
        return make_authority()

    def pem(self, name: str = "b_lacking") -> Path:
        return self.folder / f"{name}.pem"

    def unit(self, name: str = "b_lacking") -> Path:
        return self.folder / "d" / f"{name}.ini"

    def mend(self) -> None:
        self.authority.issue("lacking.team.example").write(self.pem(), key=True)

    async def start(self) -> None:
        self.port, *_ = await self.run_service(MAIN)

    async def asked(self, host: str, ca: str = "ca.pem") -> SecurePeer:
        peer = SecurePeer((client_context(self.folder / ca), host))
        return await connect_tls(self, self.port, peer)

    async def serves(self, host: str, name: str) -> tuple[SecurePeer, Peer]:
        """Have a client of a host name served by an owner, and by no other."""
        count = len(self.servers[name].peers)
        client = await self.asked(host)
        await client.ready()
        return client, await self.said(client, name, count)

    async def said(self, client: SecurePeer, name: str, count: int) -> Peer:
        """Have a client say something to the server of an owner, which has had so many."""
        client.send(b"hello")
        peer = await self.servers[name].peer(count)
        await peer.has(5)
        return peer

    async def refuses(self, host: str = "lacking.team.example", **facts: str) -> None:
        """Have a client closed before any handshake, with the reason in the log."""
        counts = [len(one.peers) for one in self.servers.values()]
        before = len(self.lines())
        client = await self.asked(host)
        await client.is_lost()
        self.assertFalse(client.layers[0].ready)
        await self.until(lambda: len(self.lines()) != before)
        line = self.lines()[-1]
        self.assertEqual((line["route"], line["reason"]), ("b_lacking", "tls-failed"))
        self.assertEqual(counts, [len(one.peers) for one in self.servers.values()])

    async def others_are_served(self) -> list[SecurePeer]:
        """Have clients of the older and the younger owner served; return them."""
        found = [("old.team.example", "a_old"), ("x.team.example", "c_wild")]
        return [(await self.serves(*one))[0] for one in found]

    def lines(self) -> list[dict[str, Any]]:
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def says(self, *told: str, but: str = "\0") -> None:
        """Wait until what needs attention has all this, and not something else, and workers know what they were told before that."""
        while True:
            found = await self.attention()
            if all(one in found for one in told) and but not in found:
                break
            await deferLater(reactor, 0.05)
        await self.running.control.missing()

    async def attention(self) -> str:
        items = (await self.running.control.status())["attention"]
        self.assertTrue(all(item["since"] for item in items))
        return "\n".join(f"{item['level']}: {item['text']}" for item in items)

    async def mended(self) -> None:
        """Mend what is lacking, and wait until clients are served, without a reload."""
        count = len(self.servers["b_lacking"].peers)
        self.mend()
        while (client := await self.answered()) is None:
            await deferLater(reactor, 0.1)
        await self.said(client, "b_lacking", count)
        await self.says(but="lacking")

    async def answered(self) -> SecurePeer | None:
        """Return a client of the name that is lacking, if its handshake is complete."""
        client = await self.asked("lacking.team.example")
        await client.until(lambda: client.layers[0].ready or client.finished)
        return client if client.layers[0].ready else None

    async def reload(self) -> str:
        return await self.change(MAIN)

    async def replace_workers(self) -> None:
        await self.killed(*self.supervisor.pool.workers)
        await self.all_serve()

    async def test_start(self) -> None:
        """A service starts; clients of the name are refused, also by later workers, and neither the wildcard nor the default serves them."""
        for damage in (None, b"", b"\0garbage", self.authority.pem):
            if damage is not None:
                self.pem().write_bytes(damage)
            with capturedLogs() as events:
                await self.start()
                await self.others_are_served()
                await self.refuses()
            told = "\n".join(eventAsText(one, includeTimestamp=False) for one in events)
            what = "[route b_lacking] terminate_tls: "
            self.assertIn(what, told)
            self.assertIn(str(self.pem()), told)
            self.assertIn("its clients are refused until it can be used", told)
            await self.says(f"warning: {what}", str(self.pem()))
            if damage == self.authority.pem:
                await self.replace_workers()
                await self.refuses()
                await self.others_are_served()
                await self.says(f"warning: {what}")
                await self.mended()
            await self._stop()

    async def test_reload(self) -> None:
        """A new route without its file is taken, and named; those who are served notice nothing."""
        text = self.unit().read_text()
        self.unit().unlink()
        await self.start()
        others = await self.others_are_served()
        await self.serves("lacking.team.example", "c_wild")
        self.unit().write_text(text)
        told = await self.reload()
        self.assertIn("1 route new", told)
        self.assertIn("[route b_lacking] terminate_tls: cannot read ", told)
        await self.refuses()
        await self.others_are_served()
        self.assertEqual([one.lost for one in others], [None, None])
        self.assertIn("b_lacking] terminate_tls: cannot read ", await self.reload())
        await self.mended()

    async def test_in_use(self) -> None:
        """What is in use stays so while the rules change and workers are replaced, until the route names other files."""
        self.mend()
        await self.start()
        self.pem().unlink()
        self.unit("c_wild").write_text("")
        self.assertIn("what is in use is kept", await self.reload())
        await self.serves("lacking.team.example", "b_lacking")
        await self.replace_workers()
        await self.serves("lacking.team.example", "b_lacking")
        text = self.unit().read_text()
        self.unit().write_text(text.replace("b_lacking.pem", "other.pem"))
        await self.reload()
        await self.refuses()

    async def test_authorities_of_clients(self) -> None:
        """Without the authorities or the revocation lists that a route asks for, no client comes in."""
        self.mend()
        text = self.unit().read_text()
        for keys in ("tls_client_ca = no.pem", "tls_client_ca = ca.pem\ntls_client_crl = no.pem"):
            self.unit().write_text(f"{text}\n{keys}\n")
            await self.start()
            await self.refuses()
            key = keys.rpartition("\n")[2].partition(" ")[0]
            await self.says(f"[route b_lacking] {key}: cannot read ")
            await self._stop()

    async def test_keys_of_hidden_hellos(self) -> None:
        """Without its keys, the listener of a unit opens no hidden hellos; others are as before."""
        (self.folder / "keys.ech").write_text("damaged")
        text = f"[listen b]\nendpoint = 127.0.0.1:0\nech_keys = {self.folder}/keys.ech\n"
        self.unit().write_text(text)
        await self.start()
        await self.others_are_served()
        hidden = "warning: [listen b] ech_keys: ", "keys.ech", "; hidden names stay hidden until"
        await self.says(*hidden)
        self.unit().write_text("")
        await self.reload()
        self.unit().write_text(text)
        self.assertIn("keys.ech", await self.reload())
        await self.says(*hidden)
        await self.others_are_served()

    async def test_check(self) -> None:
        """It is an error where the file is named, of which nothing else is said."""
        self.write(MAIN)
        missing, no_such = self.pem(), self.folder / "no.pem"
        route, backend = ":4: [route b_lacking] terminate_tls", ":10: [backend lacking] tls_ca"
        for where, path in ((route, missing), (backend, no_such)):
            with redirect_stdout(StringIO()) as out:
                self.assertEqual(main(["check", str(self.file)]), 1)
            [line] = out.getvalue().splitlines()
            wanted = f"{self.unit()}{where}: cannot read '{path}': No such file"
            self.assertTrue(line.startswith(wanted), line)
            self.verify_servers()

    async def test_operator(self) -> None:
        """The operator's own missing file is an error, as that of a unit which becomes the operator's."""
        await self.start()
        self.write(MAIN.replace("d/*.ini", "d/a_old.ini, d/b_lacking.ini, d/c_wild.ini"))
        report = await self.running.reload()
        self.assertEqual((report.ok, report.changes), (False, ""))
        self.assertIn("[route b_lacking] terminate_tls: cannot read ", report.errors[0])
        await self.refuses()
        await self.others_are_served()

    def verify_servers(self) -> None:
        """Have the unit name files by which its servers are verified, and shown a certificate."""
        self.mend()
        self.other, self.identity = PeerFactory(), self.authority.issue("server.team.example")
        options = self.identity.private().options()
        port = listen_tls(self, self.other, options)
        self.text = self.unit().read_text().partition("backend")[0] + (
            "backend = lacking\n[backend lacking]\n"
            f"server = 127.0.0.1:{port}\ntls = yes\ntls_name = server.team.example\n"
        )
        self.servers["b_lacking"] = self.other
        self.lacks("tls_ca = no.pem")

    def lacks(self, keys: str) -> None:
        self.unit().write_text(f"{self.text}{keys}\n")

    async def turned_away(self) -> None:
        """Have a client closed before a server hears of it."""
        before, count = len(self.lines()), len(self.other.peers)
        client = await self.asked("lacking.team.example")
        await client.ready()
        client.send(b"secret")
        await client.has_close_notify()
        await client.is_lost(client.close)
        await self.until(lambda: len(self.lines()) != before)
        line = self.lines()[-1]
        self.assertEqual((line["backend"], line["reason"]), ("lacking", "tls-failed"))
        self.assertEqual(len(self.other.peers), count)

    async def served_again(self, *paths: Path) -> None:
        for path in paths:
            self.authority.write(path)
        await self.says(but="lacking")
        await self.serves("lacking.team.example", "b_lacking")

    async def test_backend_at_a_start(self) -> None:
        """A service starts; the servers get nothing until authorities and certificate are there, without a reload."""
        lacking = self.folder / "no.pem"
        for keys, told in (
            ("tls_ca = no.pem", "tls_ca: cannot read "),
            ("tls_ca = ca.pem\ntls_client_certificate = no.pem", "tls_client_certificate: "),
        ):
            self.verify_servers()
            self.lacks(keys)
            await self.start()
            await self.turned_away()
            await self.others_are_served()
            lacks = f"warning: [backend lacking] {told}"
            await self.says(lacks, "no.pem", "no server is connected")
            if lacking.exists():
                self.identity.write(lacking, key=True)
            else:
                self.authority.write(lacking)
            await self.served_again()
            lacking.write_bytes(self.identity.pem)
            await self._stop()

    async def test_backend_at_a_reload(self) -> None:
        """It is taken, and named; what is in use stays so, also in a worker that starts."""
        self.verify_servers()
        self.lacks("tls_ca = ca.pem")
        await self.start()
        self.lacks("tls_ca = no.pem")
        self.assertIn("[backend lacking] tls_ca: cannot read ", await self.reload())
        await self.turned_away()
        await self.replace_workers()
        await self.turned_away()
        await self.others_are_served()
        await self.served_again(self.folder / "no.pem")
        await self.until(lambda: not self.supervisor.state.files.troubles())
        (self.folder / "no.pem").unlink()
        told = await self.reload()
        self.assertIn("[backend lacking] tls_ca: cannot read ", told)
        self.assertIn("what is in use is kept", told)
        await self.replace_workers()
        await self.serves("lacking.team.example", "b_lacking")

    async def test_checked(self) -> None:
        """Its checks are no way around, and find its servers down."""
        self.verify_servers()
        # The first check decides; later, those that are late on a busy machine do not.
        self.lacks("tls_ca = no.pem\ncheck = tcp interval=0.1s fall=100\nhold = 0s")
        await self.start()
        lacks = "[backend lacking] tls_ca: cannot read "
        await self.says(lacks, "backend lacking: no server is up")
        self.assertEqual(self.other.peers, [])
        self.authority.write(self.folder / "no.pem")
        await self.says(but="lacking")
        client = await self.asked("lacking.team.example")
        await client.ready()
        client.send(b"hello")
        while all(peer.received != b"hello" for peer in self.other.peers):  # checks are some, too
            await deferLater(reactor, 0.01)
