from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.nginx.pieces import backend, server, stream


class UpstreamTests(SynchronousTestCase):
    def test_balance_and_lost_hashes(self) -> None:
        two = "server 127.0.0.1:1; server 127.0.0.1:2;"
        for line, expected in (
            ("", "round-robin"), ("least_conn;", "least-connections"),
            ("hash $remote_addr consistent;", "source-hash"),
            ("hash $binary_remote_addr;", "source-hash"),
            ("hash $proxy_protocol_addr;", "source-hash"), ("random two least_conn;", "random"),
        ):  # fmt: skip
            self.assertEqual(backend("", line + two).balance, expected)
        for line in ("hash $ssl_preread_server_name;", "least_time connect;", "sticky;"):
            output = server("proxy_pass x;", f"upstream x {{ {line} {two} }}")
            self.assertEqual(len(looks(output)), 1)

    def test_failure_limits(self) -> None:
        for servers, line in (
            (
                "server 127.0.0.1:1 max_fails=2 fail_timeout=1m; server 127.0.0.1:2 max_fails=2 fail_timeout=1m;",
                "eject = failures=2 within=60s for=60s\n",
            ),
            ("server 127.0.0.1:1 max_fails=0; server 127.0.0.1:2 max_fails=0;", "eject = off\n"),
            ("server 127.0.0.1:1 slow_start=30s; server 127.0.0.1:2 slow_start=30;",
             "slow_start = 30s\n"),
            ("server 127.0.0.1:1; server 127.0.0.1:2;", "eject = failures=1 within=10s for=10s\n"),
        ):  # fmt: skip
            output = server("proxy_pass x;", f"upstream x {{ {servers} }}")
            self.assertIn(line, output.text)
            self.assertEqual(output.warnings, ())
        self.assertNotIn(
            "eject", server("proxy_pass x;", "upstream x { server 127.0.0.1:1; }").text
        )
        mixed = "upstream x { server 127.0.0.1:1 max_fails=3; server 127.0.0.1:2; }"
        self.assertEqual(len(server("proxy_pass x;", mixed).warnings), 1)

    def test_impossible_servers_and_parameters_are_left_out(self) -> None:
        for line in (
            "server 127.0.0.1;", "server 127.0.0.1:1 weight=x;",
            "server 127.0.0.1:1 fail_timeout=x;", "server x.example:1 service=_http._tcp;",
            "server 127.0.0.1:1 slow_start=x;", "keepalive 16;",
        ):  # fmt: skip
            output = server("proxy_pass x;", f"upstream x {{ server 127.0.0.9:9; {line} }}")
            self.assertEqual(len(looks(output)), 1, line)
        output = server("proxy_pass x;", "upstream x { server x.example service=http resolve; }")
        self.assertIn("write its SRV record as srv:", looks(output)[0])


class ConnectTests(SynchronousTestCase):
    def test_source_address(self) -> None:
        for text, line in (
            ("proxy_bind 192.0.2.1;", "source = 192.0.2.1\n"),
            ("proxy_bind $remote_addr transparent;", "source = client\n"),
            ("proxy_bind $remote_addr:$remote_port transparent;", "source = client\n"),
        ):
            self.assertIn(line, server(f"proxy_pass a; {text}").text)
        self.assertNotIn("source", server("proxy_pass a; proxy_bind off;").text)
        self.assertEqual(len(looks(server("proxy_pass a; proxy_bind $server_addr;"))), 1)

    def test_unverified_certificate_is_a_look(self) -> None:
        more = "upstream x.example { server 127.0.0.1:1; }"
        verified = (
            "proxy_ssl on; proxy_ssl_verify on; proxy_ssl_trusted_certificate /ca-bundle.crt;"
        )
        for text, lines, told in (
            (f"{verified} proxy_pass x.example;",
             ["tls = yes", "tls_name = x.example", "tls_ca = /ca-bundle.crt"], 0),
            (f"{verified} proxy_ssl_name y.example:1; proxy_pass x.example;",
             ["tls_name = y.example"], 0),
            ("proxy_ssl on; proxy_ssl_name y.example; proxy_pass x.example;",
             ["tls_name = y.example"], 1),
            (f"{verified} proxy_ssl_name $ssl_preread_server_name; proxy_pass x.example;",
             ["tls = yes"], 1),
            (
                f"{verified} proxy_ssl_certificate /c.pem; proxy_ssl_certificate_key /k.pem; proxy_pass x.example;",
                ["tls_client_certificate = /c.pem\n    /k.pem"],
                0,
            ),
            # An authority of one's own may still sign certificates with a common name only.
            (f"{verified.replace('/ca-bundle.crt', '/ca.pem')} proxy_pass x.example;",
             ["tls_ca = /ca.pem"], 1),
        ):  # fmt: skip
            output = server(text, more)
            for line in lines:
                self.assertIn(f"{line}\n", output.text)
            self.assertEqual(len(looks(output)), told, output.text)

    def test_resolver_of_a_server_that_is_looked_up_again(self) -> None:
        """In its place, in the group's, or in that of all; another name is asked for so, too, which nginx does not do."""
        group = "upstream u {{ server app.internal:443 resolve; {} zone u 1m; }}"
        for inside, outside, valid in (
            ("resolver 192.0.2.53 valid=30s;", "", "resolve = 30s\n"),
            ("", "resolver 192.0.2.53 valid=30s;", "resolve = 30s\n"),
            ("resolver 192.0.2.53;", "resolver 192.0.2.54;", ""),
        ):
            output = server("proxy_pass u;", f"{outside} {group.format(inside)}")
            self.assertIn(f"resolvers = 192.0.2.53\n{valid}", output.text)
            self.assertEqual(output.warnings, ())
        output = server("proxy_pass u;", group.format("resolver ::1; resolver_timeout 5s;"))
        self.assertIn(
            "resolver_timeout 5s: has no counterpart; a name server has", output.warnings[0]
        )
        output = server("proxy_pass u;", group.format(""))
        self.assertIn("app.internal:443: without a resolver", output.warnings[0])
        other = group.format("server b.example:1; server 192.0.2.1:1;")
        output = server("proxy_pass u; resolver 192.0.2.53;", other)
        self.assertIn("these are asked for b.example:1, too", output.warnings[0])

    def test_checks_of_modules(self) -> None:
        usual = "interval=30s timeout=1s rise=2 fall=5"
        for lines, words in (
            ("check;", f"tcp {usual}"),
            ("check interval=1500 rise=1 fall=3 timeout=2000 default_down=false;",
             "tcp interval=1500ms timeout=2s rise=1 fall=3"),
            ("check type=ssl_hello port=8443;", f"tcp tls=yes port=8443 {usual}"),
            ("check type=mysql;", rf"expect=\0\n {usual}"),
            ("check type=pop3;", f"expect=+OK {usual}"),
            ("check type=imap;", f"'expect=* OK' {usual}"),
            ("check type=http;", rf"http 'send=GET / HTTP/1.0\r\n\r\n' {usual}"),
            (
                'check type=http; check_http_send "HEAD /up HTTP/1.0\\r\\n\\r\\n"; check_http_expect_alive http_2xx;',
                rf"http 'send=HEAD /up HTTP/1.0\r\n\r\n' expect=2xx {usual}",
            ),
        ):  # fmt: skip
            output = server("proxy_pass x;", f"upstream x {{ server 127.0.0.1:1; {lines} }}")
            self.assertEqual(output.warnings, ())
            (check,) = [x for x in output.text.splitlines() if x.startswith("check = ")]
            self.assertEqual(check.replace("'", ""), f"check = {words}".replace("'", ""))
            self.assertIsNotNone(rules_of(output).backends["x"].check)

    def test_lost_check_is_a_look(self) -> None:
        for lines, listen in (
            ("check type=ajp;", ""), ("check type=udp;", "udp"), ("check;", "udp"),
        ):  # fmt: skip
            output = stream(
                f"upstream x {{ server 127.0.0.1:1; {lines} }} server {{ listen 9 {listen}; proxy_pass x; }}"
            )
            (told,) = looks(output)
            self.assertIn("is left out: it has no counterpart", told)
            self.assertNotIn("round-robin", told)
        for line in ("check type=smtp;", "check foo=1;"):
            output = server("proxy_pass x;", f"upstream x {{ server 127.0.0.1:1; {line} }}")
            self.assertEqual((len(output.warnings), looks(output)), (1, []))

    def test_unknown_directives_are_a_look(self) -> None:
        for text, told, warned in (
            ("proxy_buffer_size 32k;", 0, 1), ("proxy_socket_keepalive on;", 0, 1),
            ("tcp_nodelay off;", 0, 1), ("tcp_nodelay on;", 0, 0), ("js_access x.y;", 1, 1),
            ("preread_by_lua_block { ngx.req.socket():peek(4) }", 1, 1),
        ):  # fmt: skip
            output = server(f"proxy_pass a; {text}")
            self.assertEqual((len(looks(output)), len(output.warnings)), (told, warned), text)
