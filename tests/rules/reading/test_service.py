import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.warnings import lint
from txmux.rules.model import Settings
from txmux.rules.model.settings import AdminUser
from txmux.rules.reading.endpoints import parse_endpoint
from txmux.rules.reading.endpointstrings import SERVER, split_arguments
from txmux.rules.reading.parser import parse
from txmux.rules.reading.service import is_by_tcp


def read(lines: str) -> Settings:
    return parse(f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\n", "/etc/txmux/rules.ini").settings


class WorkersTest(SynchronousTestCase):
    def test_number(self) -> None:
        """`auto` counts processors."""
        self.assertEqual((read("workers = 1").workers, read("workers = 1000").workers), (1, 1000))
        self.patch(os, "sched_getaffinity", lambda _: {0, 2, 5})
        self.assertEqual(read("workers = auto").workers, 3)
        self.patch(os, "sched_getaffinity", lambda _: range(5000))
        self.assertEqual(read("workers = auto").workers, 1000)

    def test_accounts(self) -> None:
        for name in ("txmux", "www-data", "_x", "host$", "1000"):
            settings = read(f"user = {name}\ngroup = {name}")
            self.assertEqual((settings.user, settings.group), (name, name))
        settings = read("")
        self.assertEqual((settings.user, settings.group), (None, None))


TOKEN = "admin_token = token"


def warnings(lines: str) -> list[str]:
    text = f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\ndefault = reject\n"
    return [str(problem) for problem in lint(parse(text, "/etc/txmux/rules.ini"))]


class KeysTest(SynchronousTestCase):
    def test_defaults(self) -> None:
        settings = read("")
        self.assertEqual(
            (settings.admin, settings.admin_token, settings.metrics, settings.grace),
            (("auto",), None, None, 0.0),
        )
        self.assertEqual(read("admin = auto\nmetrics = off\ngrace = 0s"), settings)
        self.assertEqual(read("admin = off").admin, ())
        self.assertEqual(read("watch_rules = 1s").watch_rules, 1.0)  # no oftener than each second

    def test_endpoints(self) -> None:
        for text in ("127.0.0.1:9", "[::1]:9", "tcp:9:interface=127.0.0.1", "tcp6:9", ":9"):
            self.assertEqual(read(f"admin = {text}\n{TOKEN}").admin, ("auto", text))
            self.assertTrue(is_by_tcp(text))
            self.assertEqual(read(f"metrics = {text}").metrics, text)
        for text in ("unix:/run/a.sock", "unix:/run/a.sock:mode=600"):
            self.assertEqual(read(f"admin = {text}").admin, ("auto", text))
        for word in ("auto", "unix:/x"):
            self.assertFalse(is_by_tcp(word))

    def test_automatic_socket_is_beside_others_unless_off(self) -> None:
        several = f"admin = 127.0.0.1:9\n    unix:/a\n{TOKEN}"
        self.assertEqual(read(several).admin, ("auto", "127.0.0.1:9", "unix:/a"))
        self.assertEqual(read("admin = unix:/a\n    off").admin, ("unix:/a",))
        self.assertEqual(read("admin = unix:/a\n    auto").admin, ("auto", "unix:/a"))

    def test_relative_paths(self) -> None:
        settings = read(f"admin = unix:a.sock:mode=640\n{TOKEN}\nmetrics = unix:../m.sock")
        self.assertEqual(settings.admin, ("auto", "unix:/etc/txmux/a.sock:mode=640"))
        self.assertEqual(settings.metrics, "unix:/etc/m.sock")
        self.assertEqual(settings.admin_token, Path("/etc/txmux/token"))

    @given(st.text("ab/:=\\ ", max_size=20).map(str.rstrip))
    def test_any_path(self, text: str) -> None:
        escaped = "".join(f"\\{sign}" if sign in ":=\\" else sign for sign in text)
        read_again = split_arguments(str(read(f"admin = unix:/a{escaped}").admin[1]))
        address = SERVER["unix"].check(read_again)["address"]
        self.assertEqual(address, os.path.abspath(f"/a{text}"))  # noqa: PTH100 - a text

    def test_address(self) -> None:
        for text, host in (
            ("127.0.0.1:9", "127.0.0.1"), (":9", ""), ("[::1]:9", "::1"), ("tcp:9", "0.0.0.0"),
            ("tcp6:9", "::"), ("tcp6:9:interface=\\:\\:1", "::1"),
        ):  # fmt: skip
            self.assertEqual(parse_endpoint(text).host, host)

    def test_users_forms(self) -> None:
        self.assertEqual(
            read("admin_users = alice:steer, @ops:read\n    1000:all").admin_users,
            (
                AdminUser("alice", "steer"),
                AdminUser("ops", "read", is_group=True),
                AdminUser("1000", "all"),
            ),
        )
