"""HAProxy that keeps clients out by networks and first bytes, beside txmux."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interop.children import run
from tests.interop.converted.sidebyside import HaproxyTestCase

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_TLS = ("silent", "half", "binary", "http")
_TLS = ("hello www.example", "hello x.example")


class RuleTests(HaproxyTestCase):
    """Which clients reach which server, and which are closed."""

    def prove_rules(self, rules: str, expected: Mapping[str, str]) -> None:
        self.prove_frontend(rules, expected)
        self.assertEqual(self.found.warnings, ())

    def test_networks_kept_out_even_if_silent(self) -> None:
        self.prove_rules(
            """
            tcp-request content reject if !{ src 127.0.0.2 }
            tcp-request content accept if { req_ssl_hello_type 1 }
            use_backend a if { req_ssl_hello_type 1 }
            default_backend b
            """,
            {
                "": ", ".join((*_NO_TLS, *_TLS)),
                "a": ", ".join(f"{client} from 127.0.0.2" for client in _TLS),
                "b": ", ".join(f"{client} from 127.0.0.2" for client in _NO_TLS),
            },
        )

    def test_networks_kept_out_by_backend(self) -> None:
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req_ssl_hello_type 1 }
                use_backend a if { req_ssl_hello_type 1 }
                default_backend b
            backend a
                tcp-request content reject if !{ src 127.0.0.2 }
                server s <a>
            """,
            {
                "b": "silent, http, half, silent from 127.0.0.2",
                "": "hello www.example",
                "a": "hello www.example from 127.0.0.2",
            },
        )
        self.assertEqual(self.found.warnings, ())

    def test_exceptions_and_layers_of_connection_rules(self) -> None:
        self.prove(
            """
            listen exception
                bind 127.0.0.1:<port>
                tcp-request connection accept if { src 127.0.0.2 }
                tcp-request connection reject if { src 127.0.0.0/8 }
                server a <a>
            listen layers
                bind 127.0.0.1:<port1>
                tcp-request connection accept if { src 127.0.0.2 }
                tcp-request session reject
                server a <a>
            """,
            {"": "silent, http", "a": "silent from 127.0.0.2, http from 127.0.0.2"},
            {"": "silent, http, silent from 127.0.0.2, http from 127.0.0.2"},
        )

    def test_silence_and_halves_are_not_a_protocol(self) -> None:
        self.prove_rules(
            """
            acl ssl req_ssl_hello_type 1
            tcp-request content accept if ssl
            use_backend a if !ssl
            default_backend b
            """,
            {"a": "silent, half, http, binary", "b": "hello www.example"},
        )

    def test_all_but_one_protocol_rejected(self) -> None:
        self.prove_rules(
            """
            tcp-request content reject if !{ req_ssl_hello_type 1 }
            use_backend a if { req_ssl_sni x.example }
            default_backend b
            """,
            {"": ", ".join(_NO_TLS), "b": "hello www.example", "a": "hello x.example"},
        )

    def test_negation_of_several_lines_and_names(self) -> None:
        self.prove_rules(
            """
            acl web req.payload(0,3) -m bin 504f53
            acl web req.payload(0,3) -m bin 474554
            acl ssl req_ssl_hello_type 1
            tcp-request content accept if { req.len gt 2 }
            use_backend a if !web !ssl
            default_backend b
            """,
            {"a": "silent, binary", "b": "http, hello www.example"},
        )

    def test_route_without_server(self) -> None:
        """Clients of a backend whose only server has no counterpart are closed, and reach no other backend."""
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.len gt 0 }
                use_backend a if HTTP
                default_backend b
            backend a
                server a <a> socks4 <gone>
            """,
            {"": "http", "b": "hello"},
            looks=2,
        )

    def test_typographic_hyphen_is_refused(self) -> None:
        file = self.own_folder / "typography.cfg"
        text = self.whole(
            "listen f\n    bind 127.0.0.1:1\n    server s 127.0.0.1:2 send\u2013proxy\n"
        )
        file.write_text(text)
        self.assertNotEqual(run("haproxy", "-c", "-f", file).returncode, 0)
        self.assertTrue(self.converted(text, file).has_looks)
