"""What the page says, without a service."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.admin.page.query import PageQuery
from txmux.admin.page.unrecognised import dump, line_for, matcher_of
from txmux.admin.page.view import PageSnapshot, View, render
from txmux.interfaces import Transport

_STATUS: dict[str, Any] = {"listeners": [{"name": "public"}], "rules_path": "rules.ini"}


def _page(query: dict[str, str] | None = None, **parts: Any) -> str:
    status = {**_STATUS, **parts.pop("status", {})}
    return render(View(PageSnapshot(1000.0, status, **parts), PageQuery.of(query or {})))


class PageTests(SynchronousTestCase):
    def test_attention_of_the_service_and_missing_parts_of_the_page(self) -> None:
        page = _page(
            status={"attention": [{"what": "backend", "text": "backend web: no server is up"}]},
            warnings=["Not all is shown: worker 1 does not answer."],
        )
        self.assertIn("<li>Backend web: no server is up.</li>", page)
        self.assertIn("<li>Not all is shown: worker 1 does not answer.</li>", page)
        self.assertIn("Nothing needs attention", _page())

    def test_what_clients_name_is_text(self) -> None:
        evil = "\"><script>alert(1)</script>'"
        parts: dict[str, Any] = {
            "connections": [{"id": "1-1", "client": evil, "route": evil, "facts": {"sni": evil}}],
            "recent": [{"client": evil, "listener": evil, "reason": evil, "first": "3c623e"}],
            "connection": {"id": evil, "facts": {"sni": evil}, "client": evil},
            "warnings": [evil],
            "explained": evil,
        }
        for query in ({}, {"route": evil, "client": evil, "connection": evil}):
            page = _page(query, **parts)
            self.assertNotIn(evil, page)
            self.assertNotIn("<script>alert", page)

    def test_cost(self) -> None:
        """With 300 routes and 9,000 connections, of which the service lists a thousand, the page takes less than 200,000 calls."""
        routes = [
            {"name": f"route-{n}", "backend": f"b{n % 60}", "matches": n, "active": n % 9}
            for n in range(300)
        ]
        backends = [
            {"name": f"b{n}", "servers": [{"server": f"10.0.0.{n}:80", "state": "up"}]}
            for n in range(60)
        ]
        rows = [
            {"id": f"1-{n}", "client": f"192.0.2.1:{n}", "age_ms": n, "state": "relaying"}
            for n in range(1000)
        ]
        _page()
        calls = 0

        def count_call(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count_call)
        try:
            page = _page({"sort": "-age_ms"}, routes=routes, backends=backends, connections=rows)
        finally:
            sys.setprofile(before)
        self.assertLess(calls, 200_000)
        self.assertIn("100 of 1\N{NARROW NO-BREAK SPACE}000 connections.", page)


class QueryTests(SynchronousTestCase):
    def test_links_keep_known_parameters(self) -> None:
        query = PageQuery.of({"route": "a b", "evil": "x", "after": "1-1", "state": ""})
        self.assertEqual(query.link(after="", sort="age_ms"), "./?route=a+b&sort=age_ms")
        self.assertEqual(query.filters, {"route": "a b"})
        self.assertEqual(query.link(route="", after=""), "./")


class UnrecognisedTests(SynchronousTestCase):
    def test_line_matches_plain_text_as_text_and_the_rest_in_hex(self) -> None:
        self.assertEqual(line_for(b"HELO-there"), "match = payload text=HELO-the")
        self.assertEqual(line_for(b"\x16\x03\x01"), "match = payload hex=160301")

    def test_matcher_is_suggested_only_for_bytes_that_it_knows(self) -> None:
        for data, line in (
            (b"SSH-2.0-x\r\n", "match = ssh"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "match = http"),
            (bytes.fromhex("1603010200010001fc0303"), "match = tls"),
            (b"\x05\x01\x00", "match = socks5"),
            (b"HELO-there", ""),
            (b"", ""),
        ):
            self.assertEqual((data, matcher_of(data)), (data, line))

    def test_matcher_of_a_datagram_is_one_for_datagrams(self) -> None:
        query = bytes.fromhex("000101000001000000000000 0161 07 6578616d706c65 00 0001 0001")
        for data, over, line in (
            (query, Transport.UDP, "match = dns"),
            (query, Transport.TCP, ""),
            (b"SSH-2.0-x\r\n", Transport.UDP, ""),
        ):
            self.assertEqual((data, matcher_of(data, over)), (data, line))

    @given(st.binary(max_size=64))
    def test_dump_has_every_byte_and_is_printable(self, data: bytes) -> None:
        lines = dump(data)
        self.assertEqual(b"".join(bytes.fromhex(line[:47]) for line in lines), data)
        self.assertTrue(all(line.isascii() and line.isprintable() for line in lines))
