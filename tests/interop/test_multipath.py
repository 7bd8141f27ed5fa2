"""Multipath TCP to clients and to servers: with peers that have it and those that do not, and over two networks."""

import contextlib
import os
import re
import socket
import threading
from hashlib import sha256
from unittest import SkipTest

from tests.interop.children import PATIENCE, InteropTestCase, eventually
from tests.support.kit import Namespace, Service, ThreadServer, cable, free_port
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


class MultipathTests(InteropTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        with open_multipath(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.proto != _MPTCP:
                raise SkipTest("the system has no MPTCP")

    def echo(
        self, network: Namespace | None = None, address: str = "127.0.0.1", protocol: int = _MPTCP
    ) -> str:
        with network.inside() if network else contextlib.nullcontext():
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        listening.bind((address, 0))
        listening.listen()
        self.own(ThreadServer(self.talk, listening=listening))
        return "{}:{}".format(*listening.getsockname())

    def talk(self, accepted: socket.socket) -> None:
        while data := accepted.recv(65536):
            self.further_paths = self.paths(accepted)
            accepted.sendall(data)

    def dial(self, port: int, address: str = "127.0.0.1", protocol: int = _MPTCP) -> socket.socket:
        client = self.enterContext(socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol))
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

    def test_fact_and_bytes_with_peers_that_have_it_and_that_do_not(self) -> None:
        """Much goes through the kernel's pipes, or with `portable` not."""
        data = os.urandom(2**20) * 24
        for relay in ("auto", "portable"):
            for theirs in (0, _MPTCP):
                rules = _RULES.format(listen="127.0.0.1:0", server=self.echo(protocol=theirs))
                mux = self.own(Service(self.folder, rules, f"relay = {relay}"))
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
        rules = _RULES.format(listen="127.0.0.1:0", server=self.echo(network, protocol=0))
        mux = self.own(Service(self.folder, rules, before=network.command))
        network.enter()
        self.say(self.dial(mux.port, protocol=0), b"hello")

    def test_listener_cannot_change_while_the_service_runs(self) -> None:
        """A reload and an upgrade are refused, and nothing has changed; of a backend it can change."""
        for before, after in (("yes", "no"), ("no", "yes")):
            port = free_port()
            rules = _RULES.format(listen=f"127.0.0.1:{port}", server=self.echo())
            rules = rules.replace("mptcp = yes", f"mptcp = {before}", 1)
            mux = self.own(Service(self.folder, rules))
            change = f"mptcp = {before}\n[route", f"mptcp = {after}\n[route"
            refused = "'mptcp' cannot change while the service runs: restart it for that"
            self.assertIn(refused, mux.reload((re.escape(change[0]), change[1])))
            mux.refuse(refused)
            for _ in range(20):
                client = self.dial(port)
                self.say(client, b"hello")
                self.assertEqual(is_multipath(client), before == "yes")
                client.close()
            mux.file.write_text(mux.file.read_text().replace(*change[::-1]))
            backend = "mptcp = yes\n$", "mptcp = no\n"
            self.assertIn("1 backend changed", mux.reload(backend))
            with socket.socket() as second:
                second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.assertRaises(OSError, second.bind, ("127.0.0.1", port))
            mux.end()

    def test_upgrade_moves_connections(self) -> None:
        mux = Service(self.folder, _RULES.format(listen="127.0.0.1:0", server=self.echo()))
        self.addCleanup(mux.kill_all)
        client = self.dial(mux.port)
        self.say(client, b"before")
        mux.upgrade()
        self.say(client, b"after")
        self.say(other := self.dial(mux.port), b"new")
        for one in (client, other):
            self.assertTrue(is_multipath(one))
            one.close()
        mux.stop()

    # A client, the service and a server, each two with two cables between them.
    def test_connection_outlives_the_path_that_it_began_on(self) -> None:
        client, middle, server = Namespace(self), Namespace(self), Namespace(self)
        ends = [(client, middle)] * 2 + [(middle, server)] * 2
        for number, (one, other) in enumerate(ends, start=1):
            cable(one, [f"10.0.{number}.1/24"], other, [f"10.0.{number}.2/24"])
        for one in (client, middle, server):
            one.ip("mptcp limits set subflow 4 add_addr_accepted 4")
        middle.ip("mptcp endpoint add 10.0.2.2 signal")
        server.ip("mptcp endpoint add 10.0.4.2 signal")
        # A further path leads to another address, where the same socket has to listen.
        port = self.echo(server, "0.0.0.0").rpartition(":")[2]
        rules = _RULES.format(listen="0.0.0.0:0", server=f"10.0.3.2:{port}")
        mux = self.own(Service(self.folder, rules, before=middle.command))
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
        listen = "0.0.0.0:0\nkeepalive = idle=1s interval=1s count=2"
        rules = _RULES.format(listen=listen, server=self.echo(middle))
        mux = self.own(Service(self.folder, rules, before=middle.command))
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
        return self.further_paths

    def pull(self, network: Namespace, address: str) -> None:
        script = f"ip link set $(ip -o addr show to {address} | cut -d ' ' -f 2) down"
        network.run_lines([script])
