"""What `txmux explain` makes of a client that asks for a tunnel."""

import json
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.support import ExplainTestCase
from txmux.features.tunnels import dialogue
from txmux.telemetry.reasons import EndReason


class ReasonsTests(SynchronousTestCase):
    def test_answers(self) -> None:
        self.assertLessEqual({*dialogue._CODES}, {*get_args(EndReason)})


class TunnelTests(ExplainTestCase):
    text = (
        "[listen a]\nendpoint = :1\n[route t]\nmatch = http method=CONNECT\n  socks5\ntunnel = yes\ntunnel_users = users\nbackend = b\n"
        "[backend b]\nserver = {host}:{port}\nallow_names = *.test\n"
    )

    def test_what_is_asked_for_and_what_is_refused(self) -> None:
        self.write("users", "ann:$2y$05$" + "a" * 53)
        login = r"Proxy-Authorization: Basic YW5uOng=\r\n"
        for text, decided in (
            (rf"CONNECT h.test:22 HTTP/1.1\r\n{login}\r\n",
             "default, to backend b ({host}:{port}): h.test\n"),
            (rf"CONNECT h.test:22 HTTP/1.1\r\n{login}\r\n\r\nx", "\n\ninside the tunnel, listener a: "),
            (rf"CONNECT h.net:22 HTTP/1.1\r\n{login}\r\n",
             "to backend b ({host}:{port}): h.net, name-denied\n"),
            (r"CONNECT h.test:22 HTTP/1.1\r\n", "which opens tunnels; the routes under it decide"),
            (r"CONNECT h.test:22 HTTP/1.1\r\n\r\n", "which opens no tunnel: it has no login"),
            (rf"CONNECT h.test HTTP/1.1\r\n{login}\r\n", "which opens no tunnel: it is malformed"),
            (r"\x05\x01\x02", "which opens tunnels; the routes under it decide"),
            (r"\x05\x01\x00", "which opens no tunnel: it offers no login"),
        ):  # fmt: skip
            self.assertIn(decided, self.explain("--text", text))
        trace = json.loads(self.explain("--json", "--text", r"\x05\x01\x00"))["streams"][0][
            "listeners"
        ][0]
        self.assertEqual(trace["facts"], {"tunnel": "socks5", "tunnel_error": "it offers no login"})
