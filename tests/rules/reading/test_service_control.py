"""The keys by which a service is watched and controlled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.warnings import lint
from txmux.rules.problems import RulesError
from txmux.rules.reading.endpointstrings import SERVER, split_arguments
from txmux.rules.reading.parser import parse
from txmux.rules.reading.service import address_of, is_by_tcp

if TYPE_CHECKING:
    from txmux.rules.model import Settings

TOKEN = "admin_token = token"


def read(lines: str) -> Settings:
    return parse(f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\n", "/etc/txmux/rules.ini").settings


def warnings(lines: str) -> list[str]:
    text = f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\ndefault = reject\n"
    return [str(problem) for problem in lint(parse(text, "/etc/txmux/rules.ini"))]


class KeysTest(SynchronousTestCase):
    def test_defaults(self) -> None:
        settings = read("")
        self.assertEqual(
            (settings.admin, settings.admin_token, settings.metrics, settings.grace),
            ("auto", None, None, 0.0),
        )
        self.assertEqual(read("admin = auto\nmetrics = off\ngrace = 0s"), settings)
        self.assertIsNone(read("admin = off").admin)

    def test_endpoints(self) -> None:
        for text in ("127.0.0.1:9", "[::1]:9", "tcp:9:interface=127.0.0.1", "tcp6:9", ":9"):
            settings = read(f"admin = {text}\n{TOKEN}")
            self.assertEqual(settings.admin, text)
            self.assertTrue(is_by_tcp(settings.admin))
            self.assertEqual(read(f"metrics = {text}").metrics, text)
        for text in ("unix:/run/a.sock", "unix:/run/a.sock:mode=600"):
            self.assertEqual(read(f"admin = {text}").admin, text)
        for word in (None, "auto", "unix:/x"):
            self.assertFalse(is_by_tcp(word))

    def test_relative_paths(self) -> None:
        settings = read(f"admin = unix:a.sock:mode=640\n{TOKEN}\nmetrics = unix:../m.sock")
        self.assertEqual(settings.admin, "unix:/etc/txmux/a.sock:mode=640")
        self.assertEqual(settings.metrics, "unix:/etc/m.sock")
        self.assertEqual(settings.admin_token, Path("/etc/txmux/token"))

    @given(st.text("ab/:=\\ ", max_size=20).map(str.rstrip))
    def test_any_path(self, text: str) -> None:
        escaped = "".join(f"\\{sign}" if sign in ":=\\" else sign for sign in text)
        read_again = split_arguments(str(read(f"admin = unix:/a{escaped}").admin))
        address = SERVER["unix"].check(read_again)["address"]
        self.assertEqual(address, os.path.abspath(f"/a{text}"))  # noqa: PTH100 - a text

    def test_errors(self) -> None:
        for lines, message in (
            (
                "admin = on",
                "'on' is not an endpoint; write auto or off, unix:/path or ADDRESS:PORT",
            ),
            ("metrics = auto", "'auto' is not an endpoint; write off, unix:/path or ADDRESS:PORT"),
            ("metrics = none", "'none' is not an endpoint"),
            (f"admin = ssl:9\n{TOKEN}", "an endpoint of type 'ssl' cannot be had here"),
            (f"admin = systemd:domain=INET:index=0\n{TOKEN}", "'systemd' cannot be had here"),
            ("admin = /run/a.sock", "did you mean 'unix:/run/a.sock'?"),
            ("admin = unix:", "unix needs its 'address'"),
            (f"admin = unix:{'x' * 100}", "the path of a UNIX socket has at most 107"),
            ("admin = 127.0.0.1:9", "a TCP endpoint needs 'admin_token' beside it"),
            ("grace = 5", "'5' is not a duration"),
        ):
            error = self.assertRaises(RulesError, read, lines)
            self.assertIn(message, str(error))
            self.assertEqual(len(error.problems), 1, str(error))

    def test_address(self) -> None:
        for text, host in (
            ("127.0.0.1:9", "127.0.0.1"),
            (":9", ""),
            ("[::1]:9", "::1"),
            ("tcp:9", ""),
            ("tcp6:9:interface=\\:\\:1", "::1"),
        ):
            self.assertEqual(address_of(text), host)


class WarningsTest(SynchronousTestCase):
    def test_reachable(self) -> None:
        for text in (":9", "192.0.2.1:9", "tcp:9", "[::]:9"):
            (warning,) = warnings(f"admin = {text}\n{TOKEN}\nmetrics = :10")
            self.assertIn("[txmux] admin: other machines can reach this", warning)
        for text in ("127.0.0.1:9", "[::1]:9", "127.3.2.1:9", "tcp:9:interface=localhost"):
            self.assertEqual(warnings(f"admin = {text}\n{TOKEN}"), [])

    def test_unused_token(self) -> None:
        for admin in ("auto", "off", "unix:/run/a.sock"):
            (warning,) = warnings(f"admin = {admin}\n{TOKEN}")
            self.assertIn("[txmux] admin_token: it is not used", warning)
