"""HAProxy that leads clients by first bytes, names, networks, maps and counters, beside txmux."""

import socket

from tests.interop.children import PATIENCE, eventually, run
from tests.interop.converted.sidebyside import HaproxyTestCase


class FirstBytesTests(HaproxyTestCase):
    def test_ssh_by_seven_bytes_or_silence_and_https(self) -> None:
        self.prove(
            """
            global
                maxconn 200
                log 127.0.0.1 local0
            frontend shared
                bind 127.0.0.1:<port>
                option tcplog
                log global
                tcp-request inspect-delay 1s
                acl is_ssh payload(0,7) -m bin 5353482d322e30
                tcp-request content accept if is_ssh
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend ssh if is_ssh
                use_backend ssh if !{ req.ssl_hello_type 1 } !{ req.len 1: }
                default_backend web
            """,
            {"ssh": "ssh, silent", "web": "hello a.example, text"},
        )

    def test_silent_ssh(self) -> None:
        """Who has sent no byte by the end of the time goes to SSH, alone or beside its first bytes; from one network elsewhere."""
        self.prove(
            """
            frontend alone
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend far if { req.len 0 } { src 127.0.0.3 }
                use_backend ssh if { req.len 0 }
                default_backend web
            frontend beside
                bind 127.0.0.1:<port1>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend web if { req.ssl_hello_type 1 }
                use_backend ssh if { payload(0,4) -m bin 5353482d } or { req.len 0 }
            """,
            {"ssh": "silent", "far": "silent from 127.0.0.3", "web": "ssh, hello a"},
            {"ssh": "silent, ssh", "web": "hello a", "": "text"},
        )

    def test_expressions_without_case_on_two_ports(self) -> None:
        self.prove(
            r"""
            frontend entry
                mode tcp
                bind 127.0.0.1:<port> tfo
                bind 127.0.0.1:<port1> tfo
                tcp-request inspect-delay 1s
                tcp-request content capture req.ssl_sni len 100
                tcp-request content accept if { req.ssl_hello_type 1 }
                acl ssh payload(0,7) -m bin 5353482d322e30
                acl upgraded req.payload(0,0) -m reg -i "upgrade:\s*websocket"
                acl upload req.payload(0,20) -m reg -i "post\s+/upload"
                use_backend ssh if ssh
                use_backend up if upload
                use_backend tunnel if upgraded
                default_backend rest
            """,
            {"ssh": "ssh", "up": "post", "tunnel": "upgrade", "rest": "http, silent"},
            {"tunnel": "upgrade", "rest": "hello a.example"},
            looks=1,
        )

    def test_rdp_with_cookie_and_no_one_else(self) -> None:
        self.prove(
            """
            frontend desktops
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if RDP_COOKIE
                tcp-request content reject
                default_backend farm
            backend farm
                balance leastconn
                server one <one>
            """,
            {"one": "rdp", "": "http, text, silent, hello a.example"},
        )


class NameTests(HaproxyTestCase):
    def test_frontend_behind_frontend_by_proxy_header(self) -> None:
        self.prove(
            """
            frontend outer
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend inner if { req.ssl_sni -i a.example }
                default_backend rest
            backend inner
                server loop 127.0.0.1:<port1> send-proxy-v2
            frontend inner_tls
                bind 127.0.0.1:<port1> accept-proxy
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend office if { src 127.0.0.2 }
                default_backend public
            """,
            {
                "public": "hello a.example",
                "office": "hello a.example from 127.0.0.2",
                "rest": "hello b.example",
            },
        )


class RuleTests(HaproxyTestCase):
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
                server a [::1]:<port> socks4 <gone>
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


class ChosenTests(HaproxyTestCase):
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

    def test_backends_named_as_sites(self) -> None:
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 1s
                tcp-request content accept if { req.ssl_hello_type 1 }
                use_backend %[req.ssl_sni,lower]
                default_backend rest
            backend a.example
                server s <one>
            backend b.example
                server s <two>
            """,
            {"one": "hello A.example", "two": "hello b.example", "rest": "hello c.example"},
        )

    def test_use_server_or_another_when_it_is_down(self) -> None:
        self.prove(
            """
            listen sites
                bind 127.0.0.1:<port>
                tcp-request inspect-delay 20s
                tcp-request content accept if { req.ssl_hello_type 1 }
                option redispatch
                retries 1
                use-server www if { req_ssl_sni -i www.example.com }
                use-server mail if { req_ssl_sni -i mail.example.com }
                use-server down if { req_ssl_sni -i down.example.com }
                server www <www> weight 0
                server mail <mail> weight 0
                server down <gone> weight 0 check inter 100ms fall 1
                server rest <rest>
            """,
            {
                "www": "hello www.example.com",
                "mail": "hello mail.example.com",
                "rest": "hello down.example.com, hello other.example.com",
            },
            soon=True,
        )

    def test_backend_without_server_and_sticky_clients(self) -> None:
        self.prove(
            """
            frontend f
                bind 127.0.0.1:<port>
                acl main_down nbsrv(main) lt 1
                use_backend spare if main_down
                default_backend main
            backend main
                retries 0
                server s <gone> check inter 100ms fall 1
            backend spare
                stick-table type ip size 1m expire 1h
                stick on src
                server s <spare>
            """,
            {"spare": "text, silent"},
            soon=True,
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
