import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import Settings
from txmux.rules.model.settings import AdminUser
from txmux.rules.reading.endpoints import parse_endpoint
from txmux.rules.reading.endpointstrings import SERVER, split_arguments
from txmux.rules.reading.parser import parse
from txmux.rules.reading.service import is_by_tcp


def read(lines: str) -> Settings:
    return parse(f"[txmux]\n{lines}\n[listen a]\nendpoint = :1\n", "/etc/txmux/rules.ini").settings


TOKEN = "admin_token = token"


class KeysTest(SynchronousTestCase):
    def test_values_of_the_service(self) -> None:
        users = (
            AdminUser("alice", "steer"), AdminUser("ops", "read", is_group=True), AdminUser("1000", "all"),
        )  # fmt: skip
        accounts = "txmux", "www-data", "_x", "host$", "1000"
        by_tcp = "127.0.0.1:9", "[::1]:9", "tcp:9:interface=127.0.0.1", "tcp6:9", ":9"
        by_path = "unix:/run/a.sock", "unix:/run/a.sock:mode=600"
        rows: tuple[tuple[str, str, object], ...] = (
            ("workers = 1", "workers", 1), ("workers = 1000", "workers", 1000),
            *((f"user = {name}\ngroup = {name}", key, name) for key in ("user", "group") for name in accounts),
            *(("", key, None) for key in ("user", "group", "admin_token", "metrics")),
            ("", "admin", ("auto",)), ("", "grace", 0.0), ("admin = off", "admin", ()),
            ("watch_rules = 1s", "watch_rules", 1.0),  # no oftener than each second
            *((f"admin = {text}\n{TOKEN}", "admin", ("auto", text)) for text in by_tcp),
            *((f"metrics = {text}", "metrics", text) for text in by_tcp),
            *((f"admin = {text}", "admin", ("auto", text)) for text in by_path),
            # The automatic socket is beside others, unless off.
            (f"admin = 127.0.0.1:9\n    unix:/a\n{TOKEN}", "admin", ("auto", "127.0.0.1:9", "unix:/a")),
            ("admin = unix:/a\n    off", "admin", ("unix:/a",)),
            ("admin = unix:/a\n    auto", "admin", ("auto", "unix:/a")),
            (f"admin = unix:a.sock:mode=640\n{TOKEN}", "admin", ("auto", "unix:/etc/txmux/a.sock:mode=640")),
            ("metrics = unix:../m.sock", "metrics", "unix:/etc/m.sock"),
            (f"admin = :9\n{TOKEN}", "admin_token", Path("/etc/txmux/token")),
            ("admin_users = alice:steer, @ops:read\n    1000:all", "admin_users", users),
        )  # fmt: skip
        for lines, key, value in rows:
            self.assertEqual(getattr(read(lines), key), value, lines)
        self.assertEqual(read("admin = auto\nmetrics = off\ngrace = 0s"), read(""))
        for text in (*by_tcp, "auto", "unix:/x"):
            self.assertIs(is_by_tcp(text), text in by_tcp)
        for processors in (3, 5000):
            self.patch(os, "sched_getaffinity", lambda _, count=processors: range(count))
            self.assertEqual(read("workers = auto").workers, min(processors, 1000))
        for text, host in (
            ("127.0.0.1:9", "127.0.0.1"), (":9", ""), ("[::1]:9", "::1"), ("tcp:9", "0.0.0.0"),
            ("tcp6:9", "::"), ("tcp6:9:interface=\\:\\:1", "::1"),
        ):  # fmt: skip
            self.assertEqual(parse_endpoint(text).host, host)

    @given(st.text("ab/:=\\ ", max_size=20).map(str.rstrip))
    def test_any_path(self, text: str) -> None:
        escaped = "".join(f"\\{sign}" if sign in ":=\\" else sign for sign in text)
        read_again = split_arguments(str(read(f"admin = unix:/a{escaped}").admin[1]))
        self.assertEqual(SERVER["unix"].check(read_again)["address"], os.path.abspath(f"/a{text}"))  # noqa: PTH100 - a text
