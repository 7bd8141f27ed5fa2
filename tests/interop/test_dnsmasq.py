"""Pools of servers that are known by name only, which a real name server has."""

import contextlib
import signal
import socket

import pytest

from tests.interop.children import Child, InteropTestCase, eventually, run
from tests.interop.namespaces import Namespace, mounted
from tests.interop.originals import Named
from tests.interop.servers import start_dnsmasq
from tests.support.proc import halted, workers_of
from tests.support.services import Service, pool_rules

pytestmark = pytest.mark.by_turns


def _tell_address(client: socket.socket) -> None:
    client.recv(1)  # what is left unread makes a reset of the end
    client.sendall(client.getsockname()[0].encode())


class DnsmasqTests(InteropTestCase):
    """A network of its own, in which dnsmasq is the name server of ``/etc/resolv.conf``."""

    def setUp(self) -> None:
        Namespace(self).enter()
        self.hosts = self.folder / "hosts"
        self.write_hosts("127.0.1.1 web.test")
        for host in ("127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.9.9"):
            Named(self, host=host, port=9001, answer=_tell_address)
        self.resolv_conf = self.folder / "resolv.conf"
        self.resolv_conf.write_text("nameserver 127.0.0.1\n")
        self.before = mounted({"/etc/resolv.conf": self.resolv_conf})
        if run(*self.before, "true").returncode:
            self.skipTest("no other resolv.conf can be mounted")

    def write_hosts(self, *lines: str) -> None:
        self.hosts.write_text("\n".join([*lines, ""]))

    def start_dnsmasq(self, *options: str) -> Child:
        return self.own(start_dnsmasq(self.hosts, *options))

    def change(self, dnsmasq: Child, *lines: str) -> None:
        before = dnsmasq.output.count(str(self.hosts))
        self.write_hosts(*lines)
        dnsmasq.process.send_signal(signal.SIGHUP)
        eventually(lambda: dnsmasq.output.count(str(self.hosts)) > before, "it has read them")

    def said(self, mux: Service, count: int = 1) -> list[str]:
        return [self._said(mux) for _ in range(count)]

    @staticmethod
    def _said(mux: Service) -> str:
        with mux.connect() as client, contextlib.suppress(OSError):
            client.sendall(b"x")
            return client.recv(100).decode() or "-"
        return "-"

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
