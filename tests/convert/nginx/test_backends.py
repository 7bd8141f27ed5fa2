"""Tests of what is made of upstreams, and of how their servers are connected."""

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.nginx.pieces import backend, server, stream


class UpstreamTests(SynchronousTestCase):
    def test_weights_limits_and_states(self) -> None:
        output = backend(
            "",
            "zone z 64k; server 127.0.0.1:1 weight=5 max_conns=20; server unix:/run/x.sock backup;"
            " server [2001:db8::1]:2 down; server name.example:3 resolve;",
        )
        self.assertEqual(
            [(s.text, s.weight, s.max_connections, s.backup, s.down) for s in output.servers],
            [
                ("127.0.0.1:1", 5, 20, False, False), ("unix:/run/x.sock", 1, 0, True, False),
                ("[2001:db8::1]:2", 1, 0, False, True), ("name.example:3", 1, 0, False, False),
            ],
        )  # fmt: skip
        self.assertEqual(output.retries, 3)

    def test_balance_and_lost_hashes(self) -> None:
        two = "server 127.0.0.1:1; server 127.0.0.1:2;"
        for line, expected in (
            ("", "round-robin"),
            ("least_conn;", "least-connections"),
            ("hash $remote_addr consistent;", "source-hash"),
            ("hash $binary_remote_addr;", "source-hash"),
            ("hash $proxy_protocol_addr;", "source-hash"),
            ("random two least_conn;", "random"),
        ):
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

    def test_servers_that_are_there_twice_are_one(self) -> None:
        for servers, expected in (
            ("server 127.0.0.1:1 max_conns=2; server 127.0.0.1:1 max_conns=3;", [(2, 5)]),
            ("server 127.0.0.1:1 weight=3 max_conns=2; server 127.0.0.1:1;", [(4, 0)]),
            ("server 127.0.0.1:1 down; server 127.0.0.1:1 max_conns=1;", [(1, 1)]),
            ("server 127.0.0.1:1 backup; server 127.0.0.1:1;", [(1, 0), (1, 0)]),
        ):
            output = backend("", servers)
            self.assertEqual([(s.weight, s.max_connections) for s in output.servers], expected)
            self.assertFalse(any(server.down for server in output.servers))

    def test_datagrams(self) -> None:
        """No datagram goes to a second server; one that does not answer as it should gets no clients for a while."""
        two = "upstream x { server 127.0.0.1:1 max_fails=2; server 127.0.0.1:2 max_fails=2; }"
        for text, unanswered in (
            ("", None),
            ("proxy_responses 0;", None),
            ("proxy_responses 1;", 2),
        ):
            output = stream(
                f"{two} server {{ listen 53 udp; proxy_timeout 5s; proxy_pass x; {text} }}"
            )
            group = rules_of(output).backends["x"]
            assert group.eject is not None
            self.assertEqual((group.retries, group.unanswered_timeout), (0, 5.0), text)
            self.assertEqual((group.eject.failures, group.eject.unanswered), (2, unanswered), text)

    def test_equal_connections_share_a_backend(self) -> None:
        output = stream(
            "server { listen 1; proxy_pass a; } server { listen 2; proxy_pass a; }"
            "server { listen 3; proxy_pass A; proxy_protocol on; }"
        )
        self.assertEqual(sorted(rules_of(output).backends), ["a", "a-2"])


class ConnectTests(SynchronousTestCase):
    def test_default_times(self) -> None:
        output = backend("")
        self.assertEqual((output.connect_timeout, output.idle_timeout), (60, 600))
        output = backend("proxy_connect_timeout 500ms; proxy_timeout 1h 30m;")
        self.assertEqual((output.connect_timeout, output.idle_timeout), (0.5, 5400))
        self.assertEqual(len(looks(server("proxy_pass a; proxy_timeout soon;"))), 1)

    def test_rates(self) -> None:
        output = backend("proxy_upload_rate 100k; proxy_download_rate 1m;")
        self.assertEqual((output.upload_rate, output.download_rate), (102400, 1048576))
        self.assertIsNone(backend("proxy_upload_rate 0;").upload_rate)

    def test_tries(self) -> None:
        servers = "".join(f"server 127.0.0.1:{n};" for n in range(1, 7))
        for text, expected in (
            ("", 5),
            ("proxy_next_upstream off;", 0),
            ("proxy_next_upstream_tries 2;", 1),
        ):
            self.assertEqual(backend(text, servers).retries, expected)

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

    def test_resolver_is_for_names_of_variables(self) -> None:
        table = (
            "map $ssl_preread_server_name $x { x.example app.internal:443; default 127.0.0.1:1; }"
        )
        resolver = "resolver 127.0.0.1:8600 [::1] valid=10s ipv6=off;"
        output = server(f"ssl_preread on; proxy_pass $x; {resolver}", table)
        self.assertIn("resolvers = 127.0.0.1:8600\n    [::1]\nresolve = 10s\n", output.text)
        self.assertEqual(output.text.count("resolvers"), 1)
        self.assertEqual(len(output.warnings), 1)
        self.assertIn(
            "without a resolver", server("ssl_preread on; proxy_pass $x;", table).warnings[0]
        )
        self.assertNotIn("resolvers", server(f"proxy_pass app.internal:443; {resolver}").text)

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

    def test_hash_of_the_address_in_a_header(self) -> None:
        servers = "server 192.0.2.1:1; server 192.0.2.2:1;"
        group = f"upstream u {{ hash $proxy_protocol_addr; {servers} }}"
        more = f"{group} server {{ listen 9 proxy_protocol; proxy_pass u; set_real_ip_from all; }}"
        self.assertIn("that all clients get one server", looks(server("proxy_pass u;", group))[0])
        output = server("return '';", more)
        self.assertIn("balance = source-hash\n", output.text)
        self.assertNotIn("all clients get one server", output.text)

    def test_health_check_connects(self) -> None:
        output = server("proxy_pass a; health_check interval=10 passes=2 fails=3 port=8080;")
        self.assertIn("check = tcp interval=10s rise=2 fall=3 port=8080 timeout=5s\n", output.text)
        self.assertEqual(len(looks(server("proxy_pass a; health_check match=x;"))), 1)

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
            ("check type=ajp;", ""),
            ("check type=udp;", "udp"),
            ("check;", "udp"),
        ):
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
            ("proxy_buffer_size 32k;", 0, 1),
            ("proxy_socket_keepalive on;", 0, 1),
            ("tcp_nodelay off;", 0, 1),
            ("tcp_nodelay on;", 0, 0),
            ("js_access x.y;", 1, 1),
            ("preread_by_lua_block { ngx.req.socket():peek(4) }", 1, 1),
        ):
            output = server(f"proxy_pass a; {text}")
            self.assertEqual((len(looks(output)), len(output.warnings)), (told, warned), text)


class SplitTests(SynchronousTestCase):
    def test_shares_are_multiplied_by_weights(self) -> None:
        groups = "upstream x { server 127.0.0.1:1 weight=3; server 127.0.0.1:2; } upstream y { server 127.0.0.1:3; }"
        for key, balance in (
            ("$remote_addr", "source-hash"),
            ("$remote_addr$remote_port", "round-robin"),
        ):
            output = server("proxy_pass $s;", f"{groups} split_clients {key} $s {{ 20% x; * y; }}")
            (made,) = rules_of(output).backends.values()
            self.assertEqual([s.weight for s in made.servers], [3, 1, 16])
            self.assertEqual((made.name, made.balance), ("s", balance))

    def test_incomplete_or_particular_shares_are_left_out(self) -> None:
        groups = "upstream x { least_conn; server 127.0.0.1:1; server 127.0.0.1:2; }"
        for block in ("20% a;", "20% x; * a;", "many a;", '50% a; * "";'):
            output = server(
                "proxy_pass $s;", f"{groups} split_clients $remote_addr $s {{ {block} }}"
            )
            self.assertEqual(len(looks(output)), 1, block)
            self.assertNotIn("\n[backend", output.text)
