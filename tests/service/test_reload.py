"""Other rules while the service runs, in one process."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import ServerFactory as Site
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.backends.connect.tls_case import authority
from tests.support.mux import VirtualTime, backend_at
from tests.support.peers import PeerFactory, connect, listen, reactor
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.support.service import ServiceTestCase
from txmux import MuxService
from txmux.embedding import outcome
from txmux.rules.model import Listener, Rules, Settings
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from tests.support.peers import Peer
    from txmux.control import Report

LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"


class ReloadCase(ServiceTestCase):
    """Runs a service from a file, and changes that."""

    timeout = 3

    def setUp(self) -> None:
        super().setUp()
        self.rules = self.folder / "rules.ini"

    def write(self, text: str) -> None:
        """Write the rules file."""
        self.rules.write_text(text.replace("LOG", str(self.log)))

    def start(self, text: str, use: Any = reactor) -> int:
        """Start a service, and give the port of its first listener."""
        self.write(text)
        self.running = MuxService.from_file(self.rules, reactor=use)
        self.running.startService()
        self.addCleanup(self.stop)
        return 0 if "unix:" in text else self.port()

    def port(self, number: int = 0) -> int:
        """Give the port of a listener."""
        found: Any = self.running.ports[number]
        port: int = found.getHost().port
        return port

    async def change(self, text: str) -> str:
        """Reload other rules, and give what has changed."""
        self.write(text)
        report = await self.running.reload()
        self.assertEqual(report.errors, ())
        return report.changes

    async def refused(self, text: str) -> str:
        """Find that other rules are refused and leave all as it was; give what is told of that."""
        before = (self.inodes(), self.running.rules, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        self.write(text)
        report: Report = await self.running.reload()
        self.assertEqual((report.ok, report.changes), (False, ""))
        after = (self.inodes(), self.running.rules, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        self.assertEqual(after, before)
        return "\n".join(report.errors)

    def inodes(self) -> list[int]:
        """Give what tells the listening sockets apart, whoever has them open."""
        return [os.fstat(one.fileno()).st_ino for one in self.running._sockets.sockets().values()]

    async def turn(self, times: int = 3) -> None:
        """Let the reactor do what it has to do."""
        for _ in range(times):
            await deferLater(reactor, 0)

    async def greeted(self, port: int, greeting: bytes = b"SSH-2.0-a\r\n") -> Peer:
        """Connect a client that speaks."""
        client = await connect(self, port)
        client.send(greeting)
        return client


class RoutesTest(ReloadCase):
    """Routes and backends."""

    def setUp(self) -> None:
        super().setUp()
        self.old, self.new = PeerFactory(), PeerFactory()
        self.servers = [listen(self, self.old), listen(self, self.new)]

    def text(self, number: int, more: str = "") -> str:
        """Write rules that lead SSH to the old or the new server, by the name of one backend."""
        server = self.servers[number]
        return (
            f"[txmux]\naccess_log = LOG\n{LISTEN}[route ssh]\nmatch = ssh\nbackend = b\n"
            f"[backend b]\nserver = 127.0.0.1:{server}\n{more}"
        )

    async def test_accepted_before(self) -> None:
        """Who is accepted before goes where the old rules say, even if it says nothing until then; others do not."""
        port = self.start(self.text(0))
        undecided = await self.greeted(port, b"SSH")
        relayed = await self.greeted(port)
        await (await self.old.peer()).has(1)
        while len(self.running.factories[0].connections) < 2:
            await self.turn()
        inodes = self.inodes()
        told = await self.change(self.text(1))
        self.assertEqual(told, "1 backend changed (b); 2 connections go on under older rules")
        self.assertEqual((self.port(), self.inodes()), (port, inodes))
        await self.greeted(port)
        await (await self.new.peer()).has(1)
        undecided.send(b"-2.0-b\r\n")
        await (await self.old.peer(1)).has(11)
        relayed.send(b"more")
        await (await self.old.peer()).has(15)
        self.assertEqual(len(self.new.peers), 1)

    async def test_in_the_queue(self) -> None:
        """A client that waits in the queue at the switch is served by the new rules."""
        port = self.start(self.text(0))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"SSH-2.0-a\r\n")
            await self.change(self.text(1))
            await (await self.new.peer()).has(11)
        self.assertEqual(self.old.peers, [])

    async def test_limit(self) -> None:
        """Connections of older rules count for the limits of the new ones."""
        port = self.start(self.text(0))
        await self.greeted(port)
        await (await self.old.peer()).has(1)
        text = self.text(0).replace(LISTEN, f"{LISTEN}max_connections = 1\n")
        await self.change(text)
        await (await self.greeted(port)).is_lost()
        self.assertIn("reason=limit", self.log.read_text())

    async def test_log_line(self) -> None:
        """The log says in one line what has changed, or that nothing has."""
        self.start(
            self.text(
                0, "[route c]\nmatch = tls\nbackend = b\n[route d]\nmatch = dns\nbackend = b\n"
            )
        )
        new = "".join(f"[route {n}]\nmatch = redis\nbackend = b\n" for n in "abc")
        with capturedLogs() as events:
            await self.change(self.text(0, new + "[listen y]\nendpoint = 127.0.0.1:0\n"))
            self.assertEqual(await self.change(self.rules.read_text()), "nothing changed")
        told = [e["changes"] for e in events if e["log_format"].startswith("rules reloaded: {")]
        self.assertEqual(
            told,
            [
                "2 routes new (a, b), 1 changed (c), 1 gone (d); listener y opened",
                "nothing changed",
            ],
        )

    async def test_refused(self) -> None:
        """All errors are told, the log has them, and the next clients go where they did."""
        port = self.start(self.text(0))
        with capturedLogs() as events:
            told = await self.refused(
                self.text(1, "[route a]\nmatch = sshh\nbackend = b\n[what]\n")
            )
        self.assertIn("did you mean 'ssh'?", told)
        self.assertIn("[what]: unknown section", told)
        self.assertEqual([e["errors"] for e in events if "not reloaded" in e["log_format"]], [told])
        moment, report = self.running.last_reload or (0, None)
        self.assertGreater(moment, 1_000_000_000)
        self.assertEqual(report and report.ok, False)
        await self.greeted(port)
        await (await self.old.peer()).has(1)

    async def test_unchangeable(self) -> None:
        """What cannot change while the service runs is refused, with all else in the file."""
        self.start(self.text(0))
        told = await self.refused(self.text(1).replace("[txmux]", "[txmux]\nrelay = portable"))
        self.assertIn("[txmux] relay: cannot change while the service runs", told)

    async def test_removed(self) -> None:
        """With drain_removed, connections of routes and backends that are gone have the drain time-out to end."""
        time = VirtualTime()
        more = "[route t]\nmatch = tls\nbackend = b\n"
        port = self.start(self.text(0).replace("[route", f"{more}[route"), use=time)
        client = await self.greeted(port)
        await (await self.old.peer()).has(1)
        drain = "[txmux]\ndrain_removed = yes\ndrain_timeout = 5s\naccess_log = LOG\n"
        await self.change(drain + LISTEN + f"[backend b]\nserver = 127.0.0.1:1\n{more}")
        time.advance(4.9)
        client.send(b"x")
        await (await self.old.peer()).has(12)
        time.advance(0.2)
        await client.is_lost()
        self.assertIn("reason=drained", self.log.read_text())

    async def test_came_back(self) -> None:
        """What has come back in the meantime is not removed; without the key, nothing is ended."""
        time = VirtualTime()
        port = self.start(self.text(0), use=time)
        client = await self.greeted(port)
        await (await self.old.peer()).has(1)
        drain = "[txmux]\ndrain_removed = yes\ndrain_timeout = 5s\n"
        await self.change(drain + LISTEN)
        await self.change(self.text(1))
        time.advance(6)
        await self.change(LISTEN)
        time.advance(60)
        client.send(b"x")
        await (await self.old.peer()).has(12)


class ListenersTest(ReloadCase):
    """Where clients come in."""

    async def test_opened_and_closed(self) -> None:
        """New listeners are opened; one that is gone is closed when those who waited have been served."""
        backend = PeerFactory()
        lead = f"default = 127.0.0.1:{listen(self, backend)}\n"
        port = self.start(f"{LISTEN}{lead}")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"x")
            told = await self.change(f"[listen y]\nendpoint = 127.0.0.1:0\n{lead}")
            self.assertIn("listener y opened; listener x closed", told)
            await (await backend.peer()).has(1)
            with socket.socket() as late:
                self.assertNotEqual(late.connect_ex(("127.0.0.1", port)), 0)
            client.sendall(b"y")
            await (await backend.peer()).has(2)
        (await self.greeted(self.port())).close()
        await (await backend.peer(1)).has(1)

    async def test_renamed(self) -> None:
        """A listener of another name at the same address has the same socket."""
        self.start(LISTEN)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        text = f"[listen NAME]\nendpoint = 127.0.0.1:{free}\n"
        await self.change("[txmux]\naccess_log = LOG\n" + text.replace("NAME", "a"))
        inodes = self.inodes()
        await self.change("[txmux]\naccess_log = LOG\n" + text.replace("NAME", "b"))
        self.assertEqual(self.inodes(), inodes)
        await (await self.greeted(free, b"x")).is_lost()
        self.assertIn("listener=b ", self.log.read_text())

    async def test_taken(self) -> None:
        """An address that somebody else has leaves everything as it was, new addresses before it, too."""
        self.start(LISTEN)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            more = f"[listen z]\nendpoint = 127.0.0.1:{taken.getsockname()[1]}\n"
            told = await self.refused(f"{LISTEN}[listen y]\nendpoint = 127.0.0.1:0\n{more}")
        self.assertIn("[listen z] endpoint", told)
        self.assertIn("another program has it", told)

    async def test_keepalive(self) -> None:
        """Options of the connections hold for the next ones."""
        backend = PeerFactory()
        lead = f"default = 127.0.0.1:{listen(self, backend)}\n"
        port = self.start(LISTEN + lead)
        await self.change(f"{LISTEN}{lead}keepalive = no\n")
        self.assertEqual(self.port(), port)
        await self.greeted(port)
        await (await backend.peer()).has(1)
        (connection,) = self.running.factories[0].connections
        self.assertFalse(connection.transport.getTcpKeepAlive())


class FilesTest(ReloadCase):
    """Files beside the rules."""

    async def test_access_log(self) -> None:
        """The access log goes elsewhere, also for connections of older rules; one that cannot be opened is refused."""
        port = self.start(f"[txmux]\naccess_log = LOG\n{LISTEN}")
        client = await connect(self, port)
        while not self.running.factories[0].connections:
            await self.turn()
        missing = self.folder / "missing" / "log"
        told = await self.refused(f"[txmux]\naccess_log = {missing}\n{LISTEN}")
        self.assertIn("access_log: ", told)
        other = self.folder / "other.log"
        await self.change(f"[txmux]\naccess_log = {other}\n{LISTEN}")
        client.send(b"x")
        await client.is_lost()
        self.assertEqual((self.log.read_text(), other.read_text().count("\n")), ("", 1))

    async def test_rotated(self) -> None:
        """SIGHUP opens the access log again, whether the rules can be read or not."""
        port = self.start(f"[txmux]\naccess_log = LOG\n{LISTEN}")
        for text in (self.rules.read_text(), "[nonsense"):
            self.rules.write_text(text)
            before = self.log.read_text()
            moved = self.log.rename(self.folder / "moved.log")
            os.kill(os.getpid(), signal.SIGHUP)
            while not self.log.exists():
                await self.turn()
            await (await self.greeted(port, b"x")).is_lost()
            lines = self.log.read_text().count("\n")
            self.assertEqual((moved.read_text(), lines), (before, 1))

    async def test_certificates(self) -> None:
        """Certificates are read again; if one cannot be used, clients are shown those that were."""
        first, second = (authority().issue("a.example") for _ in range(2))
        pem = first.write(self.folder / "a.pem", key=True)
        ca = authority().write(self.folder / "ca.pem")
        route = f"[route t]\nmatch = tls\nterminate_tls = {pem}\nbackend = close\n"
        port = self.start(LISTEN + route)

        async def shown() -> int:
            peer = SecurePeer((client_context(ca), "a.example"))
            await (await connect_tls(self, port, peer)).ready()
            certificate = peer.tls.getpeercert()
            assert certificate is not None
            return int(str(certificate["serialNumber"]), 16)

        before = await shown()
        pem.write_text("nonsense")
        told = await self.refused(LISTEN + route)
        self.assertIn("[route t] terminate_tls", told)
        self.assertEqual(await shown(), before)
        second.write(self.folder / "a.pem", key=True)
        self.assertEqual(await self.change(LISTEN + route), "nothing changed")
        self.assertNotEqual(await shown(), before)


class PendingTest(ReloadCase):
    """Clients that are in the middle of saying who they are."""

    async def test_proxy_header(self) -> None:
        """A PROXY protocol header may come in two halves, around the switch to rules that take none."""
        port = self.start(f"[txmux]\naccess_log = LOG\n{LISTEN}accept_proxy_from = 127.0.0.1\n")
        client = await self.greeted(port, b"PROXY TCP4 192.0.2.7 ")
        while not self.running.factories[0].connections:
            await self.turn()
        await self.change(f"[txmux]\naccess_log = LOG\n{LISTEN}")
        client.send(b"192.0.2.1 1234 443\r\nx")
        await client.is_lost()
        self.assertIn("client=192.0.2.7:1234", self.log.read_text())

    async def test_tls(self) -> None:
        """A client's hello may come in two halves, around the switch to rules that end no TLS."""
        pem = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        route = f"[route t]\nmatch = tls\nterminate_tls = {pem}\nbackend = close\n"
        port = self.start(LISTEN + route)
        peer = SecurePeer((client_context(None), "a.example"))
        peer.layers[0].advance()
        hello = peer.layers[0].outgoing.read()
        peer.connectionMade = lambda: peer.transport.write(hello[:20])  # type: ignore[method-assign]
        await connect_tls(self, port, peer)
        while not any(one.record.bytes_in for one in self.running.factories[0].connections):
            await self.turn()
        await self.change(LISTEN)
        peer.transport.write(hello[20:])
        await peer.ready()


class AskingTest(ReloadCase):
    """Who asks, and when."""

    async def test_not_running(self) -> None:
        """A service that does not run says so."""
        self.start(LISTEN)
        await self.running.stopService()
        report = await self.running.reload()
        self.assertEqual((report.ok, report.errors), (False, ["the service does not run"]))

    async def test_python(self) -> None:
        """A program may give other rules; those made in Python have no files that could be read again."""
        backend = PeerFactory()
        self.running = MuxService(parse(LISTEN, "r.ini"), reactor=reactor)
        self.running.startService()
        self.addCleanup(self.stop)
        port = self.port()
        lead = Rules(
            Path("r.ini"),
            Settings(),
            (Listener("x", ("127.0.0.1:0",), default=backend_at(listen(self, backend))),),
            (),
        )
        report = await self.running.reload(lead)
        self.assertEqual(report.changes, "listener x changed")
        await self.greeted(port)
        await (await backend.peer()).has(1)
        self.assertIn("made in Python", (await self.running.reload()).changes)

    async def test_elsewhere(self) -> None:
        """The file is found though the program has gone to another folder."""
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.write(LISTEN)
        self.running = MuxService.from_file("rules.ini", reactor=reactor)
        self.running.startService()
        self.addCleanup(self.stop)
        os.chdir("/")
        self.assertEqual(await self.change(LISTEN), "nothing changed")

    async def test_factory(self) -> None:
        """What is served in this process is started and stopped as rules lead to it."""
        one, other = Site(), Site()
        self.start(LISTEN)

        def rules(factory: Site) -> Rules:
            listener = Listener("x", ("127.0.0.1:0",), default=outcome(factory))
            return Rules(Path("r.ini"), Settings(), (listener,), ())

        await self.running.reload(rules(one))
        self.assertEqual((one.numPorts, other.numPorts), (1, 0))
        await self.running.reload(rules(other))
        self.assertEqual((one.numPorts, other.numPorts), (0, 1))


class OtherEndpointsTest(ReloadCase):
    """What is not a plain TCP socket."""

    async def test_unix(self) -> None:
        """A UNIX socket stays, and its file is gone with it."""
        path = self.folder / "s"
        self.start(f"[listen u]\nendpoint = unix:{path}\n")
        inodes = self.inodes()
        await self.change(f"[listen v]\nendpoint = unix:{path}:mode=600\n")
        self.assertEqual(self.inodes(), inodes)
        await self.change(LISTEN)
        self.assertFalse(path.exists())

    async def test_of_twisted(self) -> None:
        """A port that Twisted opens stays open for a listener of another name; new ones are opened first."""
        pem = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        ssl = f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
        text = f"[txmux]\naccess_log = LOG\n[listen NAME]\nendpoint = {ssl}\n"
        port = self.start(text.replace("NAME", "a"))
        await self.change(text.replace("NAME", "b"))
        self.assertEqual(self.port(), port)
        peer = SecurePeer((client_context(None), None))
        await (await connect_tls(self, port, peer)).ready()
        peer.send(b"x")
        await peer.until(lambda: peer.told_close_notify)
        peer.reset()
        while "listener=b " not in self.log.read_text():
            await self.turn()
        told = await self.refused(
            f"{LISTEN}[listen c]\nendpoint = {ssl.replace('a.pem', 'b.pem')}\n"
        )
        self.assertIn("[listen c] endpoint", told)
        await self.change(f"{LISTEN}[listen c]\nendpoint = {ssl}:backlog=5\n")
        peer = SecurePeer((client_context(None), None))
        await (await connect_tls(self, self.port(1), peer)).ready()
