"""Multipath TCP to clients and to servers: with peers that have it and those that do not, and over two networks."""

import contextlib
import os
import signal
import socket
import sys
import threading
from hashlib import sha256
from unittest import SkipTest

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually
from tests.interop.mux import Mux
from tests.interop.namespaces import Namespace, cable
from tests.support.ports import free_port
from txmux.net.sockets.plainsocket import is_multipath, multipath_info, open_multipath

_MPTCP = 262
_RULES = """
[listen public]
endpoint = {listen}
mptcp = yes
[route all]
under = *
match = any
backend = echo
[backend echo]
server = {server}
mptcp = yes
"""
_ECHO = """
import socket, sys, threading
listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[2]))
listening.bind((sys.argv[1], 0))
listening.listen()
print(listening.getsockname()[1], flush=True)
def echo(one):
    while data := one.recv(65536):
        one.sendall(data)
        if listening.proto:
            print("further paths:", one.getsockopt(284, 1, 1)[0], flush=True)
    one.close()
while True:
    threading.Thread(target=echo, args=listening.accept()[:1]).start()
"""


class MultipathTestCase(InteropTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        with open_multipath(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.proto != _MPTCP:
                raise SkipTest("the system has no MPTCP")

    def echo(self, *before: str, address: str = "127.0.0.1", protocol: int = _MPTCP) -> str:
        child = Child(*before, sys.executable, "-c", _ECHO, address, str(protocol))
        self.echoing = self.own(child)
        return f"{address}:{child.wait_for(r'^([0-9]+)$')[1]}"

    def dial(self, port: int, address: str = "127.0.0.1", protocol: int = _MPTCP) -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.connect((address, port))
        return client

    def say(self, client: socket.socket, words: bytes) -> None:
        client.sendall(words)
        heard = b""
        while len(heard) < len(words):
            more = client.recv(65536)
            if not more:
                raise ConnectionError(f"{heard!r} has come, and the end")
            heard += more
        self.assertEqual(heard, words)


class FallbackTests(MultipathTestCase):
    def test_fact_and_bytes_with_peers_that_have_it_and_that_do_not(self) -> None:
        """Much goes through the kernel's pipes, or with `portable` not."""
        data = os.urandom(2**20) * 24
        for relay in ("auto", "portable"):
            for theirs in (0, _MPTCP):
                server = self.echo(protocol=theirs)
                rules = _RULES.format(listen="127.0.0.1:0", server=server)
                mux = self.own(Mux(self.folder, rules, f"relay = {relay}"))
                for own in (0, _MPTCP):
                    client = self.dial(mux.port, protocol=own)
                    sender = threading.Thread(target=client.sendall, args=(data,))
                    sender.start()
                    digest, left = sha256(), len(data)
                    while left:
                        piece = client.recv(2**20)
                        digest.update(piece)
                        left -= len(piece)
                    sender.join()
                    self.assertEqual(digest.digest(), sha256(data).digest())
                    self.assertEqual(is_multipath(client), bool(own))
                    client.close()
                    facts = mux.take_one()["facts"]
                    self.assertEqual(facts.get("mptcp"), "yes" if own or theirs else None)
                mux.end()

    def test_system_without_it_uses_tcp(self) -> None:
        network = Namespace(self)
        network.set("mptcp/enabled", "0")
        server = self.echo(*network.command, protocol=0)
        rules = _RULES.format(listen="127.0.0.1:0", server=server)
        mux = self.own(Mux(self.folder, rules, before=network.command))
        network.enter()
        self.say(self.dial(mux.port, protocol=0), b"hello")


class ChangeTests(MultipathTestCase):
    def test_reload_changes_it_and_refuses_nobody(self) -> None:
        for address in ("127.0.0.1", ""):
            port = free_port()
            rules = _RULES.format(listen=f"{address}:{port}", server=self.echo())
            mux = self.own(Mux(self.folder, rules, "workers = 2"))
            first = self.dial(port)
            self.say(first, b"first")
            stop = threading.Event()
            failures: list[object] = []
            arguments = (port, stop, failures)
            thread = threading.Thread(target=self.go_on_connecting, args=arguments)
            thread.start()
            for number in range(6):
                change = (r"mptcp = yes\n\[route", "mptcp = no\n[route")
                if number % 2:
                    change = (r"mptcp = no\n\[route", "mptcp = yes\n[route")
                self.assertIn("rules reloaded", mux.reload(change))
                client = self.dial(port)
                self.say(client, b"after")
                self.assertEqual(is_multipath(client), number % 2 == 1)
                client.close()
            stop.set()
            thread.join()
            self.assertEqual(failures, [])
            self.say(first, b"still there")
            first.close()
            mux.end()

    def go_on_connecting(self, port: int, stop: threading.Event, failures: list[object]) -> None:
        try:
            while not stop.is_set():
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    self.say(client, b"more")
        except OSError as problem:
            failures.append(problem)

    def test_refused_reload_leaves_the_socket_as_it_was(self) -> None:
        port = free_port()
        rules = _RULES.format(listen=f"127.0.0.1:{port}", server=self.echo())
        mux = self.own(Mux(self.folder, rules))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            other = f"[listen other]\nendpoint = 127.0.0.1:{taken.getsockname()[1]}\n[route"
            told = mux.reload((r"mptcp = yes\n\[route", f"mptcp = no\n{other}"))
        self.assertIn("reload failed", told)
        for _ in range(20):
            client = self.dial(port)
            self.say(client, b"hello")
            self.assertTrue(is_multipath(client))
            client.close()
        with socket.socket() as second:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.assertRaises(OSError, second.bind, ("127.0.0.1", port))

    def test_upgrade_leads_clients_to_nobody_else(self) -> None:
        """While a connection keeps an old worker, those of the new process get all clients, also after a reload."""
        for before, after in (("yes", "no"), ("no", "yes")):
            port = free_port()
            rules = _RULES.format(listen=f"127.0.0.1:{port}", server=self.echo())
            rules = rules.replace("mptcp = yes", f"mptcp = {before}\ndetect_timeout = 10m", 1)
            mux = Mux(self.folder, rules, "drain_timeout = 10m\nworkers = 2")
            self.addCleanup(mux.child.end)
            undecided = self.dial(port)
            change = f"mptcp = {before}", f"mptcp = {after}"
            mux.file.write_text(mux.file.read_text().replace(*change, 1))
            os.kill(mux.pid, signal.SIGUSR2)
            new = int(mux.child.wait_for(r"process (\d+) serves from now on")[1])
            self.assert_served(port, multipath=after == "yes")
            mux.pid = new
            self.assertIn("rules reloaded", mux.reload(change[::-1]))
            self.assert_served(port, multipath=before == "yes")
            undecided.close()
            os.kill(new, signal.SIGTERM)
            mux.child.wait()

    def assert_served(self, port: int, *, multipath: bool) -> None:
        for _ in range(20):
            client = self.dial(port)
            self.say(client, b"hello")
            self.assertEqual(is_multipath(client), multipath)
            client.close()

    def is_served(self, port: int) -> bool:
        with contextlib.suppress(ConnectionError), socket.socket() as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", port))
            self.say(client, b"hello")
            return True
        return False

    def test_upgrade_moves_connections_and_changes_it(self) -> None:
        port = free_port()
        mux = Mux(self.folder, _RULES.format(listen=f"127.0.0.1:{port}", server=self.echo()))
        self.addCleanup(mux.child.end)
        client = self.dial(port)
        self.say(client, b"before")
        stop = threading.Event()
        failures: list[object] = []
        thread = threading.Thread(target=self.go_on_connecting, args=(port, stop, failures))
        thread.start()
        mux.file.write_text(mux.file.read_text().replace("mptcp = yes", "mptcp = no", 1))
        os.kill(mux.pid, signal.SIGUSR2)
        new = int(mux.child.wait_for(r"process (\d+) serves from now on")[1])
        self.addCleanup(os.kill, new, signal.SIGTERM)
        self.assertEqual(mux.child.process.wait(PATIENCE), 0)
        stop.set()
        thread.join()
        self.assertEqual(failures, [])
        self.say(client, b"after")
        self.assertTrue(is_multipath(client))
        client.close()
        self.say(other := self.dial(port), b"new")
        self.assertFalse(is_multipath(other))
        other.close()


class TwoPathsTests(MultipathTestCase):
    """A client, the service and a server, each two with two cables between them."""

    def test_connection_outlives_the_path_that_it_began_on(self) -> None:
        client, middle, server = Namespace(self), Namespace(self), Namespace(self)
        for number, (one, other) in enumerate(
            ((client, middle), (client, middle), (middle, server), (middle, server)), start=1
        ):
            cable(one, [f"10.0.{number}.1/24"], other, [f"10.0.{number}.2/24"])
        for one in (client, middle, server):
            one.ip("mptcp limits set subflow 4 add_addr_accepted 4")
        middle.ip("mptcp endpoint add 10.0.2.2 signal")
        server.ip("mptcp endpoint add 10.0.4.2 signal")
        # A further path leads to another address, where the same socket has to listen.
        port = self.echo(*server.command, address="0.0.0.0").rpartition(":")[2]
        rules = _RULES.format(listen="0.0.0.0:0", server=f"10.0.3.2:{port}")
        mux = self.own(Mux(self.folder, rules, before=middle.command))
        client.enter()
        connected = self.dial(mux.port, "10.0.1.2")
        eventually(lambda: self.paths(connected) > 0, "the client has a second path")
        self.say(connected, b"hello")
        eventually(lambda: self.server_paths(connected) > 0, "the service has a second path")
        for network, address in ((client, "10.0.1.1"), (middle, "10.0.3.1")):
            self.pull(network, address)
            self.say(connected, os.urandom(300_000))
        connected.close()
        self.assertEqual(mux.take_one()["facts"]["mptcp"], "yes")

    def test_peer_that_answers_on_no_path_is_gone(self) -> None:
        client, middle = Namespace(self), Namespace(self)
        for number in (1, 2):
            cable(client, [f"10.0.{number}.1/24"], middle, [f"10.0.{number}.2/24"])
        for one in (client, middle):
            one.ip("mptcp limits set subflow 4 add_addr_accepted 4")
        middle.ip("mptcp endpoint add 10.0.2.2 signal")
        rules = _RULES.format(
            listen="0.0.0.0:0\nkeepalive = idle=1s interval=1s count=2",
            server=self.echo(*middle.command),
        )
        mux = self.own(Mux(self.folder, rules, before=middle.command))
        client.enter()
        connected = self.dial(mux.port, "10.0.1.2")
        eventually(lambda: self.paths(connected) > 0, "the client has a second path")
        if len(multipath_info(connected, 96) or b"") < 96:
            raise SkipTest("this kernel does not tell when a peer of MPTCP answered last")
        connected.sendall(bytes(300_000))
        for address in ("10.0.1.1", "10.0.2.1"):
            self.pull(client, address)
        self.assertEqual(mux.take_one()["reason"], "client-reset")

    def paths(self, connected: socket.socket) -> int:
        return (multipath_info(connected, 1) or b"\0")[0]

    def server_paths(self, connected: socket.socket) -> int:
        self.say(connected, b"?")
        return int(self.echoing.output.rpartition("further paths: ")[2].split()[0])

    def pull(self, network: Namespace, address: str) -> None:
        script = f"ip link set $(ip -o addr show to {address} | cut -d ' ' -f 2) down"
        network.run_lines([script])
