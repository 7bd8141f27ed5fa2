"""Servers that are the listener itself."""

from __future__ import annotations

from tests.rules.reading.cases import ReadingTestCase
from txmux.rules.problems import RulesError


class LoopTests(ReadingTestCase):
    def loops(self, endpoints: str, server: str, more: str = "") -> bool:
        text = (
            f"[listen a]\nendpoint = {endpoints}\n[route r]\nmatch = any\nbackend = b\n"
            f"[backend b]\nserver = {server}\n{more}"
        )
        try:
            self.read(text)
        except RulesError as error:
            self.assertEqual([(p.section, p.key) for p in error.problems], [("route r", "backend")])
            return True
        return False

    def test_where_it_can_be_seen(self) -> None:
        for endpoints, server in (
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("127.0.0.1:80\n  [::1]:80", "LOCALHOST.:80"),
            ("[::1]:80", "[::]:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[2001:db8::1]:80", "[2001:DB8:0::1]:80"),
            (":80", "127.0.0.1:80"),
            (":80", "127.9.9.9:80"),
            (":80", "[::1]:80"),
            (":80", "[::ffff:127.0.0.1]:80"),
            (":80", "localhost:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("tcp:80", "127.0.0.1:80"),
            ("tcp:80:interface=10.0.0.1", "tcp:10.0.0.1:80"),
            ("127.0.0.1:81\n  127.0.0.1:80", "10.0.0.9:80\n  127.0.0.1:80"),
            ("unix:/run/x.sock", "unix:/run/./x.sock"),
            ("10.0.0.1:80", "{local}:80"),
            (":80", "{local}:80"),
            ("10.0.0.1:80\n  unix:/run/x.sock", "{local}:81"),
        ):
            self.assertTrue(self.loops(endpoints, server), (endpoints, server))

    def test_what_is_something_else(self) -> None:
        for endpoints, server, more in (
            ("127.0.0.1:80", "127.0.0.1:81", ""),
            ("127.0.0.1:80", "127.0.0.2:80", ""),
            ("127.0.0.1:80", "[::1]:80", ""),
            (":80", "10.0.0.1:80", ""),
            (":80", "web.example.com:80", ""),
            ("0.0.0.0:80", "[::1]:80", ""),
            ("127.0.0.1:0", "127.0.0.1:80", ""),
            ("0.0.0.0:80", "localhost:80", ""),
            ("127.0.0.1:80", "127.0.0.1:80 down\n  127.0.0.1:81", ""),
            ("127.0.0.1:80", "localhost:80", "tls = yes"),
            ("unix:/run/x.sock", "unix:/run/y.sock", ""),
            ("10.0.0.1:80", "{local}:81", ""),
            ("10.0.0.1:80\naccept_proxy_from = 10.0.0.0/8", "{local}:80", ""),
            ("unix:/run/x.sock\naccept_proxy_from = unix", "{local}:80", ""),
        ):
            self.assertFalse(self.loops(endpoints, server, more), (endpoints, server))

    def test_all_ways_once_each(self) -> None:
        self.refuses(
            "[listen a]\nendpoint = :1\nsilent = 127.0.0.1:1\ndefault = b\n"
            "[listen c]\nendpoint = :2\n"
            "[route r]\nmatch = any\nbackend = 127.0.0.1:2\n"
            "[backend b]\nserver = 10.0.0.1:1\nfallback = d\n"
            "[backend d]\nserver = 10.0.0.1:1\nfallback = 127.0.0.1:1",
            *(
                f"{line} {key}: leads back to [listen {name}], which listens at '127.0.0.1:{port}'; "
                "write the address and port of the server itself"
                for line, key, name, port in (
                    (3, "silent", "a", 1),
                    (4, "default", "a", 1),
                    (9, "backend", "c", 2),
                )
            ),
        )

    def test_datagrams(self) -> None:
        """Nobody counts how often datagrams come back, so none are led to the own port, whoever tells of the address."""
        for more in ("", "accept_proxy_from = 10.0.0.0/8\n"):
            text = f"[listen a]\nendpoint = udp:10.0.0.1:80\n{more}default = udp:{{local}}:"
            (complaint,) = self.complaints(f"{text}80")
            self.assertIn("default: leads back to [listen a]", complaint)
            self.read(f"{text}81")

    def test_no_address(self) -> None:
        self.refuses(
            "[listen a]\nendpoint = unix:/x\ndefault = {local}:1",
            "3 default: '{local}:1' is the address that a client connected to, and clients of a UNIX socket have none; "
            "write the server itself",
        )

    def test_other_listeners(self) -> None:
        """From one listener to another is no loop, nor is the way back from inside of TLS, or of a route that runs dry."""
        self.read(
            "[listen a]\nendpoint = :1\n[listen c]\nendpoint = :2\n"
            "[route r]\nmatch = any\nunder = a\nbackend = 127.0.0.1:2\n"
            "[route dry]\nmatch = any\nunder = c\nbackend = 127.0.0.1:2\ndry_run = yes\n"
            "[route secure]\nmatch = any\nunder = c\nterminate_tls = x.pem\n"
            "[route inside]\nmatch = any\nunder = secure\nbackend = 127.0.0.1:2"
        )
