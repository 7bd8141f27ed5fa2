"""Servers at the address that each client has asked for: ``{local}``."""

from __future__ import annotations

import contextlib
import socket
import sys
from ipaddress import ip_address
from urllib.request import urlopen

from tests.interop.children import PATIENCE, InteropTestCase, eventually, output_of
from tests.interop.mux import Mux
from tests.interop.originals import Named
from tests.support.ports import free_port
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Address, Command, ProxyHeader

_RULES = """
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
    """Each client is led to where it has gone itself, at another port."""

    def serve(self, more: str = "", backend: str = "", settings: str = "workers = 2") -> None:
        self.there = 0
        for host, name in _HOSTS.items():
            self.there = Named(self, name, host=host, port=self.there).port
        self.metrics = free_port()
        ends = f"admin = unix:{self.folder}/admin.sock\nmetrics = 127.0.0.1:{self.metrics}"
        rules = _RULES.format(there=self.there, more=more, backend=backend)
        self.mux = self.own(Mux(self.folder, rules, f"{settings}\n{ends}"))

    def connect(self, host: str, said: bytes = b"x") -> socket.socket:
        port = self.mux.ports["public"]
        client = socket.create_connection((host, port), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(said)
        return client

    def heard(self, host: str, said: bytes = b"x") -> str:
        with contextlib.suppress(ConnectionError), self.connect(host, said) as client:
            return client.recv(100).decode().strip()
        return ""

    def counted(self, metric: str) -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        found = [
            line.removeprefix(f"{metric}{{") for line in lines if line.startswith(f"{metric}{{")
        ]
        return {
            text.partition('server="')[2].partition('"')[0]: float(text.split()[-1])
            for text in found
        }

    def txmux(self, *words: str) -> None:
        admin = f"--admin=unix:{self.folder}/admin.sock"
        output_of(sys.executable, "-m", "txmux", *words, admin)

    def test_both_families_by_both_relays(self) -> None:
        for settings in ("workers = 2", "relay = portable"):
            self.serve(settings=settings)
            for host, name in _HOSTS.items():
                self.assertEqual(self.heard(host), name)
            servers = sorted(str(line["server"]) for line in self.mux.take(3))
            places = [f"127.0.0.5:{self.there}", f"127.0.0.6:{self.there}", f"[::1]:{self.there}"]
            self.assertEqual(servers, places)
            self.assertEqual(
                self.counted("txmux_backend_server_up"), {f"{{local}}:{self.there}": 1}
            )
            self.mux.stop()

    def test_behind_a_proxy(self) -> None:
        """Behind a PROXY header it is the address in it; who is told of without addresses has its own."""
        self.serve("accept_proxy_from = 127.0.0.0/8")
        who, asked = (Address(ip_address(host), 443) for host in ("192.0.2.1", "127.0.0.6"))
        header = encode_v2(ProxyHeader(Command.PROXY, who, asked))
        self.assertEqual(self.heard("127.0.0.1", header + b"x"), "six")
        self.assertEqual(self.heard("127.0.0.5", b"PROXY UNKNOWN\r\nx"), "five")

    def test_client_without_address_is_closed(self) -> None:
        path = f"{self.folder}/x.sock"
        self.serve(
            f"[listen local]\nendpoint = unix:{path}\naccept_proxy_from = unix\ndefault = there"
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            client.sendall(b"PROXY UNKNOWN\r\nx")
            self.assertEqual(client.recv(10), b"")
        [line] = self.mux.take(1)
        self.assertEqual((line["reason"], line["server"]), ("error", f"{{local}}:{self.there}"))
        self.mux.child.wait_for("this client has asked for no IP address")

    def test_address_without_server(self) -> None:
        self.serve()
        for _ in range(5):
            self.assertEqual(self.heard("127.0.0.7"), "")
        self.assertEqual(self.heard("127.0.0.5"), "five")
        failed = self.mux.take(5)
        self.assertEqual({line["server"] for line in failed}, {f"127.0.0.7:{self.there}"})
        self.assertEqual({line["reason"] for line in failed}, {"connect-refused"})

    def test_moved_and_drained(self) -> None:
        """Connections go on in another worker, which counts them; the server can be drained, and all of its connections ended."""
        self.serve()
        clients = [self.connect(host) for host in ("127.0.0.5", "127.0.0.6", "::1")]
        for client in clients:
            client.recv(100)
        text = self.mux.file.read_text()
        self.mux.file.write_text(text.replace("workers = 2", "workers = 1"))
        self.txmux("reload")
        name = f"{{local}}:{self.there}"
        eventually(
            lambda: self.counted("txmux_backend_connections_active") == {name: 3},
            "all are counted anew",
        )
        self.txmux("drain", f"there/{name}")
        self.assertEqual(self.heard("127.0.0.5"), "")
        self.txmux("drain", f"there/{name}", "--close")
        for client in clients:
            with self.assertRaises(ConnectionResetError):
                client.recv(10)
