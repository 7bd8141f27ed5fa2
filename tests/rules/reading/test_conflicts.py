"""Tests of endpoints that cannot listen side by side."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.reading.conflicts import conflicts
from txmux.rules.reading.ini import read_ini


def found(*endpoints: str) -> list[str]:
    """Give what is said of the endpoints of one listener, the first in line 2."""
    lines = "".join(f"  {endpoint}\n" for endpoint in endpoints)
    sections, _ = read_ini(f"[listen a]\nendpoint =\n{lines}".replace("=\n  ", "= ", 1), "x.ini")
    return [str(problem) for problem in conflicts(sections)]


class ConflictTests(SynchronousTestCase):
    def test_message_names_both_lines(self) -> None:
        self.assertEqual(
            found(":0", ":443", "127.0.0.1:443"),
            [
                (
                    "x.ini:4: [listen a] endpoint: '127.0.0.1:443' is taken by ':443' at x.ini:3; "
                    "remove one of the two, or change its port or path"
                )
            ],
        )

    def test_later_listener_is_reported(self) -> None:
        text = "[listen a]\nendpoint = :1\n[listen b]\nbacklog = 1\n[listen c]\nendpoint = :1\n"
        (problem,) = conflicts(read_ini(text, "x.ini")[0])
        self.assertEqual((problem.section, problem.line), ("listen c", 6))
        self.assertIn("at x.ini:2", problem.message)

    def test_admin_and_metrics_listen_too(self) -> None:
        text = (
            "[txmux]\nadmin = 127.0.0.1:1\nmetrics = unix:/x/y\n"
            "[listen a]\nendpoint = :1\n  unix:/x//y\n"
        )
        txmux, listen = read_ini(text, "x.ini")[0]
        self.assertEqual(
            [str(problem).partition(";")[0] for problem in conflicts([listen, txmux])],
            [
                "x.ini:2: [txmux] admin: '127.0.0.1:1' is taken by ':1' at x.ini:5",
                "x.ini:3: [txmux] metrics: 'unix:/x/y' is taken by 'unix:/x//y' at x.ini:6",
            ],
        )
        for words in ("admin = auto\nmetrics = off", "admin = unix:x\nmetrics = unix:x"):
            self.assertEqual([*conflicts(read_ini(f"[txmux]\n{words}\n", "x.ini")[0])], [])

    def test_conflicts(self) -> None:
        for one, other in (
            (":443", ":443"),
            (":443", "0.0.0.0:443"),
            (":443", "[::]:443"),
            (":443", "127.0.0.1:443"),
            (":443", "[::1]:443"),
            (":443", "tcp:443"),
            (":443", "tcp6:443"),
            ("tcp:443", "0.0.0.0:443"),
            ("tcp:443", "127.0.0.1:443"),
            ("tcp:port=0443", "tcp:443:interface=127.0.0.1"),
            ("127.0.0.1:443", "tcp:443:interface=127.0.0.1"),
            ("127.0.0.1:443", "[::ffff:127.0.0.1]:443"),
            ("[::1]:443", "[0:0::1]:443"),
            ("[::]:443", "[::1]:443"),
            ("[::1]:443", r"tcp6:443:interface=\:\:1"),
            ("tcp6:443", "[::]:443"),
            ("ssl:443", ":443"),
            ("tls:/etc/pems:443", "tcp:443"),
            ("haproxy:tcp:443", ":443"),
            ("tcp:443:interface=localhost", "tcp:443"),
            ("unix:/run/x", "unix:/run//x:mode=660"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET6:index=0"),
        ):
            for pair in ((one, other), (other, one)):
                self.assertEqual(len(found(*pair)), 1, pair)

    def test_side_by_side(self) -> None:
        for pair in (
            (":443", ":444"),
            (":0", ":0"),
            ("127.0.0.1:0", "tcp:0"),
            ("127.0.0.1:443", "127.0.0.2:443"),
            ("127.0.0.1:443", "[::1]:443"),
            ("0.0.0.0:443", "[::1]:443"),
            ("[fe80::1%eth0]:443", "[fe80::1%eth1]:443"),
            # Whether an IPv6 socket takes IPv4 clients too is a setting of the system.
            ("0.0.0.0:443", "[::]:443"),
            ("unix:/run/x", "unix:/run/y"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=1"),
            ("systemd:domain=INET:name=a", "systemd:domain=INET:index=0"),
            ("haproxy:nonsense", "haproxy:nonsense"),
        ):
            self.assertEqual(found(*pair), [], pair)

    def test_each_is_reported_once(self) -> None:
        problems = found(":443", "oops", "tcp:443", "oops", "0.0.0.0:443")
        self.assertEqual([line.partition(":")[2][0] for line in problems], ["4", "6"])
        self.assertTrue(all("':443' at x.ini:2" in line for line in problems))
