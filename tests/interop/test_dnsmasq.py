"""Pools of servers that are known by name only, which a real name server has."""

import signal

import pytest

from tests.interop.children import Child, InteropTestCase, eventually, run
from tests.interop.namespaces import Namespace, mounted
from tests.interop.servers import start_dnsmasq
from tests.support.proc import halted, workers_of
from tests.support.services import Service, pool_rules

pytestmark = pytest.mark.by_turns

# Says which of its addresses was connected to.
_NAMED = """
import socket, sys, threading
def serve(listening):
    while True:
        client, _ = listening.accept()
        client.recv(1)  # what is left unread makes a reset of the end
        client.sendall(client.getsockname()[0].encode())
        client.close()
for host in sys.argv[1:]:
    listening = socket.create_server((host, 9001), backlog=64)
    threading.Thread(target=serve, args=[listening], daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""

_CLIENT = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=180) as client:
        client.sendall(b"x")
        said = b""
        try:
            while data := client.recv(100):
                said += data
        except OSError:
            pass
        print(said.decode() or "-", flush=True)
"""


class DnsmasqTests(InteropTestCase):
    """A network of its own, in which dnsmasq is the name server of ``/etc/resolv.conf``."""

    def setUp(self) -> None:
        self.network = Namespace(self)
        self.hosts = self.folder / "hosts"
        self.write_hosts("127.0.1.1 web.test")
        server = self.own(
            self.network.python(_NAMED, "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.9.9")
        )
        server.wait_for("ready")
        self.resolv_conf = self.folder / "resolv.conf"
        self.resolv_conf.write_text("nameserver 127.0.0.1\n")
        self.before = (*self.network.command, *mounted({"/etc/resolv.conf": self.resolv_conf}))
        if run(*self.before, "true").returncode:
            self.skipTest("no other resolv.conf can be mounted")

    def write_hosts(self, *lines: str) -> None:
        self.hosts.write_text("\n".join([*lines, ""]))

    def start_dnsmasq(self, *options: str) -> Child:
        return self.own(start_dnsmasq(self.hosts, *options, before=self.network.command))

    def change(self, dnsmasq: Child, *lines: str) -> None:
        before = dnsmasq.output.count(str(self.hosts))
        self.write_hosts(*lines)
        dnsmasq.process.send_signal(signal.SIGHUP)
        eventually(lambda: dnsmasq.output.count(str(self.hosts)) > before, "it has read them")

    def said(self, mux: Service, count: int = 1) -> list[str]:
        return self.network.said(_CLIENT, str(mux.port), str(count))

    def await_said(self, mux: Service, address: str) -> None:
        """Wait until clients get to a server: who comes before an answer, which may be late, gets to none."""
        eventually(lambda: self.said(mux) == [address], f"clients get to {address}")

    def test_changing_answers(self) -> None:
        """The first client is served; later ones follow the answers, and what was known outlives the name and its server."""
        dnsmasq = self.start_dnsmasq()
        for settings in ("", "workers = 2"):
            self.change(dnsmasq, "127.0.1.1 web.test")
            rules = pool_rules("web.test:9001", more="resolve = 1s")
            mux = self.own(Service(self.folder, rules, settings, before=self.before))
            self.assertEqual(self.said(mux), ["127.0.1.1"])
            self.change(dnsmasq, "127.0.1.2 web.test", "127.0.1.3 web.test")
            workers = workers_of(mux.child.pid)
            for worker in workers or [mux.child.pid]:
                # Whoever is halted takes no client.
                with halted([other for other in workers if other != worker]):
                    eventually(
                        lambda m=mux: set(self.said(m, 8)) == {"127.0.1.2", "127.0.1.3"},  # type: ignore[misc]
                        f"clients of process {worker} are led to the new addresses",
                    )
            self.change(dnsmasq, "127.0.1.9 other.test")
            mux.child.wait_for("cannot find the addresses of web.test, keeping the 2 known ones; ")
            self.assertEqual(set(self.said(mux, 8)), {"127.0.1.2", "127.0.1.3"})
        dnsmasq.end()
        self.assertEqual(set(self.said(mux, 8)), {"127.0.1.2", "127.0.1.3"})

    def test_other_resolvers_of_one_backend_or_all(self) -> None:
        self.start_dnsmasq("--port=8600")
        key = "resolvers = 127.0.0.1:8600"
        short = pool_rules("127.0.0.1:1", more="").replace(
            "backend = pool", "backend = web.test:9001"
        )
        for settings, rules in (
            ("", pool_rules("web.test:9001", more=key)),
            (key, pool_rules("web.test:9001", more="")),
            (f"workers = 2\n{key}", short),
        ):
            mux = self.own(Service(self.folder, rules, settings, before=self.before))
            self.await_said(mux, "127.0.1.1")
