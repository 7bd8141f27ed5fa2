"""Connections from chosen addresses, in networks of their own, with real servers that see whom they come from."""

from tests.interop.children import InteropTestCase
from tests.interop.namespaces import Namespace, cable
from tests.support.services import Service
from txmux.backends.connect.source import transparent_hints
from txmux.rules.model import Backend
from txmux.rules.reading.endpoints import server

# Tells each client who it is, and lets the connections stand until it is ended.
_SERVER = """
import socket, sys
sockets = []
for address in sys.argv[1:]:
    host, _, port = address.rpartition(" ")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets.append(socket.create_server((host, int(port)), family=family, backlog=1024))
import threading
held = []
def serve(listening):
    while True:
        connected, peer = listening.accept()
        connected.sendall(f"you are {peer[0]}".encode())
        held.append(connected)
for listening in sockets:
    threading.Thread(target=serve, args=[listening], daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""

_PORTS = 20


def _serve(namespace: Namespace, *addresses: str) -> None:
    namespace.own(namespace.python(_SERVER, *addresses)).wait_for("ready")


class ManyPortsTests(InteropTestCase):
    def setUp(self) -> None:
        self.network = Namespace(self)
        for number in (1, 2, 3, 4, 9):
            self.network.ip(f"addr add 10.1.0.{number}/32 dev lo")
            self.network.ip(f"addr add fd00::{number}/128 dev lo nodad")
        # A port of the server's own must not be in the range.
        self.network.set("ipv4/ip_local_port_range", f"40000 {40000 + _PORTS - 1}")

    def test_as_many_connections_to_each_server_as_all_addresses_have_ports(self) -> None:
        for net, first in (("10.1.0.", 9001), ("fd00::", 9003)):
            own, server = f"{net}1, {net}2", f"[{net}9]" if ":" in net else f"{net}9"
            _serve(self.network, *(f"{net}9 {port}" for port in (first, first + 1)))
            servers = "".join(f"\n    {server}:{port}" for port in (first, first + 1))
            rules = _RULES.format(server=servers, source=own, more="idle_timeout = 20m")
            mux = self.own(Service(self.folder, rules, _AT_ONCE, before=self.network.command))
            # The clients have the same few ports, but are connections to another address.
            asked = (f"{net}9", str(mux.port), str(4 * _PORTS + 1))
            said = self.network.said(_CLIENTS, *asked, *(f"{net}{n}" for n in (1, 2, 3, 4, 9)))
            for address in own.split(", "):
                self.assertEqual(said.count(f"you are {address}"), 2 * _PORTS)
            self.assertEqual(said.count(""), 1)
            mux.child.wait_for("all ports of all addresses in source are in use")
            mux.stop()

    def test_without_source(self) -> None:
        """Where no source is named and all ports are in use, the log says what has more."""
        told = "more addresses in source have more ports"
        rules = "[listen public]\nendpoint = udp:7000\ndefault = udp:10.1.0.9:9001\n"
        mux = self.own(Service(self.folder, rules, _AT_ONCE, before=self.network.command))
        talkers = self.network.python(_TALKERS, str(_PORTS + 1))
        self.own(talkers).wait_for("said")
        mux.child.wait_for(f"cannot connect to udp:10.1.0.9:9001: .*{told}")


# Sends a datagram from each of as many ports as it is told, which are not those that the system hands out, and is the server, too.
_TALKERS = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.1.0.9", 9001))
for number in range(int(sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("10.1.0.1", 20000 + number))
        client.sendto(b"hello", ("10.1.0.9", 7000))
print("said", flush=True)
sys.stdin.read()
"""

_RULES = """
[listen public]
endpoint = :7000

[route all]
match   = any
backend = seen

[backend seen]
server = {server}
source = {source}
{more}
"""

_AT_ONCE = "drain_timeout = 0s"

# Opens connections to a service, in turn from some addresses, and prints what each hears first.
_CLIENTS = """
import socket, sys
host, port, count, *sources = sys.argv[1:]
held = []
for number in range(int(count)):
    source = (sources[number % len(sources)], 0) if sources else None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = socket.socket(family)
    client.settimeout(180)
    client.setsockopt(socket.IPPROTO_IP, 24, 1)
    if source:
        client.bind(source)
    client.connect((host, int(port)))
    client.sendall(b"hello")
    try:
        print(client.recv(100).decode(), flush=True)
    except ConnectionResetError:
        print(flush=True)
    held.append(client)
"""


class TransparentTests(InteropTestCase):
    def test_service(self) -> None:
        """With the routing rules that users are told, servers elsewhere and on the same machine see the client."""
        for targets in (("10.2.2.9:9001", "[fd02:2::9]:9001"), ("127.0.0.1:9001", "[::1]:9001")):
            clients, middle, servers = (Namespace(self) for _ in range(3))
            cable(clients, ["10.2.1.7/24", "fd02:1::7/64"], middle, ["10.2.1.1/24", "fd02:1::1/64"])
            cable(middle, ["10.2.2.1/24", "fd02:2::1/64"], servers, ["10.2.2.9/24", "fd02:2::9/64"])
            servers.ip("route add default via 10.2.2.1")
            servers.ip("-6 route add default via fd02:2::1")
            middle.set("ipv4/conf/all/rp_filter", "1")  # as many systems have it
            _serve(servers, "10.2.2.9 9001", "fd02:2::9 9001")
            _serve(middle, "127.0.0.1 9001", "::1 9001")
            backend = Backend("seen", tuple(map(server, targets)), source=("client",))
            middle.run_lines(transparent_hints(backend))
            for host, target, client in zip(
                ("10.2.1.1", "fd02:1::1"), targets, ("10.2.1.7", "fd02:1::7"), strict=True
            ):
                rules = _RULES.format(server=target, source="client", more="idle_timeout = 1s")
                mux = Service(self.folder, rules, _AT_ONCE, before=middle.command)
                seen = clients.said(_CLIENTS, host, "7000", "3")
                self.assertEqual(seen, 3 * [f"you are {client}"])
                mux.stop()
