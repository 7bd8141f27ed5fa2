from collections.abc import Mapping
from functools import partial
from unittest import TestCase

import attrs

from tests.wire.hello_builder import client_hello, records, server_name
from txmux.errors import MuxError
from txmux.features.trial.comparing import RememberedClient, compared
from txmux.rules.model import FoundCertificate, Rules
from txmux.rules.reading.files import SourceFile
from txmux.rules.reading.rules_parser import RulesParser
from txmux.rules.tracing import Tracer

REQUEST = b"GET /in HTTP/1.1\r\nHost: a.test\r\n\r\n"
LISTEN = "[listen x]\nendpoint = 192.0.2.9:443\n"
WEB = "[route web]\nunder = *\nmatch = http\nbackend = 10.0.0.1:80\n"
SERVER_FIRST = "first = server\ndefault = 10.0.0.1:80\n"
TLS = "[route tls]\nunder = *\nmatch = tls\nterminate_tls = a.pem\nbackend = 10.0.0.1:80\n"
INSIDE = "[route in]\nunder = tls\nmatch = http path=/in\nbackend = 10.0.0.2:80\n"
POOL = "[backend pool]\nserver = 10.0.0.1:80\n  10.0.0.2:80\n"
TO_POOL = WEB.replace("10.0.0.1:80", "pool")
NAMED = "[backend named]\nserver = {sni}:443\nallow_names = *.test\n[route n]\nunder = *\nmatch = tls sni=*\nbackend = named\n"
TUNNEL = "[backend proxied]\nserver = {host}:443\nallow_names = *.test\n[route t]\nunder = *\nmatch = http method=CONNECT\ntunnel = yes\nbackend = proxied\n"
SSH = "[route ssh]\nunder = t\nmatch = ssh\nbackend = 10.0.0.1:22\n"
FLOW = "[listen u]\nendpoint = udp:192.0.2.9:53\n"
DNS = "[route dns]\nunder = *\nmatch = payload text=q\nbackend = udp:10.0.0.1:53\n"

WEB_TO = "route web, to 10.0.0.1:80"
NOBODY = "nobody listens there"
DEFAULT = "default, close"
HELLO = records(client_hello(server_name("a.test")))

_ENDS = 1e9, "192.0.2.1:5", "192.0.2.9:443"
CLIENT = RememberedClient(*_ENDS, is_flow=False, layers=(REQUEST,), certificate=None, granted={})
_CERTIFICATE = FoundCertificate(frozenset(), {"cn": ("x",)})
INNER = attrs.evolve(CLIENT, layers=(HELLO, REQUEST), certificate=_CERTIFICATE)
SILENT = attrs.evolve(CLIENT, layers=(b"",))
DATAGRAM = attrs.evolve(CLIENT, local="192.0.2.9:53", is_flow=True, layers=(b"query",))


def rules_of(text: str) -> Rules:
    rules = RulesParser(SourceFile("rules.ini", text), None).rules()
    rules.routes_of(rules.listeners[0])
    return rules


def at(endpoint: str, *more: str, name: str = "x") -> str:
    return "".join([f"[listen {name}]\nendpoint = {endpoint}\n", *more, WEB])


def came_to(local: str) -> RememberedClient:
    return attrs.evolve(CLIENT, local=local)


Found = tuple[str, str, bool] | str


class DestinationTests(TestCase):
    def assert_found(self, rows: Mapping[str, tuple[RememberedClient, str, str, Found]]) -> None:
        """By case: a client, the rules before and after, and where it goes and would go, and whether that is the same; or why it is not known."""
        for case, (client, before, after, expected) in rows.items():
            old, new = map(rules_of, (before, after))
            trace = partial(Tracer, has_answers=False)
            with self.subTest(case):
                try:
                    now, then = compared(trace(old), trace(new), old.listeners[0], client)
                except MuxError as why:
                    self.assertEqual(str(why), expected)
                else:
                    self.assertEqual((now.text, then.text, now.is_like(then)), expected)

    def test_destinations(self) -> None:
        """A client moves if no server of its is left for it, by the same name or by another."""
        web = LISTEN + WEB
        other = WEB.replace("10.0.0.1", "10.0.0.2")
        in_pool = "route web, to backend pool (10.0.0.1:80, 10.0.0.2:80)"
        named = "route n, to backend named ({sni}:443): a.test"
        renamed = NAMED.replace("named", "again")
        connect = b"CONNECT a.test:443 HTTP/1.1\r\n\r\n"
        malformed = "route t, which opens no tunnel: it is malformed"
        hello = attrs.evolve(CLIENT, layers=(HELLO,))
        self.assert_found({
            "the same": (CLIENT, web, web, (WEB_TO, WEB_TO, True)),
            "another server": (CLIENT, web, LISTEN + other, (WEB_TO, "route web, to 10.0.0.2:80", False)),
            "another route": (
                CLIENT, web, web.replace("route web", "route w"), (WEB_TO, "route w, to 10.0.0.1:80", True),
            ),
            "one of two, by another name": (CLIENT, web, LISTEN + POOL + TO_POOL, (WEB_TO, in_pool, False)),
            "one more by the same name": (
                CLIENT,
                LISTEN + POOL.replace("  10.0.0.2:80\n", "") + TO_POOL,
                LISTEN + POOL + TO_POOL,
                ("route web, to backend pool (10.0.0.1:80)", in_pool, True),
            ),
            "none of them by the same name": (
                CLIENT,
                LISTEN + POOL + TO_POOL,
                LISTEN + POOL.replace("10.0.0", "10.0.9") + TO_POOL,
                (in_pool, in_pool.replace("10.0.0", "10.0.9"), False),
            ),
            "refused, one way or another": (
                CLIENT, LISTEN, LISTEN + "default = reset\n", (DEFAULT, "default, reset", True),
            ),
            "refused no longer": (CLIENT, LISTEN, web, (DEFAULT, WEB_TO, False)),
            "chosen by name": (hello, LISTEN + NAMED, LISTEN + renamed, (named, named.replace("named", "again"), True)),
            "a name that is refused": (
                hello, LISTEN + NAMED, LISTEN + NAMED.replace("*.test", "b.test"),
                (named, f"{named}, name-denied", False),
            ),
            "handed to another program": (
                CLIENT,
                LISTEN + WEB.replace("10.0.0.1:80", "handover:/run/a.sock"),
                LISTEN + WEB.replace("10.0.0.1:80", "handover:/run/b.sock"),
                ("route web, to handover:/run/a.sock", "route web, to handover:/run/b.sock", False),
            ),
            "inside TLS": (
                INNER, LISTEN + TLS + INSIDE, LISTEN + TLS,
                ("route tls > in, to 10.0.0.2:80", "route tls, to 10.0.0.1:80", False),
            ),
            "TLS that is passed on then": (
                INNER, LISTEN + TLS + INSIDE, LISTEN + WEB.replace("http", "tls"),
                ("route tls > in, to 10.0.0.2:80", WEB_TO, False),
            ),
            "TLS that ends then, with nothing under it": (
                hello, LISTEN + WEB.replace("http", "tls"), LISTEN + TLS,
                (WEB_TO, "route tls, to 10.0.0.1:80", True),
            ),
            "inside a tunnel": (
                attrs.evolve(CLIENT, layers=(connect, b"SSH-2.0-x\r\n"), granted={"host": "a.test"}),
                LISTEN + TUNNEL, LISTEN + TUNNEL + SSH,
                ("route t, to backend proxied ({host}:443): a.test", "route t > ssh, to 10.0.0.1:22", False),
            ),
            "a tunnel that does not open": (
                attrs.evolve(CLIENT, layers=(connect.replace(b"443", b""),)),
                LISTEN + TUNNEL + SSH, LISTEN + TUNNEL,
                (malformed, malformed, True),
            ),
            "silent": (
                SILENT, LISTEN + "silent = 10.0.0.1:80\n" + WEB, web,
                ("route silent, to 10.0.0.1:80", "silent, close", False),
            ),
            "served before it says anything": (
                CLIENT, LISTEN + SERVER_FIRST, LISTEN + SERVER_FIRST.replace("0.1", "0.2"),
                ("default, to 10.0.0.1:80", "default, to 10.0.0.2:80", False),
            ),
            "a flow": (
                DATAGRAM, FLOW + DNS, FLOW + DNS.replace("text=q", "text=x"),
                ("route dns, to udp:10.0.0.1:53", DEFAULT, False),
            ),
        })  # fmt: skip

    def test_shut_out(self) -> None:
        """Rules may exclude the client on purpose, by `deny` or by `not_from` of what takes it now; others lack it by `allow` or `from`."""
        web, route = LISTEN + WEB, "[route web]\n"
        inner = "[route in]\n"
        rows = {
            "deny": (CLIENT, web, LISTEN + "deny = 192.0.2.0/24\n" + WEB, "deny"),
            "deny, where more would be unknown": (
                SILENT, LISTEN + SERVER_FIRST, LISTEN + "deny = 192.0.2.1\n" + WEB, "deny",
            ),
            "deny of others": (CLIENT, web, LISTEN + "deny = 192.0.2.7\n" + WEB, None),
            "allow": (CLIENT, web, LISTEN + "allow = 192.0.2.7\n" + WEB, None),
            "not_from": (CLIENT, web, web.replace(route, f"{route}not_from = 192.0.2.1\n"), "not_from"),
            "not_from of what opens the TLS": (
                INNER, LISTEN + TLS + INSIDE,
                (LISTEN + TLS + INSIDE).replace("[route tls]\n", "[route tls]\nnot_from = 192.0.2.1\n"), "not_from",
            ),
            "not_from inside": (
                INNER, LISTEN + TLS + INSIDE,
                (LISTEN + TLS + INSIDE).replace(inner, f"{inner}not_from = 192.0.2.1\n"), "not_from",
            ),
            "from": (CLIENT, web, web.replace(route, f"{route}from = 192.0.2.7\n"), None),
            "not_from of another route": (
                CLIENT, web, LISTEN + "[route x]\nunder = *\nnot_from = 192.0.2.1\nmatch = ssh\nbackend = close\n" + WEB, None,
            ),
        }  # fmt: skip
        for case, (client, before, after, key) in rows.items():
            old, new = (Tracer(rules_of(text), has_answers=False) for text in (before, after))
            _, then = compared(old, new, old.rules.listeners[0], client)
            self.assertEqual(then.excluded_by, key, case)

    def test_listeners(self) -> None:
        """A client is its listener's while that keeps its endpoints, and else of whoever listens where it connected to."""
        same, gone = (WEB_TO, WEB_TO, True), (WEB_TO, NOBODY, False)
        proxy = "accept_proxy_from = 192.0.2.0/24\n"
        unknown = "where its proxy connects to: the listener has other endpoints then"
        here, six, unix = map(came_to, ("192.0.2.9:443", "[2001:db8::1]:443", "unix:/run/x"))
        self.assert_found({
            "one endpoint more": (here, at("192.0.2.9:443"), at("192.0.2.9:443\n  :80"), same),
            "elsewhere": (here, at("192.0.2.9:443"), at("192.0.2.9:80"), gone),
            "another address": (here, at("192.0.2.9:443"), at("192.0.2.8:443"), gone),
            "another name": (here, at("192.0.2.9:443"), at("192.0.2.9:443", name="y"), same),
            "any address": (here, at("192.0.2.9:443"), at(":443", name="y"), same),
            "any address of IPv4": (here, at("192.0.2.9:443"), at("0.0.0.0:443"), same),
            "IPv6 as well": (here, at("192.0.2.9:443"), at("[::]:443"), same),
            "IPv4 for a client of IPv6": (six, at("[2001:db8::1]:443"), at("0.0.0.0:443"), gone),
            "any address, of both families": (six, at("[2001:db8::1]:443"), at(":443"), same),
            "any address for it": (six, at("[2001:db8::1]:443"), at("[::]:443"), same),
            "several ports": (here, at("192.0.2.9:443"), at(":440-450"), same),
            "over UDP": (here, at("192.0.2.9:443"), at("192.0.2.9:80") + FLOW.replace(":53", ":443"), gone),
            "sockets of systemd, that may be anywhere": (
                here, at("192.0.2.9:443"), at("systemd:domain=INET:index=0"), same,
            ),
            "those of another listener": (here, at("192.0.2.9:443"), at("systemd:domain=INET:index=0", name="y"), gone),
            "no address": (unix, at("unix:/run/x"), at("unix:/run/y"), same),
            "no address, and another name": (unix, at("unix:/run/x"), at("unix:/run/x", name="y"), gone),
            "by a proxy, to the same endpoints": (
                came_to("198.51.100.1:443"), at("192.0.2.9:443", proxy), at("192.0.2.9:443", proxy, name="y"), same,
            ),
            "by a proxy, to others": (here, at("192.0.2.9:443", proxy), at("192.0.2.9:80", proxy), unknown),
            "by a proxy, without an address": (unix, at("unix:/run/x", proxy), at("unix:/run/y", proxy), unknown),
        })  # fmt: skip

    def test_unknown(self) -> None:
        """It is not known where a client goes by what it has not said, or was not asked for."""
        by_name = LISTEN + WEB.replace("http", "http host=a.test")
        begun = attrs.evolve(CLIENT, layers=(b"GET / ",))
        by_text = by_name.replace("http host=a.test", "payload text=GET")
        server_first = LISTEN + SERVER_FIRST
        first_says = "what it says first where the listener expects something else then"
        asked = "the certificate that route tls asks for"
        ca = LISTEN + TLS + "tls_client_ca = ca.pem\n"
        tls_to = "route tls, to 10.0.0.1:80"
        self.assert_found({
            "more bytes": (begun, by_text, by_name, "more than the 6 bytes remembered"),
            "more bytes, of which it is decided without": (
                begun, by_name, by_name.replace("a.test", "b.test"), (DEFAULT, DEFAULT, True),
            ),
            "fewer bytes": (begun, by_name, by_text, (DEFAULT, WEB_TO, False)),
            "served before it says anything, now": (
                SILENT, server_first, LISTEN + WEB, "what it says first: it is served before that now",
            ),
            "and then, too": (SILENT, server_first, server_first, ("default, to 10.0.0.1:80",) * 2 + (True,)),
            "served so now, but it has said something": (
                CLIENT, server_first, LISTEN + WEB, ("default, to 10.0.0.1:80", WEB_TO, True),
            ),
            "another first step": (CLIENT, LISTEN + WEB, LISTEN + "accept_proxy_from = 192.0.2.1\n" + WEB, first_says),
            "more of them remembered": (CLIENT, LISTEN + WEB, LISTEN + "remember = 9\n" + WEB, (WEB_TO, WEB_TO, True)),
            "inside TLS that ends then": (
                attrs.evolve(CLIENT, layers=(HELLO,)), LISTEN + WEB.replace("http", "tls"), LISTEN + TLS + INSIDE,
                "what is inside TLS that route tls opens",
            ),
            "a certificate": (INNER, LISTEN + TLS, ca, asked),
            "one of another authority": (INNER, ca, ca.replace("ca.pem", "b.pem"), asked),
            "the same": (INNER, ca, ca, (tls_to, tls_to, True)),
            "none any more": (INNER, ca, LISTEN + TLS, (tls_to, tls_to, True)),
            "one of TLS that was passed on": (INNER, LISTEN + WEB.replace("http", "tls"), ca, asked),
        })  # fmt: skip
