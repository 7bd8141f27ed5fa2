"""A pool of servers that are known by name only, which a real name server has."""

import contextlib
import signal

import pytest

from tests.interop.children import InteropTestCase, eventually, run
from tests.interop.namespaces import Namespace, mounted
from tests.interop.originals import Named
from tests.interop.servers import start_dnsmasq
from tests.support.services import Service, pool_rules

pytestmark = pytest.mark.by_turns


class DnsmasqTests(InteropTestCase):
    """A network of its own, in which dnsmasq is the name server of ``/etc/resolv.conf``."""

    def said(self, mux: Service) -> str:
        with mux.connect() as client, contextlib.suppress(OSError):
            client.sendall(b"x")
            return client.recv(100).decode().strip()
        return ""

    def test_changing_answers(self) -> None:
        """The first client is served; later ones follow the answers, and what was known outlives the name server."""
        Namespace(self).enter()
        hosts, resolv_conf = self.folder / "hosts", self.folder / "resolv.conf"
        hosts.write_text("127.0.1.1 web.test\n")
        for name, host in (("one", "127.0.1.1"), ("two", "127.0.1.2")):
            Named(self, name, host=host, port=9001)
        resolv_conf.write_text("nameserver 127.0.0.1\n")
        before = mounted({"/etc/resolv.conf": resolv_conf})
        if run(*before, "true").returncode:
            self.skipTest("no other resolv.conf can be mounted")
        dnsmasq = self.own(start_dnsmasq(hosts))
        rules = pool_rules("web.test:9001", more="resolve = 1s")
        mux = self.own(Service(self.folder, rules, "workers = 2", before=before))
        self.assertEqual(self.said(mux), "one")
        hosts.write_text("127.0.1.2 web.test\n")
        dnsmasq.process.send_signal(signal.SIGHUP)
        eventually(lambda: self.said(mux) == "two", "clients are led to the new address")
        dnsmasq.end()
        mux.child.wait_for("cannot find the addresses of web.test, keeping the 1 known one")
        self.assertEqual(self.said(mux), "two")
