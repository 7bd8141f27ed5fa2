"""Servers and listeners at addresses that mislead: local ports, loops, and the addresses of one link."""

from __future__ import annotations

import socket
import sys

from tests.interop.children import PATIENCE, InteropTestCase, output_of
from tests.interop.mux import Mux, Record, pool_rules
from tests.interop.namespaces import Namespace
from tests.support.ports import free_port

_CLIENTS = """
import socket, sys
for number in range(40):
    with socket.socket() as client:
        client.bind(("127.0.0.1", 50000 + number))
        client.connect(("127.0.0.1", int(sys.argv[1])))
        client.sendall(b"x")
        try:
            print(client.recv(100))
        except OSError as problem:
            print(problem)
"""


class ItselfTests(InteropTestCase):
    """A network whose system has two local ports."""

    def test_nobody_gets_their_own_bytes_back(self) -> None:
        for settings in ("relay = kernel", "relay = portable"):
            for more in ("eject = off", "eject = off\ncheck = tcp interval=50ms"):
                network = Namespace(self)
                network.set("ipv4/ip_local_port_range", "30000 39999")
                rules = pool_rules("127.0.0.1:40000", more=more)
                mux = self.own(Mux(self.folder, rules, settings, before=network.command))
                network.set("ipv4/ip_local_port_range", "40000 40001")
                client = (*network.command, sys.executable, "-c", _CLIENTS, str(mux.port))
                self.assertEqual({*output_of(*client).decode().split("\n")}, {"b''", ""})
                reasons = {line["reason"] for line in mux.take(40)}
                self.assertLessEqual(reasons, {"connect-refused", "no-server"})


_TWO = """
[listen one]
endpoint = 127.0.0.1:{port}

[listen two]
endpoint = 127.0.0.1:{other}

[route there]
match   = any
under   = one
backend = pool

[route back]
match   = any
under   = two
backend = 127.0.0.1:{port}

[backend pool]
server         = 127.0.0.1:{other}
proxy_protocol = v2
"""


class LoopTests(InteropTestCase):
    """The client is broken off soon."""

    def test_two_listeners_that_lead_to_each_other(self) -> None:
        for workers in (1, 2):
            port, other = free_port(), free_port()
            rules = _TWO.format(port=port, other=other)
            mux = self.own(Mux(self.folder, rules, f"workers = {workers}"))
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                client.sendall(b"x")
                with self.assertRaises(ConnectionResetError):
                    client.recv(10)
            lines = mux.take(9)
            self.assertEqual([line["reason"] for line in lines].count("limit"), 1)
            self.assertEqual({line["reason"] for line in lines}, {"limit", "server-reset"})
            mux.child.wait_for("has come back 8 times")

    def test_asked_address(self) -> None:
        """The listener itself, where a proxy might have told of another address, and has not."""
        port = free_port()
        rules = f"[listen one]\nendpoint = 127.0.0.1:{port}\naccept_proxy_from = 127.0.0.9\ndefault = {{local}}:{port}\n"
        mux = self.own(Mux(self.folder, rules))
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(b"x")
            with self.assertRaises(ConnectionResetError):
                client.recv(10)
        self.assertEqual([line["reason"] for line in mux.take(9)].count("limit"), 1)


_LINKED = """
[listen kernel]
endpoint = 127.0.0.1:0
default  = [{server}]:{port}

[listen datagrams]
endpoint = udp:127.0.0.1:0
default  = udp:[{server}]:{port}

[listen nowhere]
endpoint = 127.0.0.1:0
default  = [fe80::5%no-link]:{port}
"""

_ASKED = """
[listen any]
endpoint = :0
default  = {{local}}:{port}

[listen one]
endpoint = [fe80::5%here]:0
default  = {{local}}:{port}

[listen datagrams-any]
endpoint = udp::0
default  = once

[listen datagrams-one]
endpoint = udp:[fe80::5%here]:0
default  = once

[backend once]
server  = udp:{{local}}:{port}
answers = 1
"""


class LinkCase(InteropTestCase):
    """One server for TCP and one for UDP, at an address of a link."""

    def setUp(self) -> None:
        network = Namespace(self)
        network.ip("link add here type veth peer name there")
        network.ip("link set here up")
        network.ip("link set there up")
        network.ip("addr add fe80::5/64 dev here nodad")
        network.enter()
        place = ("fe80::5", 0, 0, socket.if_nametoindex("here"))
        self.listening = socket.create_server(place, family=socket.AF_INET6)
        self.addCleanup(self.listening.close)
        self.listening.settimeout(PATIENCE)
        self.port = port = self.listening.getsockname()[1]
        self.datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.addCleanup(self.datagrams.close)
        self.datagrams.settimeout(PATIENCE)
        self.datagrams.bind((place[0], port, *place[2:]))


class LinkLocalTest(LinkCase):
    """Servers that the rules name."""

    def setUp(self) -> None:
        super().setUp()
        rules = _LINKED.format(server="fe80::5%here", port=self.port)
        self.mux = self.own(Mux(self.folder, rules))

    def test_streams(self) -> None:
        with socket.create_connection(("127.0.0.1", self.mux.ports["kernel"])) as client:
            client.sendall(b"hello")
            server, _ = self.listening.accept()
            with server:
                self.assertEqual(server.recv(100), b"hello")
        self.assertEqual(self.mux.take_one()["reason"], "done")

    def test_datagrams(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.sendto(b"hello", ("127.0.0.1", self.mux.ports["datagrams"]))
            data, peer = self.datagrams.recvfrom(100)
            self.datagrams.sendto(data, peer)
            self.assertEqual(client.recv(100), b"hello")

    def test_missing_interface_is_named(self) -> None:
        with socket.create_connection(("127.0.0.1", self.mux.ports["nowhere"])) as client:
            client.sendall(b"hello")
            line = self.mux.take_one()
        self.assertEqual(line["reason"], "error")
        self.assertIn("this machine has no interface 'no-link'", self.mux.child.output)


class AskedTest(LinkCase):
    """Servers at the address of a link that a client has asked for."""

    def serve(self, settings: str = "") -> Mux:
        return self.own(Mux(self.folder, _ASKED.format(port=self.port), settings))

    def assert_logged(self, line: Record) -> None:
        self.assertEqual(line["reason"], "done")
        self.assertEqual(line["server"].removeprefix("udp:"), f"[fe80::5%here]:{self.port}")
        self.assertEqual(line["local"].rpartition(":")[0], "[fe80::5]")

    def test_streams_by_both_relays(self) -> None:
        for relay in ("kernel", "portable"):
            mux = self.serve(f"relay = {relay}")
            for listener in ("any", "one"):
                place = ("fe80::5%here", mux.ports[listener])
                with socket.create_connection(place, PATIENCE) as client:
                    client.sendall(b"hello")
                    server, _ = self.listening.accept()
                    with server:
                        self.assertEqual(server.recv(100), b"hello")
                self.assert_logged(mux.take_one())
            mux.stop()

    def test_datagrams(self) -> None:
        mux = self.serve()
        for listener in ("datagrams-any", "datagrams-one"):
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE)
                client.sendto(b"hello", ("fe80::5%here", mux.ports[listener]))
                data, peer = self.datagrams.recvfrom(100)
                self.datagrams.sendto(data, peer)
                self.assertEqual(client.recv(100), b"hello")
            self.assert_logged(mux.take_one())
