"""Examples with several servers or services: `load-balancer.ini`, `chain`, and `tcp-proxy` as rules and as a program."""

import contextlib
import re
import socket
import ssl
import sys

from tests.interop import servers
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.support.kit import PATIENCE, Child, Record, eventually, output_of, write

_ENDED = "10.0.0.2"
_PLAIN = ("10.0.0.1", _ENDED)
_BACKUP = "10.0.0.3"
_NAMED = ("10.0.0.11", "10.0.0.12")


class LoadBalancerTests(ScenarioTestCase):
    addresses = (*_PLAIN, _BACKUP, *_NAMED, "10.0.0.53")

    def start_server(self, address: str) -> Child:
        folder = self.folder / address
        health = f"location /health {{ if (-f {folder}/ill) {{ return 503; }} return 204; }}"
        site = servers.site(f"{address}:8080 proxy_protocol", address, health)
        return self.own(servers.start_nginx(folder, site))

    def reached(self, count: int = 10) -> set[str]:
        """Ask as often for a page, each time by a new connection, and give the servers that answered."""
        urls = count * ["http://www.example.com/"]
        options = ("-q", "-sS", "--resolve", "www.example.com:80:127.0.0.1")
        said = output_of("curl", *options, "-H", "Connection: close", "-w", "\n", *urls)
        return {*said.decode().split()}

    def wait_until(self, address: str, state: str) -> None:
        self.mux.child.wait_for(f" {address}:8080 is {state}")

    def mark(self, state: str, *addresses: str) -> None:
        for address in addresses:
            mark = self.folder / address / "ill"
            mark.touch() if state == "down" else mark.unlink()
        for address in addresses:
            self.wait_until(address, state)

    def test_servers_that_go_and_come_back(self) -> None:
        """A server that is ended gets no clients and none of them sees it; once it is back, it gets some again. The backup gets none.

        One that says that it is not healthy gets no clients; at last the backup has them all, and then the fallback.
        """
        hosts = self.make_folder("names") / "hosts"
        hosts.write_text("".join(f"{address} web.internal.example.com\n" for address in _NAMED))
        self.own(servers.start_dnsmasq(hosts, "--listen-address=10.0.0.53"))
        sorry = servers.site("127.0.0.1:8081", "sorry")
        self.own(servers.start_nginx(self.make_folder("sorry"), sorry))
        for address in (*_PLAIN, _BACKUP, *_NAMED):
            self.make_folder(address)
        started = {address: self.start_server(address) for address in (*_PLAIN, _BACKUP, *_NAMED)}
        self.mux = self.own(Example(EXAMPLES / "load-balancer.ini"))
        eventually(lambda: {*_NAMED} < self.reached(), "the name has been looked up")
        self.assertEqual(self.reached(), {*_PLAIN, *_NAMED})
        started[_ENDED].end()
        self.assertNotIn(_ENDED, self.reached())
        self.wait_until(_ENDED, "down")
        self.assertNotIn(_ENDED, self.reached())
        self.start_server(_ENDED)
        self.wait_until(_ENDED, "up")
        self.assertIn(_ENDED, self.reached())
        self.mux.end()

        self.mux = self.own(Example(EXAMPLES / "load-balancer.ini"))
        eventually(lambda: {*_NAMED} < self.reached(), "the name has been looked up")
        self.mark("down", *_PLAIN, *_NAMED)
        self.assertEqual(self.reached(), {_BACKUP})
        self.mark("down", _BACKUP)
        self.assertEqual(self.reached(), {"sorry"})
        self.mark("up", *_PLAIN, _BACKUP, *_NAMED)
        self.assertEqual(self.reached(), {*_PLAIN, *_NAMED})


_NAME = "www.example.com"
_PUBLIC = "192.0.2.1"
_CLIENT = "203.0.113.7"
_SOURCES = tuple(f"10.0.{machine}.{number}" for machine in (1, 2) for number in (1, 2, 3))
_PORTS = 20
_SILENT = 4
"""Seconds after which who says nothing is silent."""


class ChainTests(ScenarioTestCase):
    """The example files, but for the patience of the last one."""

    addresses = (_CLIENT, *(f"192.0.2.{number}" for number in (1, 2, 3)), *_SOURCES)

    def test_chain(self) -> None:
        """Each machine knows the client, of whatever kind, and who is silent is led on at once but by the last one."""
        self.network.set("ipv4/ip_local_port_range", f"40000 {40000 + _PORTS - 1}")
        certificate = servers.make_certificate(self.folder, _NAME)
        site = servers.proxied_site(certificate, "$remote_addr $remote_port")
        self.own(servers.start_nginx(self.folder, site))
        ssh = self.own(servers.start_sshd(self.folder, 22))
        # On a busy machine, who speaks may need more than a second.
        patient = (EXAMPLES / "chain" / "last.ini").read_text()
        patient = re.sub(r"(?<=detect_timeout).*", f" = {_SILENT}s", patient)
        own = write(self.folder / "last.ini", patient)
        files = [EXAMPLES / "chain" / f"{name}.ini" for name in ("middle", "first")]
        chain = [self.own(Example(file)) for file in (own, *files)]

        def take(count: int = 1) -> list[list[Record]]:
            return [mux.take(count) for mux in reversed(chain)]

        # The site knows the client's address; all three logs have it, and the last two the first one's ID.
        curl = ("curl", "-q", "-sS", "--cacert", certificate.chain, "--interface", _CLIENT)
        there = ("--resolve", f"{_NAME}:443:{_PUBLIC}", f"https://{_NAME}/")
        said = output_of(*curl, *there).decode()
        first, middle, last = (lines[0] for lines in take())
        self.assertEqual(first["client"], said.strip().replace(" ", ":"))
        self.assertTrue(first["client"].startswith(f"{_CLIENT}:"))
        self.assertEqual((last["route"], last["backend"]), ("site", "web"))
        for line in (middle, last):
            self.assertEqual(line["client"], first["client"])
            self.assertEqual(line["facts"]["unique_id"], first["id"])

        # An SSH client is let in by its own network; another one is not, whether it speaks or is silent.
        options = (*ssh.options, "-p", "443", "-b", _CLIENT)
        self.assertEqual(output_of("ssh", *options, _PUBLIC, "echo hello"), b"hello\n")
        self.assertEqual(take()[-1][0]["route"], "ssh")
        for stranger, reason in ((b"SSH-2.0-stranger\r\n", "no-route"), (b"", "silent")):
            with socket.create_connection((_PUBLIC, 443), PATIENCE, ("192.0.2.2", 0)) as client:
                client.sendall(stranger)
                self.assertEqual(client.recv(1), b"")
            self.assertEqual(take()[-1][0]["reason"], reason)

        # A client that says nothing is led on at once by the first two, and by the last one to its SSH server.
        with socket.create_connection((_PUBLIC, 443), PATIENCE, (_CLIENT, 0)) as client:
            self.assertEqual(client.recv(8), b"SSH-2.0-")
        first, middle, last = (lines[0] for lines in take())
        for line in (first, middle):
            self.assertLess(float(line["detect_ms"]), 1000 * _SILENT)
        self.assertGreaterEqual(float(last["detect_ms"]), 1000 * _SILENT - 1)
        self.assertEqual((last["route"], last["server"]), ("silent", "127.0.0.1:22"))

        # Each hop has more connections at once than one address has ports, and takes its addresses in turn.
        secure = ssl.create_default_context(cafile=certificate.chain)
        count = 2 * _PORTS + 5
        with contextlib.ExitStack() as clients:
            for port in range(20_000, 20_000 + count):
                plain = socket.create_connection((_PUBLIC, 443), PATIENCE, (_CLIENT, port))
                inside = clients.enter_context(secure.wrap_socket(plain, server_hostname=_NAME))
                inside.sendall(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
                self.assertIn(f"{_CLIENT} {port}\n".encode(), inside.recv(4096))
        for lines, machine in zip(take(count)[1:], (1, 2), strict=True):
            peers = [line["facts"]["proxy_peer"].rpartition(":")[0] for line in lines]
            for number in (1, 2, 3):
                self.assertEqual(peers.count(f"10.0.{machine}.{number}"), count // 3)


_SERVERS = ("10.0.0.1", "10.0.0.2")
_AT_ONCE = 4.5
"""Seconds; less than the five in which who waits for a first byte gives up."""


class TcpProxyTests(ScenarioTestCase):
    addresses = (_PUBLIC, *_SERVERS)

    def ask(self, port: int) -> str:
        options = ("--no-defaults", "--protocol=tcp", "-h", _PUBLIC, "-u", "tests", "-N")
        query = ("-e", "SELECT @@bind_address")
        return output_of("mariadb", *options, "-P", str(port), *query).decode().strip()

    def assert_greeted_at_once(self, port: int) -> None:
        for _ in range(2):
            with socket.create_connection((_PUBLIC, port), timeout=_AT_ONCE) as client:
                self.assertEqual(client.recv(100)[4:6], b"\x0a5")

    def run_program(self, *addresses: str) -> Child:
        targets = [f"{address}:3306" for address in addresses]
        command = (sys.executable, EXAMPLES / "tcp-proxy.py", "tcp:3307", *targets)
        return self.own(Child(*map(str, command), ready="leads to"))

    def test_rules_and_library_lead_to_both_at_once(self) -> None:
        """Where a server is gone, the library's clients have the other one."""
        for address in _SERVERS:
            self.own(servers.start_mariadb(self.make_folder(address), address=address))
        mux = self.own(Example(EXAMPLES / "tcp-proxy.ini"))
        self.assertEqual({self.ask(3306) for _ in range(4)}, {*_SERVERS})
        for line in mux.take(4):
            self.assertEqual((line["backend"], line["reason"]), ("database", "done"))
            self.assertLess(float(line["detect_ms"]), 1000)
        self.assert_greeted_at_once(3306)
        mux.end()
        program = self.run_program(*_SERVERS)
        self.assertEqual([self.ask(3307) for _ in range(4)], 2 * [*_SERVERS])
        self.assert_greeted_at_once(3307)
        program.end()
        self.run_program(_PUBLIC, _SERVERS[1])
        self.assertEqual({self.ask(3307) for _ in range(4)}, {_SERVERS[1]})
