from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.nginx.pieces import routes, server, stream
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
            (["1-600", "[::]:1-600"], [":1-600"]),
            (["5-6 udp"], ["udp:0.0.0.0:5-6"]),
        ):  # fmt: skip
            self.assertEqual(self.endpoints(*listens), [tuple(expected)])

    def test_names_and_too_many_ports_are_left_out(self) -> None:
        for listen in ("localhost:1", "80 so_keepalive=x", "80 quic"):
            self.assertEqual(len(looks(server(f"listen {listen}; proxy_pass a;"))), 1, listen)
        by_port = "map $server_port $x { 5 a; default b; } server { listen %s; proxy_pass $x; }"
        self.assertEqual(len(looks(stream(by_port % "8; listen 1-600"))), 1)
        listeners = rules_of(stream(by_port % "5-7")).listeners
        self.assertEqual([len(listener.endpoints) for listener in listeners], [1, 2])
        # A server that is asked for at the same port needs none of its own for each.
        for listen, server_text in (
            ("5-600", "10.0.0.5:{port}"),
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

    def test_clients_without_destination_are_closed(self) -> None:
        for text in (
            "proxy_pass $remote_addr:443;", "proxy_pass 10.0.0.1;", "proxy_pass $nobody;",
            "return $remote_addr;", "", "proxy_pass none;",
        ):  # fmt: skip
            output = server(text, "upstream none { zone z 64k; }")
            self.assertEqual(len(looks(output)), 1, output.text)
            self.assertEqual(routes(output), [(["default"], "close")])

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
