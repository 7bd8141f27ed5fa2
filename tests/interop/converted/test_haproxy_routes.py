"""HAProxy that leads clients by first bytes, names, networks, maps and counters, beside txmux."""

import socket

from tests.interop.children import PATIENCE, eventually, run
from tests.interop.converted.sidebyside import SideBySideTestCase


class RuleTests(SideBySideTestCase):
    program = "haproxy"

    def test_typographic_hyphen_is_refused(self) -> None:
        file = self.own_folder / "typography.cfg"
        text = self.whole(
            "listen f\n    bind 127.0.0.1:1\n    server s 127.0.0.1:2 send\u2013proxy\n"
        )
        file.write_text(text)
        self.assertNotEqual(run("haproxy", "-c", "-f", file).returncode, 0)
        self.assertTrue(self.converted(text, file).has_looks)


class ChosenTests(SideBySideTestCase):
    program = "haproxy"

    def test_map_with_a_default(self) -> None:
        (self.own_folder / "sites.map").write_text(
            "# site backend\na.example one\nb.example two\nc.example gone\n"
        )
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend %[req.ssl_sni,lower,map(<folder>/sites.map,others)]
                default_backend rest
            backend others
                server s <others>
            backend one
                server s <one>
            backend two
                server s <two>
            """,
            {
                "one": "hello a.example",
                "two": "hello b.example",
                "rest": "hello c.example, hello, ssh, silent",
                "others": "hello d.example",
            },
        )

    def test_domains(self) -> None:
        """A map of domains, for names below them; without one, the default backend, and no rule that comes later."""
        (self.own_folder / "domains").write_text(".a.example one\n.example two\n")
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend bk_%[req.ssl_sni,map_end(<folder>/domains)] if { req.ssl_hello_type 1 }
                use_backend bk_two if { req.len gt 0 }
                default_backend rest
            backend bk_one
                server s <one>
            backend bk_two
                server s <two>
            """,
            {
                "one": "hello x.a.example",
                "two": "hello x.b.example, ssh",
                "rest": "hello c.test, silent",
            },
        )

    def test_networks_and_names_in_files(self) -> None:
        (self.own_folder / "office").write_text("127.0.0.2\n127.0.0.16/28\n")
        (self.own_folder / "names").write_text("a.example\nb.example\n")
        self.prove_frontend(
            """
            tcp-request connection reject if { src 127.0.0.3 }
            acl office src -f <folder>/office
            tcp-request content accept if { req.ssl_hello_type 1 }
            use_backend inside if { req.ssl_sni -i -f <folder>/names } office
            use_backend site if { req.ssl_sni -i -f <folder>/names }
            default_backend rest
            """,
            {
                "site": "hello a.example",
                "inside": "hello b.example from 127.0.0.17, hello b.example from 127.0.0.2",
                "rest": "hello c.example from 127.0.0.2",
                "": "hello a.example from 127.0.0.3",
            },
        )

    def test_connections_of_a_source_at_once(self) -> None:
        self.start(
            """
            frontend f
                bind 127.0.0.1:<port>
                stick-table type ip size 10k expire 30s store conn_cur
                tcp-request connection track-sc0 src
                tcp-request connection reject if { sc0_conn_cur gt 2 }
                default_backend a
            backend a
                server s <a>
            """
        )
        self.assertNotIn("LOOK", self.found.text)
        for ports in self.ports:
            held = [self.held(ports["port"]) for _ in range(2)]
            self.assertEqual([one.recv(9) for one in held], [b"a\n", b"a\n"])
            self.assertFalse(self.is_served(ports["port"]))
            with self.held(ports["port"], "127.0.0.2") as other:
                self.assertEqual(other.recv(9), b"a\n")
            held[0].close()
            eventually(lambda port=ports["port"]: self.is_served(port), "there is room again")  # type: ignore[misc]
            held[1].close()

    def held(self, port: int, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))

    def is_served(self, port: int) -> bool:
        try:
            with self.held(port) as client:
                return client.recv(9) == b"a\n"
        except ConnectionResetError:
            return False

    def test_connections_of_a_source_in_a_while(self) -> None:
        self.start(
            """
            frontend f
                bind 127.0.0.1:<port>
                tcp-request connection track-sc0 src table rates
                tcp-request connection reject if { sc0_conn_rate(rates) gt 5 }
                default_backend a
            backend a
                server s <a>
            backend rates
                stick-table type ip size 10k expire 2m store conn_rate(1m)
            """
        )
        self.assertNotIn("LOOK", self.found.text)
        for ports in self.ports:
            answers = [self.is_served(ports["port"]) for _ in range(7)]
            self.assertEqual(answers, [True] * 5 + [False] * 2)
