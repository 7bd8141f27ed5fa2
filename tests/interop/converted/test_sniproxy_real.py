"""sniproxy beside txmux."""

import os
import socket
from unittest import SkipTest

from tests.interop.children import Child
from tests.interop.converted.sidebyside import SideBySideTestCase
from tests.interop.originals import Named


def _says_header(connection: socket.socket) -> None:
    """Say the first two words of a PROXY header."""
    header = connection.recv(4096)
    connection.sendall(b" ".join(header.split(b" ")[:2]) + b"\n")


class SniproxyTests(SideBySideTestCase):
    program = "sniproxy"

    def test_fallback_and_requests_without_a_name(self) -> None:
        for pattern, nameless in ((".*", "all"), ("^$", "all"), ("a", "rest")):
            self.setUp()
            named = "all" if pattern == ".*" else "rest"
            self.prove(
                f"""
                listen 127.0.0.1:<port> {{
                    fallback <rest>
                }}
                table {{
                    ^b <b>
                    {pattern} <all>
                }}
                """,
                {
                    "b": "hello b.example",
                    named: "hello c.net",
                    nameless: "hello, text, redis, http",
                },
            )

    def test_headers_are_sent_where_they_are_asked_for(self) -> None:
        for name in ("one", "two"):
            self.servers[name] = Named(self, name, answer=_says_header)
        self.prove(
            """
            listener 127.0.0.1:<port> {
                proto tls
                fallback <two> proxy
            }
            table {
                a.example <one> proxy_protocol
                b.example <plain>
            }
            """,
            {"PROXY TCP4": "hello a.example, hello c.example, text", "plain": "hello b.example"},
        )

    def test_names_as_servers(self) -> None:
        """An address in the place of a name is not connected to."""
        if os.geteuid():
            raise SkipTest("sniproxy asks port 53 only, which is root's")
        address = f"127.53.{os.getpid() % 250}.{os.getpid() // 250 % 250}"
        self.own(
            Child(
                *("dnsmasq", "--no-daemon", "--no-hosts", "--no-resolv", "--bind-interfaces"),
                *(f"--listen-address={address}", "--address=/example/127.0.0.1"),
            )
        ).wait_for("started")
        self.prove(
            f"""
            resolver {{
                nameserver {address}
            }}
            listener 127.0.0.1:<port> {{
                proto http
                table all
            }}
            listener 127.0.0.1:<port1> {{
                proto http
                table all
                fallback <rest>
            }}
            listener 127.0.0.1:<port2> {{
                proto tls
                table some
                source 127.0.0.3
            }}
            table all {{
                .* *:<a.port>
            }}
            table some {{
                \\\\.b\\\\.example$ *:<b.port>
                host host.example <c.port>
            }}
            """,
            {"a": "get x.example", "refused": "get 127.0.0.1, get"},
            {"a": "get x.example", "rest": "get 127.0.0.1, get [::1], get"},
            {"b": "hello a.b.example", "c": "hello host.net", "refused": "hello b.example.net"},
            looks=2,
        )
