"""Reading what is for datagrams, and what is said where it does not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.rules.reading.cases import ReadingTestCase
from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from txmux.detection.registry import installed_matchers
from txmux.interfaces import Transport
from txmux.rules.model import Backend
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from pathlib import Path

    from txmux.rules.model import Rules

_UDP = "[listen u]\nendpoint = udp:5000\n"


class DatagramTests(ReadingTestCase):
    def read(self, text: str) -> Rules:
        return parse(text, "x.ini", installed_matchers())

    def test_endpoints(self) -> None:
        text = "[listen u]\nendpoint = udp:443\n  udp:192.0.2.1:53\n  udp:[2001:db8::1]:53\n"
        [listener] = self.read(text).listeners
        self.assertIs(listener.transport, Transport.UDP)
        self.assertEqual((listener.detect_timeout, listener.peek_limit), (0.3, 16384))

    def test_servers_and_their_times(self) -> None:
        rules = self.read(
            f"{_UDP}default = b\n[backend b]\nserver = udp:[::1]:80\n  udp:a.example:81\n"
        )
        first, second = rules.backends["b"].servers
        self.assertEqual((first.kind, first.host, first.port), ("udp", "::1", 80))
        self.assertEqual((second.kind, second.host, second.port), ("udp", "a.example", 81))
        self.assertEqual(rules.backends["b"].idle_timeout, 180)
        default = self.read(f"{_UDP}default = udp:a:1\n").listeners[0].default
        self.assertTrue(isinstance(default, Backend) and default.idle_timeout == 180)

    def test_wrong_places(self) -> None:
        for text, told in {
            "udp:": "a port must be a whole number from 0 to 65535, not ''",
            "udp:x:1": "'x' is not an IP address; write udp:ADDRESS:1, or udp:1 for every address",
            "udp:::1:80": "'udp:::1:80' is not a place for datagrams; write udp:PORT, udp:ADDRESS:PORT or udp:[V6]:PORT",
            "udp:[1.2.3.4]:5": "'1.2.3.4' is not an IPv6 address; write udp:PORT, udp:ADDRESS:PORT or udp:[V6]:PORT",
            "udp:[fe80::1]:5": "'fe80::1' is an address of one link; write its interface, too: udp:[fe80::1%eth0]:5",
            "udp:443:interface=::1": "'udp:443:interface=::1' is not a place for datagrams; write udp:PORT",
            "udp:443:interface=127.0.0.1": "write the address first, as udp:127.0.0.1:443",
            "udp4:443": "'udp4:443': write 'udp:0.0.0.0:443'",
            "0.0.0.0:443/udp": "'0.0.0.0:443/udp': for UDP write 'udp:0.0.0.0:443'",
            ":443/udp": "':443/udp': for UDP write 'udp:443'",
        }.items():
            [said] = self.complaints(f"[listen u]\nendpoint = {text}\n")
            self.assertIn(told, said)
        [said] = self.complaints(f"{_UDP}default = udp:80\n")
        self.assertEqual(said, "3 default: 'udp:80' has no host; write udp:127.0.0.1:80")
        [said] = self.complaints(f"{_UDP}default = udp:host\n")
        self.assertEqual(said, "3 default: 'udp:host' has no port; write udp:host:PORT")

    def test_two_transports(self) -> None:
        self.refuses(
            "[listen u]\nendpoint = udp:5\n  :6\ndefault = b\n"
            "[backend b]\nserver = 127.0.0.1:1\n  udp:127.0.0.1:1\n",
            "3 endpoint: ':6' and 'udp:5' are of two transports, UDP and TCP; write another [listen] for one of them",
            "7 server: 'udp:127.0.0.1:1' and '127.0.0.1:1' are of two transports, UDP and TCP; "
            "write another [backend] for one of them",
        )

    def test_keys_of_the_other(self) -> None:
        self.refuses(
            f"{_UDP}silent = close\nmax_connections = 5\nbacklog = 5\n",
            "3 silent: a datagram is a whole message, so no client is silent; remove it",
            "4 max_connections: is for TCP; write max_flows",
            "5 backlog: is for TCP; remove it",
        )
        self.refuses(
            "[listen t]\nendpoint = :1\nmax_flows = 5\n", "3 max_flows: is for UDP; remove it"
        )
        self.refuses(
            f"{_UDP}default = b\n[backend b]\nserver = udp:h:1\nproxy_protocol = v1\ntls = yes\n",
            "6 proxy_protocol: v1 is for TCP; write v2, or off",
            "7 tls: is for TCP; remove it",
        )
        self.refuses(
            "[listen t]\nendpoint = :1\n[backend b]\nserver = h:1\nanswers = 1\n",
            "5 answers: is for UDP; remove it",
        )

    def test_forwarded_to_the_other_transport(self) -> None:
        self.refuses(
            f"{_UDP}default = 127.0.0.1:1\n[listen t]\nendpoint = :1\nsilent = udp:h:1\n"
            "[route r]\nmatch = any\nunder = t\nbackend = udp:h:2\n"
            "[backend b]\nserver = udp:h:1\nfallback = h:1\n",
            "3 default: the servers of '127.0.0.1:1' are for TCP, but [listen u] is for UDP; use another backend",
            "6 silent: the servers of 'udp:h:1' are for UDP, but [listen t] is for TCP; use another backend",
            "10 backend: its servers are for UDP, but [listen t] is for TCP; use another backend",
            "13 fallback: the servers of 'h:1' are for TCP, but this backend is for UDP; use another backend",
        )
        self.refuses(
            "[listen t]\nendpoint = :1\n[route r]\nmatch = any\nbackend = udp:h:2\n",
            "5 backend: its servers are for UDP, but no [listen] is; use another backend, or add a listener",
        )

    def test_matchers_that_cannot_be_there(self) -> None:
        told = "for UDP; put the route under a listener with 'endpoint = :PORT' and name a server of TCP"
        for keys, where in (
            ("backend = udp:h:2", "its backend is"),
            ("backend = close", "every [listen] is"),
            ("backend = close\nunder = u", "[listen u] is"),
        ):
            said = self.complaints(f"{_UDP}[route r]\nmatch = ssh\n{keys}\n")
            self.assertEqual(said, [f"4 match: 'ssh' is for TCP, but {where} {told}"])
        listener = "[listen t]\nendpoint = :1\n"
        wrong = (
            "4 match: 'wireguard' is for UDP, but its backend is for TCP; put the route under a listener with "
            "'endpoint = udp:PORT' and name a server of UDP"
        )
        route = "[route r]\nmatch = wireguard\nbackend = 127.0.0.1:2\n"
        self.refuses(listener + route, wrong)
        route = "[route r]\nmatch = wireguard\n    not quic\nbackend = close\n"
        [both] = self.complaints(listener + route)
        self.assertIn(
            "'wireguard' and 'not quic' are for UDP, but every [listen] is for TCP;", both
        )

    def test_tls_ends_over_tcp_alone(self) -> None:
        pem = self.folder_with_certificate()
        ends = f"match = any\nterminate_tls = {pem}\n"
        ends_elsewhere = "use a server that ends DTLS or QUIC itself"
        for text, told in (
            (
                f"{_UDP}[route r]\n{ends}",
                f"5 terminate_tls: TLS ends over TCP only, and no [listen] is for TCP; {ends_elsewhere}",
            ),
            (
                f"{_UDP}[listen t]\nendpoint = :1\n[route r]\n{ends}under = t, u\n",
                f"7 terminate_tls: TLS ends over TCP only, and [listen u] is for UDP; {ends_elsewhere}",
            ),
            (
                f"{_UDP}[listen t]\nendpoint = :1\n[route r]\n{ends}backend = udp:h:1\n",
                "8 backend: its servers are for UDP, but TLS ends over TCP only; use another backend",
            ),
            (
                (
                    f"{_UDP}[listen t]\nendpoint = :1\n[route r]\n{ends}"
                    "[route s]\nunder = r\nmatch = any\nbackend = udp:h:1\n"
                ),
                "11 backend: its servers are for UDP, but [route r] is for TCP; use another backend",
            ),
        ):
            self.refuses(text, told)
        rules = self.read(f"{_UDP}[listen t]\nendpoint = :1\n[route r]\n{ends}")
        self.assertEqual(
            [len(rules.routes_over(one, one.transport)) for one in rules.listeners], [0, 1]
        )

    def folder_with_certificate(self) -> Path:
        authority = make_authority("Test", "x.example")
        return authority.write(make_folder(self) / "x.pem", key=True)

    def test_each_route_where_it_can_be(self) -> None:
        """Without `under`, a route belongs to the listeners of its servers' transport, and is asked by matchers for that."""
        rules = self.read(
            f"{_UDP}[listen t]\nendpoint = :1\n"
            "[route a]\nmatch = any\nbackend = udp:h:2\n"
            "[route b]\nmatch = any\nbackend = h:2\n"
            "[route c]\nmatch = ssh\nbackend = close\n"
        )
        udp, tcp = rules.listeners
        self.assertEqual([r.name for r in rules.routes_over(udp, Transport.UDP)], ["a"])
        self.assertEqual([r.name for r in rules.routes_over(tcp, Transport.TCP)], ["b", "c"])

    def test_ports_of_their_own(self) -> None:
        """UDP and TCP have ports of their own; two of UDP get into each other's way; a listener is not led to itself."""
        self.read("[listen t]\nendpoint = :443\n[listen u]\nendpoint = udp:443\n")
        [said] = self.complaints("[listen u]\nendpoint = udp:443\n  udp:127.0.0.1:443\n")
        self.assertIn("is taken by 'udp:443'", said)
        [said] = self.complaints("[listen u]\nendpoint = udp:443\ndefault = udp:127.0.0.1:443\n")
        self.assertIn("leads back to [listen u]", said)
