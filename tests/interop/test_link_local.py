"""Addresses of one link, which their interface belongs to: of servers, and that clients ask for."""

from __future__ import annotations

import socket

from tests.interop.children import PATIENCE, InteropTestCase
from tests.interop.mux import Mux, Record
from tests.interop.namespaces import Namespace

_RULES = """
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
        rules = _RULES.format(server="fe80::5%here", port=self.port)
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
