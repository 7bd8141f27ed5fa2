"""sniproxy beside txmux."""

import os
from unittest import SkipTest

from tests.interop.children import Child
from tests.interop.converted.sidebyside import SideBySideTestCase


class SniproxyTests(SideBySideTestCase):
    program = "sniproxy"

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
