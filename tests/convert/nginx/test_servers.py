"""Tests of where nginx listens, and whom it lets in."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.nginx.pieces import name_of, routes, server, stream
from txmux.rules.model import Keepalive
from txmux.rules.model.networks import NetworkSet
from txmux.rules.reading.values import network
from txmux_convert.nginx.maps import admission
from txmux_convert.nginx.reader import Directive
from txmux_convert.writer import ConvertError

_NETWORKS = st.sampled_from(
    [
        *("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "0.0.0.0/0", "::/0"),
        *("2001:db8::/32", "all"),
    ]
)
_ADDRESSES = st.sampled_from(
    ["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1", "::1"]
)


def _nothing_lost(rule: Directive, why: str) -> None:
    raise AssertionError(f"{rule}: {why}")


class ListenTests(SynchronousTestCase):
    def endpoints(self, *listens: str) -> list[tuple[str, ...]]:
        lines = " ".join(f"listen {listen};" for listen in listens)
        output = stream(f"server {{ {lines} proxy_pass a; }}")
        return [listener.endpoints for listener in rules_of(output).listeners]

    def test_forms_of_listen(self) -> None:
        for listens, expected in (
            (["443"], ["0.0.0.0:443"]),
            (["*:443", "[::]:443"], [":443"]),
            (["[::]:443 ipv6only=off"], [":443"]),
            (["192.0.2.1:443 reuseport", "[2001:db8::1]:443"],
             ["192.0.2.1:443", "[2001:db8::1]:443"]),
            (["unix:/run/x.sock"], ["unix:/run/x.sock"]),
            (["127.0.0.1:5000-5002"], ["127.0.0.1:5000-5002"]),
            (["1-60000", "[::]:1-60000"], [":1-60000"]),
            (["5-6 udp"], ["udp:0.0.0.0:5-6"]),
        ):  # fmt: skip
            self.assertEqual(self.endpoints(*listens), [tuple(expected)])

    def test_different_parameters_make_listeners(self) -> None:
        output = server("listen 444 backlog=99; listen 445 so_keepalive=30m::10; proxy_pass a;")
        listeners = rules_of(output).listeners
        self.assertEqual(len(listeners), 2)
        self.assertEqual(listeners[1].keepalive, Keepalive(idle=1800, count=10))
        self.assertEqual(
            rules_of(server("listen 444 so_keepalive=off; proxy_pass a;")).listeners[1].keepalive,
            None,
        )

    def test_udp_is_a_listener_with_its_own_backends(self) -> None:
        output = stream(
            "upstream dns { server 10.0.0.1:53; server 10.0.0.2:53; }\n"
            "limit_conn_zone $binary_remote_addr zone=a:1m;\n"
            "server { listen 53 udp reuseport; listen [::]:53 udp; listen 192.0.2.1:53; proxy_pass dns;\n"
            "proxy_responses 1; proxy_timeout 20s; limit_conn a 5; }\n"
            "server { listen [2001:db8::1]:1194 udp; proxy_pass 10.0.0.3:1194; proxy_protocol on; ssl_preread on; }\n"
        )
        self.assertEqual(looks(output), [])
        rules = rules_of(output)
        self.assertEqual(
            [(listener.endpoints, listener.default.name) for listener in rules.listeners],
            [
                (("udp:53",), "dns"),
                (("192.0.2.1:53",), "dns-2"),
                (("udp:[2001:db8::1]:1194",), "10.0.0.3-1194"),
            ],
        )
        self.assertEqual([listener.max_flows_per_source for listener in rules.listeners], [5, 0, 0])
        self.assertEqual(
            [listener.max_connections_per_source for listener in rules.listeners], [0, 5, 0]
        )
        dns, other, vpn = rules.backends.values()
        self.assertEqual(
            [server.text for server in dns.servers], ["udp:10.0.0.1:53", "udp:10.0.0.2:53"]
        )
        self.assertEqual((dns.answers, dns.idle_timeout, other.answers), (1, 20, 0))
        self.assertEqual((vpn.proxy_protocol, vpn.idle_timeout), ("v2", 600))

    def test_udp_without_counterpart(self) -> None:
        for setting in ("proxy_requests 5;", "health_check udp;"):
            output = stream(f"server {{ listen 53 udp; proxy_pass 10.0.0.3:53; {setting} }}")
            self.assertEqual(len(looks(output)), 1, setting)
        output = stream("server { listen 53 udp; proxy_pass 10.0.0.3:53; proxy_responses 0; }")
        self.assertIn(
            "proxy_responses 0: has no counterpart; see unanswered_timeout", output.warnings[0]
        )

    def test_names_and_too_many_ports_are_left_out(self) -> None:
        for listen in ("localhost:1", "80 so_keepalive=x", "80 quic"):
            self.assertEqual(len(looks(server(f"listen {listen}; proxy_pass a;"))), 1, listen)
        by_port = "map $server_port $x { 5 a; default b; } server { listen %s; proxy_pass $x; }"
        self.assertEqual(len(looks(stream(by_port % "8; listen 1-60000"))), 1)
        listeners = rules_of(stream(by_port % "5-7")).listeners
        self.assertEqual([len(listener.endpoints) for listener in listeners], [1, 2])
        # A server that is asked for at the same port needs none of its own for each.
        for listen, server_text in (
            ("5-60000", "10.0.0.5:{port}"),
            ("5-6 udp", "udp:10.0.0.5:{port}"),
        ):
            output = stream(
                f"server {{ listen {listen}; listen [::]:{listen}; proxy_pass 10.0.0.5:$server_port; }}"
                "server { listen 1; proxy_pass b; }"
            )
            self.assertEqual(looks(output), [])
            self.assertIn(f"server = {server_text}\n", output.text)
            self.assertEqual(len(rules_of(output).listeners), 2)
        error = self.assertRaises(ConvertError, stream, "server { listen a:53; proxy_pass a; }")
        self.assertIn("there is no listener that txmux could have", str(error))

    def test_servers_of_one_address_by_name(self) -> None:
        output = stream(
            "server { listen 1; server_name x; proxy_pass a; } server { listen 1; server_name y; proxy_pass b; }"
        )
        (look,) = looks(output)
        self.assertIn("listen 1: is left out: the server is chosen by server_name", look)

    def test_routes_are_under_their_own_listener(self) -> None:
        output = stream(
            "map $ssl_preread_server_name $x { x.example a; }"
            "server { listen 1; ssl_preread on; proxy_pass $x; } server { listen 2; proxy_pass b; }"
        )
        self.assertIn(
            "[route a]\nmatch = tls sni=x.example\nunder = port-1\nbackend = a\n", output.text
        )


class AdmissionTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), _NETWORKS), max_size=6), _ADDRESSES)
    def test_any_order_admits_the_same_clients(
        self, rules: list[tuple[bool, str]], address: str
    ) -> None:
        directives = [Directive(("allow" if let_in else "deny", text), 1) for let_in, text in rules]
        allowed, denied = admission(directives, _nothing_lost)
        client = network(address).network_address
        expected = next(
            (let_in for let_in, text in rules if text == "all" or client in network(text)), True
        )
        output = (not allowed or client in NetworkSet(map(network, allowed))) and (
            client not in NetworkSet(map(network, denied))
        )
        self.assertEqual(output, expected, (allowed, denied))

    def test_usual_rules_are_written_as_they_were(self) -> None:
        output = server("deny 10.0.0.1; allow 10.0.0.0/8; allow 192.0.2.1; deny all; proxy_pass a;")
        self.assertIn("allow = 10.0.0.0/8\n    192.0.2.1\ndeny = 10.0.0.1\n", output.text)

    def test_rules_inherited_from_stream(self) -> None:
        output = stream("deny 10.0.0.1; server { listen 1; proxy_pass a; }")
        self.assertIn("deny = 10.0.0.1\n", output.text)

    def test_unix_clients_have_no_network(self) -> None:
        self.assertEqual(looks(server("allow unix:; deny all; proxy_pass a;")), [])
        self.assertEqual(len(looks(server("deny unix:; proxy_pass a;"))), 1)

    def test_limits_by_client_and_by_port(self) -> None:
        for key, line in (
            ("$binary_remote_addr", "max_connections_per_source = 7\n"),
            ("$server_addr", "max_connections = 7\n"),
        ):
            output = server("limit_conn z 7; proxy_pass a;", f"limit_conn_zone {key} zone=z:1m;")
            self.assertIn(line, output.text)
        for more in ("limit_conn_zone $ssl_preread_server_name zone=z:1m;", ""):
            self.assertEqual(len(looks(server("limit_conn z 7; proxy_pass a;", more))), 1)
        self.assertEqual(len(looks(server("limit_conn {} proxy_pass a;"))), 1)
        output = server(
            "limit_conn z 7; limit_conn_dry_run on; proxy_pass a;",
            "limit_conn_zone $remote_addr zone=z:1m;",
        )
        self.assertNotIn("max_connections", output.text)

    def test_set_real_ip_from_or_all_proxies(self) -> None:
        for text, networks, told in (
            ("set_real_ip_from 10.0.0.0/8; set_real_ip_from unix:;", "10.0.0.0/8\n    unix", 1),
            ("", "0.0.0.0/0, ::/0", 0),
            ("deny 10.0.0.1;", "0.0.0.0/0, ::/0", 1),
        ):
            output = stream(f"server {{ listen 1 proxy_protocol; {text} proxy_pass a; }}")
            self.assertIn(f"accept_proxy_from = {networks}\n", output.text)
            self.assertEqual(len(looks(output)), told, output.text)


class LeadingTests(SynchronousTestCase):
    def test_preread_times(self) -> None:
        table = "map $ssl_preread_server_name $x { x.example a; }"
        for text, expected in (
            ("ssl_preread on; proxy_pass $x;", 30),
            ("ssl_preread on; preread_timeout 5s; proxy_pass $x;", 5),
            ("ssl_preread on; preread_timeout 1m30s; proxy_pass a;", 90),
            ("proxy_pass a;", 5),
            ("return '';", 0.001),
        ):
            (listener,) = rules_of(server(text, table)).listeners
            self.assertEqual(listener.detect_timeout, expected)
        output = server("ssl_preread on; preread_buffer_size 4k; proxy_pass $x;", table)
        self.assertEqual(rules_of(output).listeners[0].peek_limit, 4096)

    def test_preread_waits_without_need(self) -> None:
        self.assertIn("silent = close\ndefault = a\n", server("ssl_preread on; proxy_pass a;").text)

    def test_silent_clients_are_routed_by_networks_at_once(self) -> None:
        output = server("proxy_pass $x;", "geo $x { default a; 10.0.0.0/8 b; 10.1.0.0/16 a; }")
        self.assertIn(
            "silent = a from=10.1.0.0/16 after=1ms\n    b from=10.0.0.0/8 after=1ms\n    a after=1ms\n",
            output.text,
        )
        self.assertIn("[route b]\nmatch = any\nfrom = 10.0.0.0/8\nbackend = b\n", output.text)

    def test_geo_ranges(self) -> None:
        output = server("proxy_pass $x;", "geo $x { ranges; default a; 10.0.0.0-10.0.0.3 b; }")
        self.assertIn("from = 10.0.0.0/30\n", output.text)
        for block in (
            "geo $proxy_protocol_addr $x { default a; }",
            "geo $x { default a; proxy 10.0.0.1; }",
        ):
            self.assertEqual(len(looks(server("proxy_pass $x;", block))), 1)
        self.assertEqual(
            len(looks(server("proxy_pass $x;", "geo $x { default a; nonsense b; }"))), 1
        )

    def test_clients_without_destination_are_closed(self) -> None:
        for text in (
            "proxy_pass $remote_addr:443;", "proxy_pass 10.0.0.1;", "proxy_pass $nobody;",
            "return $remote_addr;", "", "proxy_pass none;",
        ):  # fmt: skip
            output = server(text, "upstream none { zone z 64k; }")
            self.assertEqual(len(looks(output)), 1, output.text)
            self.assertEqual(routes(output), [(["default"], "close")])

    def test_name_chooses_the_server(self) -> None:
        output = server(
            "proxy_pass $ssl_preread_server_name:443; ssl_preread on; resolver 10.0.0.53 valid=9s;"
        )
        self.assertEqual(routes(output), [(["tls"], "sni-443"), (["default"], "close")])
        self.assertEqual(len(looks(output)), 1)
        self.assertIn(
            "resolvers = 10.0.0.53\nallow_names = *\nallow_networks = public, 0.0.0.0/0, ::/0\n",
            output.text,
        )
        some = "hostnames; .example.com $ssl_preread_server_name.lan:443; default 10.0.0.1:22;"
        output = server(
            "proxy_pass $up; ssl_preread on;", f"map $ssl_preread_server_name $up {{ {some} }}"
        )
        self.assertEqual(
            routes(output),
            [(["tls sni=.example.com"], "sni-.lan-443"), (["default"], "10.0.0.1-22")],
        )
        self.assertIn("server = {sni}.lan:443\n", output.text)

    def test_set_precedes_the_client_hello(self) -> None:
        table = "map $ssl_preread_server_name $x { x.example a; default b; }"
        output = server("set $y $x; ssl_preread on; proxy_pass $y;", table)
        self.assertEqual(routes(output), [(["default"], "b")])

    def test_access_log_off(self) -> None:
        self.assertIn("log = no\n", server("access_log off; proxy_pass a;").text)
        self.assertEqual(len(server("access_log /var/log/x.log main; proxy_pass a;").warnings), 1)

    def test_tls_termination_by_name_and_protocol(self) -> None:
        output = stream(
            "server { listen 1 ssl; ssl_certificate /c.pem; ssl_certificate_key k.pem; ssl_alpn h2 http/1.1;"
            " ssl_protocols TLSv1.3; ssl_client_certificate /ca.pem; ssl_verify_client ON; proxy_pass $x; }"
            "map $ssl_server_name $x { x.example a; default b; }"
        )
        first, second = rules_of(output).routes
        self.assertEqual([a.text for a in first.alternatives], ["tls sni=x.example"])
        self.assertEqual([a.text for a in second.alternatives], ["tls"])
        self.assertEqual((name_of(first.outcome), name_of(second.outcome)), ("a", "b"))
        for line in (
            "alpn = h2, http/1.1\n", "tls_minimum = 1.3\n", "tls_client_ca = /ca.pem\n",
            "terminate_tls = /c.pem\n    /",
        ):  # fmt: skip
            self.assertEqual(output.text.count(line), 2)
        self.assertNotIn("tls_client = optional", output.text)
        self.assertIn("detect_timeout = 60s\n", output.text)

    def test_certificates_of_clients_that_need_none(self) -> None:
        output = stream(
            "server { listen 1 ssl; ssl_certificate /c.pem; ssl_certificate_key /k.pem; ssl_crl /crl.pem;"
            " ssl_client_certificate /ca.pem; ssl_verify_client optional; proxy_pass a; }"
        )
        self.assertIn(
            "tls_client_ca = /ca.pem\ntls_client_crl = /crl.pem\ntls_client = optional\n",
            output.text,
        )
        self.assertEqual(len(output.warnings), 1)

    def test_multipath(self) -> None:
        output = stream("server { listen 1 multipath; proxy_pass a; }")
        self.assertTrue(rules_of(output).listeners[0].mptcp)
        self.assertEqual((looks(output), output.warnings), ([], ()))

    def test_other_tls_is_reported(self) -> None:
        certificate = "ssl_certificate /c.pem; ssl_certificate_key /k.pem;"
        for text, told, warned in (
            (f"{certificate} ssl_protocols TLSv1 TLSv1.1;", 1, 0),
            (f"{certificate} ssl_protocols TLSv1.1 TLSv1.2;", 0, 1),
            (f"{certificate} ssl_verify_client optional;", 0, 1),
            (f"{certificate} ssl_ciphers HIGH;", 0, 1),
            (f"{certificate} ssl_crl /x.pem;", 0, 0),
            (f"{certificate} ssl_preread on;", 1, 0),
            ("", 1, 0),
        ):
            output = stream(f"server {{ listen 1 ssl; {text} proxy_pass a; }}")
            self.assertEqual(
                (len(looks(output)), len(output.warnings)), (told, told + warned), output.text
            )
