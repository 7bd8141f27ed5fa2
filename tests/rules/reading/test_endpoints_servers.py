"""Tests of the lines of ``server``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from hypothesis import given
from hypothesis import strategies as st

from tests.rules.reading.cases import BackendTestCase
from txmux.rules.model import Server
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpoints import server

if TYPE_CHECKING:
    from random import Random


class ServerTests(BackendTestCase):
    def test_options_in_any_order(self) -> None:
        expected = Server(
            "10.0.0.1:80",
            "tcp",
            "10.0.0.1",
            80,
            weight=5,
            backup=True,
            max_connections=9,
            down=True,
        )
        for text in (
            "weight=5 backup max_connections=9 down",
            "down max_connections=9 backup weight=5",
        ):
            self.assertEqual(server(f"10.0.0.1:80  {text}"), expected)

    def test_kinds_with_options(self) -> None:
        for text, expected in {
            "[::1]:80": Server("[::1]:80", "tcp", "::1", 80),
            "'unix:/run/my app'": Server("unix:/run/my app", "unix", path="/run/my app"),
            r"unix:/run/my\ app": Server("unix:/run/my app", "unix", path="/run/my app"),
            r"tcp:host=\:\:1:port=80": Server(r"tcp:host=\:\:1:port=80", "tcp", "::1", 80),
            "tls:h:1:timeout=3": Server("tls:h:1:timeout=3", "endpoint"),
            "srv:443": Server("srv:443", "tcp", "srv", 443),
            "{local}:443": Server("{local}:443", "tcp", "{local}", 443),
            "udp:{local}:53": Server("udp:{local}:53", "udp", "{local}", 53),
        }.items():
            self.assertEqual(server(text), expected)
            self.assertEqual(server(f"{text} weight=2"), attrs.evolve(expected, weight=2))

    def test_service_names(self) -> None:
        self.assertEqual(
            server("srv:_ssh._tcp.example.com"),
            Server("srv:_ssh._tcp.example.com", "srv", "_ssh._tcp.example.com"),
        )
        for text, message in {
            "ssh.example.com": "'ssh.example.com' is not a name of an SRV record; write for example srv:_ssh._tcp.example.com",
            "_ssh._tcp": "'_ssh._tcp' is not a name of an SRV record; write for example srv:_ssh._tcp.example.com",
            "_a._udp.b": "'_a._udp.b' is for UDP; write srv:_a._tcp.b",
            "_a._tcp.b:5": "'_a._tcp.b:5': the port is in the SRV record; write srv:_a._tcp.b",
            "_a._tcp.-": "'_a._tcp.-' is not a host name; write one such as www.example.com, or an IP address",
        }.items():
            error = self.assertRaises(InvalidValueError, server, f"srv:{text}")
            self.assertEqual(error.messages, (message,))

    def test_mistakes(self) -> None:
        for text, messages in {
            "h:0 weight=0 backup=yes": (
                "a port must be a whole number from 1 to 65535, not '0'",
                "weight: would leave no client to the server; write down instead",
                (
                    "'backup=yes' is not an option; did you mean 'backup'? "
                    "(a server takes weight=, max_connections=, backup, down)"
                ),
            ),
            "h:1 weight weight=2 weight=x": (
                (
                    "'weight' is not an option; did you mean 'weight=VALUE'? "
                    "(a server takes weight=, max_connections=, backup, down)"
                ),
                "option 'weight' is given twice; keep one",
            ),
            "h:1 weight=65536": ("weight: must be a whole number from 1 to 65535, not '65536'",),
            "{sni}:443": (
                "'{sni}' stands for nothing; write {local} for the address that the client connected to",
            ),
            "udp:{Local}:53": (
                "'{Local}' stands for nothing; write {local} for the address that the client connected to",
            ),
            "h:1 h:2 dwon": (
                "'h:2' is not expected after the server; write one server a line",
                "'dwon' is not expected after the server; write one server a line; did you mean 'down'?",
            ),
        }.items():
            error = self.assertRaises(InvalidValueError, server, text)
            self.assertEqual(error.messages, messages)

    def test_another_server_for_each_client(self) -> None:
        self.assertEqual(len(self.backend(servers="{local}:443\n  {local}:444").servers), 2)
        self.assertIsNone(self.backend("eject = off", servers="{local}:443").eject)
        each = "is another server for each client"
        nothing = f"{each}, and what is found out about one says nothing of others; remove this"
        self.refuses(
            "check = tcp\neject = failures=1\ntls = yes",
            f"5 server: '{{local}}:443' {each}; put it into a [backend] of its own",
            "6 server: '{local}:443' has no name to verify the certificate for; add tls_name = NAME",
            f"7 check: '{{local}}:443' {nothing}",
            f"8 eject: '{{local}}:443' {nothing}",
            servers="h:1\n  {local}:443",
        )

    def test_short_form_has_no_options(self) -> None:
        for key in ("fallback = h:1 down", "[route r]\nmatch = any\nbackend = h:1 down"):
            (complaint,) = self.complaints(key)
            self.assertIn(
                "'h:1 down': options of a server need a [backend]; write one with this server, and its name here",
                complaint,
            )

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        try:
            self.assertIsInstance(server(text), Server)
        except InvalidValueError as error:
            self.assertTrue(all(error.messages))

    @given(st.integers(1, 65535), st.integers(0, 10**9), st.booleans(), st.booleans(), st.randoms())
    def test_round_trip(
        self,
        weight: int,
        most: int,
        backup: bool,  # noqa: FBT001 - hypothesis gives it
        down: bool,  # noqa: FBT001
        random: Random,
    ) -> None:
        words = [
            f"weight={weight}",
            f"max_connections={most}",
            *["backup"] * backup,
            *["down"] * down,
        ]
        random.shuffle(words)
        found = server(f"h:1 {' '.join(words)}")
        self.assertEqual((found.weight, found.max_connections), (weight, most))
        self.assertEqual((found.backup, found.down), (backup, down))
