"""Other rules while the service runs."""

import gc
import os
import socket
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.protocol import ServerFactory as Site

from tests.support.forks import starter
from tests.support.kit import ServiceTestCase, Talker, VirtualTime, authority, turn
from tests.support.peers import PeerFactory, connect, listen
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.support.supervised import LISTEN, SupervisedTestCase, greeted
from txmux import MuxService, load
from txmux.rules.embedding import outcome
from txmux.rules.model import Listener, Rules, Settings

_DRAIN = "[txmux]\ndrain_removed = yes\ndrain_timeout = 5s\n"


class SupervisorTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.old, self.new = PeerFactory(), PeerFactory()
        self.servers = [listen(self, self.old), listen(self, self.new)]

    def text(self, number: int, more: str = "") -> str:
        """Write rules that lead SSH to the old or the new server, by the name of one backend."""
        server = self.servers[number]
        return (
            f"[txmux]\naccess_log = LOG\n{LISTEN}[route ssh]\nunder = *\nmatch = ssh\nbackend = b\n"
            f"[backend b]\nserver = 127.0.0.1:{server}\n{more}"
        )

    async def test_accepted_before(self) -> None:
        """Who is accepted before goes where the old rules say, even if it says nothing until then; others do not."""
        [port] = await self.run_service(self.text(0))
        undecided = await greeted(self, port, b"SSH")
        relayed = await greeted(self, port)
        await (await self.old.peer()).has(1)
        await self.connections(2)
        inodes = self.inodes()
        told = await self.change(self.text(1))
        self.assertEqual(told, "1 backend changed (b); 2 connections keep older rules")
        self.assertEqual((self.ports(), self.inodes()), ([port], inodes))
        await greeted(self, port)
        await (await self.new.peer()).has(1)
        undecided.send(b"-2.0-b\r\n")
        await (await self.old.peer(1)).has(11)
        relayed.send(b"more")
        await (await self.old.peer()).has(15)
        self.assertEqual(len(self.new.peers), 1)
        # Older connections count for new limits.
        await self.change(self.text(1).replace(LISTEN, f"{LISTEN}max_connections = 3\n"))
        await (await greeted(self, port)).is_lost()
        await self.until_logged("reason=limit")

    async def test_no_file(self) -> None:
        """A folder, a pipe and a link to nowhere in the place of the rules are refused, and nobody waits for them."""
        await self.run_service(self.text(0))
        text = self.file.read_text()
        for make, why in (
            (os.mkdir, "Is a directory"),
            (os.mkfifo, "it is no regular file"),
            (lambda path: path.symlink_to("nowhere.ini"), "No such file"),
        ):
            self.file.unlink()
            make(self.file)
            report = await self.running.reload()
            self.assertIn(why, "\n".join(report.errors))
            self.file.rename(self.folder / why)
            self.file.write_text(text)
            self.assertEqual((await self.running.reload()).changes, "nothing changed")

    async def test_service_that_runs_again(self) -> None:
        """It may be asked for all that it was asked for before."""
        await self.run_service("[listen x]\nendpoint = haproxy:tcp:0:interface=127.0.0.1\n")
        await self.running.stopService()
        self.running.startService()
        report = await self.running.upgrade()
        self.assertIn("cannot be handed to another process", str(report.errors))

    async def test_rules_are_found_from_another_folder(self) -> None:
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.write(LISTEN)
        self.running = MuxService(load("rules.ini"), starter=starter())
        self.running.startService()
        self.addCleanup(self.stop)
        os.chdir("/")
        self.assertEqual(await self.change(LISTEN), "nothing changed")

    def garbage(self) -> Counter[str]:
        """Count what was made to read rules and only looking for garbage frees, by its type; services of other tests may be there."""
        self.addCleanup(gc.set_debug, gc.get_debug())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = [type(one) for one in gc.garbage]
        gc.garbage.clear()
        names = (f"{kind.__module__}.{kind.__name__}" for kind in kinds)
        return Counter(name for name in names if name.startswith(_READING))

    async def reload(self, number: int, error: str = "") -> None:
        more = f"[route r{number}]\nmatch = ssh\nbackend = close\n"
        self.write(f"{LISTEN}{more}{error}")
        report: Any = await self.running.reload()
        self.assertEqual(report.ok, not error)

    async def test_freed(self) -> None:
        """Rules, and what was made to read them, are freed without a look for garbage; so are those that have errors."""
        await self.run_service(LISTEN)
        await self.reload(0)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        gc.freeze()  # other tests' services, of which the reactor may still know
        await self.reload(1)
        await self.reload(2, "[what]\n")
        await self.reload(3)
        self.assertEqual(self.garbage(), Counter())


class InProcessTest(ServiceTestCase):
    """What a worker does, in the process of the test."""

    def setUp(self) -> None:
        super().setUp()
        self.server = PeerFactory()
        server = f"server = 127.0.0.1:{listen(self, self.server)}\n"
        self.route = f"[route ssh]\nmatch = ssh\nbackend = b\n[backend b]\n{server}"

    async def test_in_the_queue(self) -> None:
        """A client that waits in the queue at the switch is served by the new rules."""
        [port] = self.run_service(LISTEN)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"SSH-2.0-a\r\n")
            self.reload(LISTEN + self.route)
            await (await self.server.peer()).has(11)

    async def test_removed(self) -> None:
        """With drain_removed, connections of routes that are gone end after the drain time-out, and no sooner; late ones a second later."""
        time = VirtualTime()
        [port] = self.run_service(f"{LISTEN}detect_timeout = 1h\n{self.route}", use=time)
        client = await greeted(self, port)
        await (await self.server.peer()).has(1)
        undecided = await greeted(self, port, b"S")
        await self.until(lambda: len(self.running.listeners[0].connections) >= 2)
        self.reload(f"{_DRAIN}access_log = LOG\n{LISTEN}")
        time.advance(4.9)
        client.send(b"x")
        await (await self.server.peer()).has(12)
        time.advance(0.2)
        await client.is_lost()
        self.assertIn("reason=drained", self.log.read_text())
        undecided.send(b"SH-2.0-a\r\n")
        await (await self.server.peer(1)).has(11)
        time.advance(1)
        await undecided.is_lost()

    async def test_removed_again(self) -> None:
        """What has come back in the meantime, and is removed again, has the whole time from then on; without the key, it is not ended."""
        for last, seconds in ((_DRAIN, 4.9), ("", 60)):
            time = VirtualTime()
            [port] = self.run_service(LISTEN + self.route, use=time)
            client = await greeted(self, port)
            server = await self.server.peer(not last)
            await server.has(1)
            for text in (_DRAIN + LISTEN, _DRAIN + LISTEN + self.route):
                self.reload(text)
                time.advance(2)
            self.reload(last + LISTEN)
            time.advance(seconds)
            await client.tell(server, b"x", 12)
            time.advance(0.2)
            if last:
                await client.is_lost()
            await self.stop()

    async def test_proxy_header(self) -> None:
        """A PROXY protocol header may come in two halves, around the switch to rules that take none."""
        log = "[txmux]\naccess_log = LOG\n"
        [port] = self.run_service(f"{log}{LISTEN}accept_proxy_from = 127.0.0.1\n")
        client = await greeted(self, port, b"PROXY TCP4 192.0.2.7 ")
        await self.until(lambda: self.running.listeners[0].connections)
        self.reload(log + LISTEN)
        client.send(b"192.0.2.1 1234 443\r\nx")
        await client.is_lost()
        self.assertIn("client=192.0.2.7:1234", self.log.read_text())

    async def test_tls(self) -> None:
        """A client's hello may come in two halves, around the switch to rules that end no TLS."""
        pem = authority().issue("a.example").write(self.folder / "a.pem", key=True)
        route = f"[route t]\nmatch = tls\nterminate_tls = {pem}\nbackend = close\n"
        [port] = self.run_service(LISTEN + route)
        peer = SecurePeer((client_context(None), "a.example"))
        peer.layers[0].advance()
        hello = peer.layers[0].outgoing.read()
        peer.connectionMade = lambda: peer.transport.write(hello[:20])  # type: ignore[method-assign]
        await connect_tls(self, port, peer)
        while not any(one.record.bytes_in for one in self.running.listeners[0].connections):
            await turn()
        self.reload(LISTEN)
        peer.transport.write(hello[20:])
        await peer.ready()

    async def test_factory(self) -> None:
        """What is served in this process is started when rules lead to it, and stopped when the last connection has ended that older ones led there."""
        one, other = PeerFactory(), Site()
        [port] = self.run_service(LISTEN)
        self.running.reload(_to(one))
        client = await connect(self, port)
        client.send(b"hello")
        peer = await one.peer()
        self.running.reload(_to(other))
        self.assertEqual((one.numPorts, other.numPorts), (1, 1))
        await client.tell(peer, b" again", 11)
        client.reset()
        await self.until(lambda: not one.numPorts)
        self.running.reload(_to(one))
        self.assertEqual((one.numPorts, other.numPorts), (1, 0))

    def test_before_the_start_and_values_as_a_program_writes_them(self) -> None:
        self.running = self.service(LISTEN)
        self.assertEqual(self.reload(f"{LISTEN}detect_timeout = 7s\n"), 0)
        self.running.startService()
        self.addCleanup(self.stop)
        [listener] = self.running.listeners
        self.assertEqual(listener.configuration.settings.detect_timeout, 7)
        for written in ("7s", "8s"):
            rules = _to(Site(), detect_timeout=written, connection_rate_per_source="9/m")
            self.running.reload(rules)
        [listener] = self.running.listeners
        configuration = listener.configuration
        self.assertEqual(configuration.settings.detect_timeout, 8)
        per_source = configuration.admission.per_source
        assert per_source is not None
        self.assertEqual([per_source.enter(1) is not None for _ in range(10)], [True] * 9 + [False])

    async def test_connections_count_for_new_limits_of_their_source(self) -> None:
        server = PeerFactory()
        text = f"{LISTEN}default = 127.0.0.1:{listen(self, server)}\nmax_connections_per_source = "
        [port] = self.run_service(f"{text}1")
        await self.client(port)
        await server.peer()
        self.reload(f"{text}2")
        await self.client(port)
        await server.peer(1)
        await (await self.client(port)).is_lost()
        self.assertEqual(len(server.peers), 2)

    async def test_listener_that_is_for_the_other_transport(self) -> None:
        """Its connections go on, and the same name serves datagrams."""
        rules = "[listen x]\nendpoint = %s127.0.0.1:0\n[route a]\nmatch = any\nbackend = %s127.0.0.1:%d\n"
        server, talker = PeerFactory(), Talker.listening(self, answer=lambda data: data)
        [port] = self.run_service(rules % ("", "", listen(self, server)))
        client = await connect(self, port)
        client.send(b"hello")
        peer = await server.peer()
        self.reload(rules % ("udp:", "udp:", talker.port))
        [port] = self.ports()
        self.assertEqual(await Talker.listening(self).asks(b"one", port), b"one")
        await client.tell(peer, b" again", 11)
        await peer.is_lost(client.reset)


def _to(factory: Site, **values: Any) -> Rules:
    listener = Listener("x", ("127.0.0.1:0",), default=outcome(factory), **values)
    return Rules(Path("r.ini"), Settings(), (listener,), ())


_READING = ("txmux.rules.reading", "txmux.detection.registry", "twisted.plugin")
