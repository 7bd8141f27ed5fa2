"""Connections from chosen addresses, and to every port of a network, in networks of their own, with real servers that see whom they come from."""

import contextlib
import itertools
import signal
import socket
import sys
from collections.abc import Sequence

from benchmarks.flood import BIND_ADDRESS_NO_PORT
from tests.interop.children import PATIENCE, Child, InteropTestCase, write
from tests.support.kit import EXAMPLES, Namespace, Service, ThreadServer, cable
from txmux.backends.connect.source import transparent_hints
from txmux.rules.model import Backend
from txmux.rules.reading.endpoints import server

_PORTS = 20


def _serve(test: InteropTestCase, namespace: Namespace, *places: tuple[str, int]) -> None:
    """Have each client told who it is, whose connection stands until the end."""
    with namespace.inside():
        for host, port in places:
            test.own(ThreadServer(_tell_peer, host, port))


def _tell_peer(client: socket.socket) -> None:
    client.sendall(f"you are {client.getpeername()[0]}".encode())
    while client.recv(100):
        pass


def _ask(
    closing: contextlib.ExitStack, address: tuple[str, int], sources: Sequence[str], count: int
) -> list[str]:
    """Open connections to a service, in turn from some addresses, which stay, and give what each hears first."""
    said = []
    for _, source in zip(range(count), itertools.cycle(sources), strict=False):
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        client = closing.enter_context(socket.socket(family))
        client.settimeout(PATIENCE)
        client.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        client.bind((source, 0))
        client.connect(address)
        client.sendall(b"hello")
        try:
            said.append(client.recv(100).decode())
        except ConnectionResetError:
            said.append("")
    return said


_RULES = """
[listen public]
endpoint = :7000
default = seen
[backend seen]
server = {server}
source = {source}
{more}
"""

_AT_ONCE = "drain_timeout = 0s"


class ManyPortsTests(InteropTestCase):
    def test_as_many_connections_to_each_server_as_all_addresses_have_ports(self) -> None:
        """Where no source is named and all ports are in use, the log says what has more."""
        network = Namespace(self)
        for number in (1, 2, 3, 4, 9):
            network.ip(f"addr add 10.1.0.{number}/32 dev lo")
            network.ip(f"addr add fd00::{number}/128 dev lo nodad")
        # A port of the server's own must not be in the range.
        network.set("ipv4/ip_local_port_range", f"40000 {40000 + _PORTS - 1}")
        network.enter()
        for net, first in (("10.1.0.", 9001), ("fd00::", 9003)):
            own, server = f"{net}1, {net}2", f"[{net}9]" if ":" in net else f"{net}9"
            _serve(self, network, *((f"{net}9", port) for port in (first, first + 1)))
            servers = "".join(f"\n    {server}:{port}" for port in (first, first + 1))
            rules = _RULES.format(server=servers, source=own, more="idle_timeout = 20m")
            mux = self.own(Service(self.folder, rules, _AT_ONCE))
            # The clients have the same few ports, but are connections to another address.
            sources = [f"{net}{number}" for number in (1, 2, 3, 4, 9)]
            with contextlib.ExitStack() as clients:
                said = _ask(clients, (f"{net}9", mux.port), sources, 4 * _PORTS + 1)
            for address in own.split(", "):
                self.assertEqual(said.count(f"you are {address}"), 2 * _PORTS)
            self.assertEqual(said.count(""), 1)
            mux.child.wait_for("all ports of all addresses in source are in use")
            mux.stop()
        told = "more addresses in source have more ports"
        rules = "[listen public]\nendpoint = udp:7000\ndefault = udp:10.1.0.9:9005\n"
        mux = self.own(Service(self.folder, rules, _AT_ONCE))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server_of_datagrams:
            server_of_datagrams.bind(("10.1.0.9", 9005))
            # From ports that are not those that the system hands out.
            for number in range(_PORTS + 1):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.bind(("10.1.0.1", 20000 + number))
                    client.sendto(b"hello", ("10.1.0.9", 7000))
            mux.child.wait_for(f"cannot connect to udp:10.1.0.9:9005: .*{told}")

    def test_service(self) -> None:
        """With the routing rules that users are told, servers elsewhere and on the same machine see the client."""
        for targets in (("10.2.2.9:9001", "[fd02:2::9]:9001"), ("127.0.0.1:9001", "[::1]:9001")):
            clients, middle, servers = (Namespace(self) for _ in range(3))
            cable(clients, ["10.2.1.7/24", "fd02:1::7/64"], middle, ["10.2.1.1/24", "fd02:1::1/64"])
            cable(middle, ["10.2.2.1/24", "fd02:2::1/64"], servers, ["10.2.2.9/24", "fd02:2::9/64"])
            servers.ip("route add default via 10.2.2.1")
            servers.ip("-6 route add default via fd02:2::1")
            middle.set("ipv4/conf/all/rp_filter", "1")  # as many systems have it
            _serve(self, servers, ("10.2.2.9", 9001), ("fd02:2::9", 9001))
            _serve(self, middle, ("127.0.0.1", 9001), ("::1", 9001))
            backend = Backend("seen", tuple(map(server, targets)), source=("client",))
            middle.run_lines(transparent_hints(backend))
            hosts = (("10.2.1.1", "10.2.1.7"), ("fd02:1::1", "fd02:1::7"))
            for (host, client), target in zip(hosts, targets, strict=True):
                rules = _RULES.format(server=target, source="client", more="idle_timeout = 1s")
                mux = Service(self.folder, rules, _AT_ONCE, before=middle.command)
                with clients.inside(), contextlib.ExitStack() as closing:
                    seen = _ask(closing, (host, 7000), [client], 3)
                self.assertEqual(seen, 3 * [f"you are {client}"])
                mux.stop()

    def test_each_port_of_each_address(self) -> None:
        network = Namespace(self)
        network.ip("route add local 198.51.100.0/24 dev lo")
        network.ip("addr add 10.0.0.5/32 dev lo")
        network.enter()
        text = (EXAMPLES / "every-port/rules.ini").read_text()
        rules = write(self.folder / "rules.ini", text.replace("user = nobody", "admin = off"))
        program = (EXAMPLES / "every-port/sk_lookup.py", "198.51.100.0/24")
        command = (sys.executable, "-m", "txmux", "run", rules)
        mux = self.own(Child(sys.executable, *program, *command, ready="serving with"))
        servers = {port: socket.create_server(("10.0.0.5", port)) for port in (8, 443, 50000)}
        for listening in servers.values():
            self.enterContext(listening)

        def serve(address: str) -> None:
            for port, listening in servers.items():
                with socket.create_connection((address, port), PATIENCE) as client:
                    client.sendall(b"hello")
                    with listening.accept()[0] as accepted:
                        self.assertEqual(accepted.recv(100), b"hello")

        serve("198.51.100.7")
        mux.process.send_signal(signal.SIGHUP)
        mux.wait_for("rules reloaded")
        serve("198.51.100.255")
