"""Servers and listeners at addresses of one link, and at those that clients have asked for."""

import socket
import sys
from ipaddress import ip_address
from typing import Any

import pytest

from tests.interop.children import PATIENCE, answered, eventually, output_of
from tests.support.kit import InteropTestCase, Named, Namespace, Record, Service
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Address, Command, ProxyHeader

pytestmark = pytest.mark.by_turns

_LINKED = """\
[listen kernel]
endpoint = 127.0.0.1:0
default  = [{server}]:{port}
[listen datagrams]
endpoint = udp:127.0.0.1:0
default  = once
[listen nowhere]
endpoint = 127.0.0.1:0
default  = [fe80::5%no-link]:{port}
[backend once]
server  = udp:[{server}]:{port}
answers = 1
"""

_ASKED = """\
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


class LinkTests(InteropTestCase):
    def serve(self, rules: str, settings: str = "") -> Service:
        named = rules.format(server="fe80::5%here", port=self.port)
        return self.own(Service(self.folder, named, settings))

    def relay(self, mux: Service, listener: str, address: str = "127.0.0.1") -> Record:
        with socket.create_connection((address, mux.ports[listener]), PATIENCE) as client:
            client.sendall(b"hello")
            server, _ = self.listening.accept()
            with server:
                self.assertEqual(server.recv(100), b"hello")
        return mux.take_one()

    def echo(self, mux: Service, listener: str, address: str = "127.0.0.1") -> Record:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.sendto(b"hello", (address, mux.ports[listener]))
            data, peer = self.datagrams.recvfrom(100)
            self.datagrams.sendto(data, peer)
            self.assertEqual(client.recv(100), b"hello")
        return mux.take_one()

    def assert_logged(self, line: Record) -> None:
        self.assertEqual(line["reason"], "done")
        self.assertEqual(line["server"].removeprefix("udp:"), f"[fe80::5%here]:{self.port}")
        self.assertEqual(line["local"].rpartition(":")[0], "[fe80::5]")

    def test_servers_of_the_rules_and_of_the_client(self) -> None:
        """They are those that the rules name, or at the address that a client has asked for; an interface that is missing is named."""
        network = Namespace(self)
        network.ip("link add here type veth peer name there")
        network.ip("link set here up")
        network.ip("link set there up")
        network.ip("addr add fe80::5/64 dev here nodad")
        network.enter()
        place = ("fe80::5", 0, 0, socket.if_nametoindex("here"))
        self.listening = self.enterContext(socket.create_server(place, family=socket.AF_INET6))
        self.port = port = self.listening.getsockname()[1]
        self.datagrams = self.enterContext(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        self.datagrams.bind((place[0], port, *place[2:]))
        for one in (self.listening, self.datagrams):
            one.settimeout(PATIENCE)
        mux = self.serve(_LINKED)
        self.assertEqual(self.relay(mux, "kernel")["reason"], "done")
        self.echo(mux, "datagrams")
        with socket.create_connection(("127.0.0.1", mux.ports["nowhere"])) as client:
            client.sendall(b"hello")
            self.assertEqual(mux.take_one()["reason"], "error")
        mux.child.wait_for("this machine has no interface 'no-link'")
        mux.stop()
        for relay in ("portable", "kernel"):
            mux = self.serve(_ASKED, f"relay = {relay}")
            for listener in ("any", "one"):
                self.assert_logged(self.relay(mux, listener, "fe80::5%here"))
            for listener in ("datagrams-any", "datagrams-one"):
                self.assert_logged(self.echo(mux, listener, "fe80::5%here"))
            mux.stop()


_ASKED_RULES = """
[listen public]
endpoint = :0
default  = there
{more}
[backend there]
server = {{local}}:{there}
{backend}
"""
_HOSTS = {"127.0.0.5": "five", "127.0.0.6": "six", "::1": "sixth version"}


class AskedAddressTests(InteropTestCase):
    def serve(self, more: str = "", backend: str = "", settings: str = "workers = 2") -> None:
        self.there = 0
        for host, name in _HOSTS.items():
            self.there = Named(self, name, host=host, port=self.there).port
        rules = _ASKED_RULES.format(there=self.there, more=more, backend=backend)
        self.mux = self.own(Service(self.folder, rules, settings, admin=True))

    def heard(self, host: str, said: bytes = b"x") -> str | None:
        return answered((host, self.mux.ports["public"]), said)

    def server(self) -> Any:
        """Return what the service says of the only one that it has for all addresses."""
        [backend] = self.mux.api("backends")
        [found] = backend["servers"]
        self.assertEqual(found["server"], f"{{local}}:{self.there}")
        return found

    def drain(self, *options: str) -> None:
        admin, name = f"--admin=unix:{self.mux.admin}", f"there/{{local}}:{self.there}"
        output_of(sys.executable, "-m", "txmux", "drain", name, *options, admin)

    def test_both_families_by_both_relays(self) -> None:
        """Where an address has no server, the one of the others is as well as before."""
        for settings in ("workers = 2", "relay = portable"):
            self.serve(settings=settings)
            for host, name in _HOSTS.items():
                self.assertEqual(self.heard(host), name)
            servers = sorted(str(line["server"]) for line in self.mux.take(3))
            places = [f"127.0.0.5:{self.there}", f"127.0.0.6:{self.there}", f"[::1]:{self.there}"]
            self.assertEqual(servers, places)
            for _ in range(5):
                self.assertEqual(self.heard("127.0.0.7"), "")
            self.assertEqual(self.heard("127.0.0.5"), "five")
            self.assertEqual(self.server()["state"], "up")
            failed = [line for line in self.mux.take(6) if line["reason"] != "done"]
            found = [(line["server"], line["reason"]) for line in failed]
            self.assertEqual(found, [(f"127.0.0.7:{self.there}", "connect-refused")] * 5)
            self.mux.stop()

    def test_behind_a_proxy(self) -> None:
        """Behind a PROXY header it is the address in it; who is told of without addresses has its own, and without one is closed."""
        path, accept = f"{self.folder}/x.sock", "accept_proxy_from = 127.0.0.0/8"
        local = f"[listen local]\nendpoint = unix:{path}\naccept_proxy_from = unix\ndefault = there"
        self.serve(f"{accept}\n{local}")
        who, asked = (Address(ip_address(host), 443) for host in ("192.0.2.1", "127.0.0.6"))
        header = encode_v2(ProxyHeader(Command.PROXY, who, asked))
        self.assertEqual(self.heard("127.0.0.1", header + b"x"), "six")
        self.assertEqual(self.heard("127.0.0.5", b"PROXY UNKNOWN\r\nx"), "five")
        self.mux.take(2)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            client.sendall(b"PROXY UNKNOWN\r\nx")
            self.assertEqual(client.recv(10), b"")
        line = self.mux.take_one()
        self.assertEqual((line["reason"], line["server"]), ("no-name", None))

    def test_moved_and_drained(self) -> None:
        """Connections go on in another worker, which counts them; the server can be drained, and all of its connections ended."""
        self.serve()
        places = [(host, self.mux.ports["public"]) for host in ("127.0.0.5", "127.0.0.6", "::1")]
        clients = [self.enterContext(socket.create_connection(at, PATIENCE)) for at in places]
        for client in clients:
            client.sendall(b"x")
            client.recv(100)
        self.mux.reload(("workers = 2", "workers = 1"))
        eventually(lambda: self.server()["active"] == 3, "all are counted anew")
        self.drain()
        self.assertEqual(self.heard("127.0.0.5"), "")
        self.drain("--close")
        for client in clients:
            with self.assertRaises(ConnectionResetError):
                client.recv(10)
