"""``accept_proxy_from`` and ``proxy_tlvs`` in rules files."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.warnings import lint
from txmux.rules.model import NetworkSet, Senders, UnixClients
from txmux.rules.reading.parser import parse


class SendersTests(SynchronousTestCase):
    def senders(self, value: str) -> NetworkSet | None:
        text = f"[listen public]\nendpoint = 127.0.0.1:0\naccept_proxy_from = {value}\n"
        return parse(text, "rules.ini").listeners[0].accept_proxy_from

    def test_networks(self) -> None:
        found = self.senders("10.0.0.0/8, 2001:db8::1")
        assert isinstance(found, Senders)
        self.assertIn(ip_address("10.1.2.3"), found)
        self.assertIn(ip_address("2001:db8::1"), found)
        self.assertNotIn(ip_address("127.0.0.1"), found)
        self.assertFalse(found.by_unix)

    def test_unix(self) -> None:
        for value, count in (("unix", 0), ("10.0.0.0/8\n    unix", 1)):
            found = self.senders(value)
            assert isinstance(found, Senders)
            self.assertEqual((found.by_unix, len(found)), (True, count))

    def test_wrong(self) -> None:
        with self.assertRaisesRegex(Exception, "accept_proxy_from: 'socket' is not a network"):
            self.senders("socket")

    def test_equal(self) -> None:
        network = ip_network("10.0.0.0/8")
        both = Senders([network, UnixClients.UNIX])
        self.assertEqual(both, Senders([UnixClients.UNIX, network]))
        self.assertEqual(hash(both), hash(Senders([UnixClients.UNIX, network])))
        self.assertNotEqual(both, Senders([network]))
        self.assertNotEqual(both, Senders([UnixClients.UNIX]))
        self.assertNotEqual(both, NetworkSet([network]))


class WarningTests(SynchronousTestCase):
    def warnings(self, endpoint: str, senders: str) -> list[str]:
        text = (
            f"[listen public]\nendpoint = {endpoint}\naccept_proxy_from = {senders}\n"
            "[route all]\nmatch = any\nbackend = close\n"
        )
        return [problem.message for problem in lint(parse(text, "rules.ini"))]

    def test_networks_where_all_come_by_a_unix_socket(self) -> None:
        (message,) = self.warnings("unix:/run/x.sock", "10.0.0.0/8")
        self.assertIn("write unix", message)
        self.assertEqual(self.warnings("unix:/run/x.sock", "unix"), [])
        self.assertEqual(self.warnings("unix:/run/x.sock\n    :443", "10.0.0.0/8"), [])
