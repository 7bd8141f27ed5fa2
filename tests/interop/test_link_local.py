"""Servers at addresses of one link, which their interface belongs to."""

from __future__ import annotations

import socket

from tests.interop.children import PATIENCE, InteropTestCase
from tests.interop.mux import Mux
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


class LinkLocalTest(InteropTestCase):
    """One server for TCP and one for UDP, at an address of a link."""

    def setUp(self) -> None:
        """Start them, and a service, in a network of their own."""
        network = Namespace(self)
        network.ip("link add here type veth peer name there")
        network.ip("link set here up")
        network.ip("link set there up")
        network.ip("addr add fe80::5/64 dev here nodad")
        network.enter()
        place = ("fe80::5", 0, 0, socket.if_nametoindex("here"))
        self.listening = socket.create_server(place, family=socket.AF_INET6)
        self.addCleanup(self.listening.close)
        port = self.listening.getsockname()[1]
        self.datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.addCleanup(self.datagrams.close)
        self.datagrams.bind((place[0], port, *place[2:]))
        self.mux = self.own(Mux(self.folder, _RULES.format(server="fe80::5%here", port=port)))

    def test_streams(self) -> None:
        """TCP, by the kernel relay."""
        self.listening.settimeout(PATIENCE)
        with socket.create_connection(("127.0.0.1", self.mux.ports["kernel"])) as client:
            client.sendall(b"hello")
            server, _ = self.listening.accept()
            with server:
                self.assertEqual(server.recv(100), b"hello")
        self.assertEqual(self.mux.take_one()["reason"], "done")

    def test_datagrams(self) -> None:
        """UDP."""
        self.datagrams.settimeout(PATIENCE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.sendto(b"hello", ("127.0.0.1", self.mux.ports["datagrams"]))
            data, peer = self.datagrams.recvfrom(100)
            self.datagrams.sendto(data, peer)
            self.assertEqual(client.recv(100), b"hello")

    def test_no_interface(self) -> None:
        """One whose interface is not there is told of by its name."""
        with socket.create_connection(("127.0.0.1", self.mux.ports["nowhere"])) as client:
            client.sendall(b"hello")
            line = self.mux.take_one()
        self.assertEqual(line["reason"], "error")
        self.assertIn("this machine has no interface 'no-link'", self.mux.child.output)
