"""Keys about clients: how many may come, who tells their addresses, and who the process becomes."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from txmux.rules.model import NetworkSet, Period, Rate
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from txmux.rules.model import Listener, Rules


class ClientKeysTestCase(SynchronousTestCase):
    """Reads files."""

    def read(self, text: str) -> Rules:
        """Read rules."""
        return parse(text, "x.ini", MATCHERS)

    def listener(self, text: str) -> Listener:
        """Read the keys of a listener."""
        return self.read(f"[listen a]\nendpoint = :1\n{text}\n").listeners[0]

    def complaints(self, text: str) -> list[str]:
        """Give what is said."""
        error = self.assertRaises(RulesError, self.read, text)
        return [f"{p.line} {p.key}: {p.message}" for p in error.problems]


class ListenerTests(ClientKeysTestCase):
    """Those of listeners."""

    def test_values(self) -> None:
        """Each sets what it says."""
        found = self.listener(
            "accept_proxy_from = 10.0.0.0/8, ::1\nproxy_timeout = 250ms\nmax_connections_per_source = 5\n"
            "max_undecided_per_source = 6\nconnection_rate_per_source = 20/s burst=40\n"
        )
        assert found.accept_proxy_from is not None
        networks = NetworkSet(map(ip_network, ("10.0.0.0/8", "::1")))
        self.assertEqual(sorted(map(str, found.accept_proxy_from)), sorted(map(str, networks)))
        self.assertEqual(
            (
                found.proxy_timeout,
                found.max_connections_per_source,
                found.max_undecided_per_source,
                found.connection_rate_per_source,
            ),
            (0.25, 5, 6, Rate(20.0, 40)),
        )

    def test_defaults(self) -> None:
        """Nothing is limited, and nobody sends headers."""
        found = self.listener("")
        self.assertEqual(
            (
                found.accept_proxy_from,
                found.proxy_timeout,
                found.max_connections_per_source,
                found.max_undecided_per_source,
                found.connection_rate_per_source,
            ),
            (None, 3.0, 0, 0, None),
        )

    def test_rates(self) -> None:
        """They count by seconds, minutes or hours; without a burst it is their number."""
        for text, rate in {
            "20/s": Rate(20.0, 20),
            "30/m": Rate(0.5, 30),
            "3600/h burst=1": Rate(1.0, 1),
        }.items():
            found = self.listener(f"connection_rate_per_source = {text}")
            self.assertEqual(found.connection_rate_per_source, rate)

    def test_bad_rates(self) -> None:
        """What is no rate says how one is written."""
        forms = "is no rate of connections; write it as 20/s, 20/s burst=40, 100/m or 1000/h"
        for text, told in {
            "20": f"'20' {forms}",
            "0/s": f"'0/s' {forms}",
            "20/d": f"'20/d' {forms}",
            "20 / s": f"'20 / s' {forms}",
            "20/s burst=0": "burst: must be a whole number from 1 to 1000000, not '0'",
            "20/s bust=1": "unknown option 'bust=1'; did you mean 'burst'? (a rate takes burst=)",
            "20/s 40": "unknown option '40' (a rate takes burst=)",
        }.items():
            file = f"[listen a]\nendpoint = :1\nconnection_rate_per_source = {text}"
            self.assertEqual(self.complaints(file), [f"3 connection_rate_per_source: {told}"])


class OtherKeyTests(ClientKeysTestCase):
    """Those of the service, of routes and of backends."""

    listen = "[listen a]\nendpoint = :1\n"

    def test_accounts(self) -> None:
        """A user and a group have names or numbers; whether they are there the start tells."""
        for name in ("txmux", "www-data", "_x", "host$", "1000"):
            settings = self.read(f"[txmux]\nuser = {name}\ngroup = {name}\n{self.listen}").settings
            self.assertEqual((settings.user, settings.group), (name, name))
        settings = self.read(self.listen).settings
        self.assertEqual((settings.user, settings.group), (None, None))

    def test_bad_accounts(self) -> None:
        """What can be no name, and a group alone."""
        self.assertEqual(
            self.complaints(f"[txmux]\nuser = a b\ngroup = -x\n{self.listen}"),
            [
                "2 user: 'a b' is no name or number of one; write for example txmux",
                "3 group: '-x' is no name or number of one; write for example txmux",
            ],
        )
        self.assertEqual(
            self.complaints(f"[txmux]\ngroup = x\n{self.listen}"),
            ["2 group: needs 'user' beside it; add that, or remove this"],
        )

    def test_during(self) -> None:
        """Each line is one period."""
        (route,) = self.read(
            f"{self.listen}[route r]\nmatch = any\nbackend = close\nduring = mon,tue 08:00-12:00\n  22:00-06:00\n"
        ).routes
        self.assertEqual(
            route.during, (Period(frozenset({0, 1}), 480, 720), Period(start=1320, end=360))
        )

    def test_proxy_tlvs(self) -> None:
        """They need version 2."""
        backend = "[backend b]\nserver = a:1\n"
        good = f"{self.listen}{backend}proxy_protocol = v2\nproxy_tlvs = authority, alpn, unique-id, crc32c, ssl\n"
        self.assertEqual(
            self.read(good).backends["b"].proxy_tlvs,
            ("authority", "alpn", "unique-id", "crc32c", "ssl"),
        )
        needs = "needs 'proxy_protocol = v2'; write that, or remove this"
        for text, told in {
            "proxy_tlvs = ssl": [f"5 proxy_tlvs: {needs}"],
            "proxy_tlvs = ssl\nproxy_protocol = v1": [f"5 proxy_tlvs: {needs}"],
            "proxy_tlvs = ssl, ssl\nproxy_protocol = v2": [
                "5 proxy_tlvs: 'ssl' is given twice; keep one"
            ],
            "proxy_tlvs = sll\nproxy_protocol = v2": [
                "5 proxy_tlvs: must be authority, alpn, unique-id, crc32c or ssl, not 'sll'; did you mean 'ssl'?"
            ],
            "proxy_tlvs = ssl\nproxy_protocol = v3": [
                "6 proxy_protocol: must be off, v1 or v2, not 'v3'"
            ],
        }.items():
            found = self.complaints(f"{self.listen}{backend}{text}\n")
            self.assertEqual(found, told)
