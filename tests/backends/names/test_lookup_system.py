"""What the system's files say of names."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.names.nameserver import temporary_folder
from txmux.backends.names.lookup import ResolvConf, has_route, listed_addresses


class ResolvConfTests(SynchronousTestCase):
    """The file that names the name servers."""

    def test_all(self) -> None:
        text = (
            "; a comment\n"
            "# another\n"
            "nameserver 10.0.0.53 # by hand\n"
            "nameserver fe80::1%eth0\n"
            "nameserver nonsense\n"
            "nameserver\n"
            "search one.test two.test.\n"
            "options rotate ndots:5 timeout:1\n"
            "sortlist 10.0.0.0\n"
        )
        self.assertEqual(
            ResolvConf.parse(text),
            ResolvConf(("10.0.0.53", "fe80::1%eth0"), ("one.test", "two.test"), 5),
        )

    def test_last_search(self) -> None:
        self.assertEqual(ResolvConf.parse("search one two\ndomain three\n").search, ("three",))

    def test_ndots(self) -> None:
        self.assertEqual(ResolvConf.parse("options ndots:99").ndots, 15)
        self.assertEqual(ResolvConf.parse("options ndots:x").ndots, 1)

    def test_no_server_is_this_machine(self) -> None:
        self.assertEqual(ResolvConf.parse("").servers, ("127.0.0.1",))
        self.assertEqual(ResolvConf.read(Path("/nowhere/resolv.conf")), ResolvConf())

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        found = ResolvConf.parse(text)
        self.assertTrue(found.servers)
        self.assertIn("host.test", found.candidates("host.test"))

    def test_candidates(self) -> None:
        found = ResolvConf.parse("search one.test .\noptions ndots:2")
        self.assertEqual(found.candidates("a.b.c"), ["a.b.c", "a.b.c.one.test"])
        self.assertEqual(found.candidates("a.b"), ["a.b.one.test", "a.b"])
        self.assertEqual(found.candidates("a.b."), ["a.b"])


class HostsTests(SynchronousTestCase):
    """The file of hosts."""

    def setUp(self) -> None:
        self.path = temporary_folder(self) / "hosts"

    def test_what_is_no_address(self) -> None:
        self.path.write_bytes(b"10.0.0.1 a\nx a\n010.0.0.9 a\n\xff a\n# 10.0.0.2 a\n\n10.0.0.3\n")
        self.assertEqual(listed_addresses("a", self.path), {"10.0.0.1"})

    def test_missing_file_and_invalid_name(self) -> None:
        self.assertEqual(listed_addresses("a", self.path), frozenset())
        self.assertEqual(listed_addresses("a..b", self.path), frozenset())

    def test_names_below_localhost(self) -> None:
        self.assertEqual(listed_addresses("a.localhost", self.path), {"127.0.0.1", "::1"})
        self.assertEqual(listed_addresses("notlocalhost", self.path), frozenset())


class RouteTests(SynchronousTestCase):
    """The ways this machine knows."""

    def test_routes(self) -> None:
        self.assertTrue(has_route("127.0.0.1"))
        self.assertFalse(has_route("255.255.255.255"))
        self.assertFalse(has_route("ff02::1%nowhere"))
