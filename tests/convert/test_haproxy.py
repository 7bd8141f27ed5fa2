"""Tests of what is made of the TCP part of an ``haproxy.cfg``."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING
from unittest import SkipTest
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, rules_of
from tests.programs import require_program
from txmux.convert.writer import ConvertError
from txmux.rules.model import Backend, Refusal

if TYPE_CHECKING:
    from txmux.convert.formats import Conversion

_BACKENDS = """
backend a
    server a 127.0.0.1:1
backend b
    server b 127.0.0.1:2
"""


def frontend(*lines: str, bind: str = "bind 127.0.0.1:443") -> Conversion:
    """Convert a frontend, with two backends."""
    text = indent("\n".join([bind, *lines]), "    ")
    return converted(f"frontend f\n{text}\n{_BACKENDS}")


def backend(*lines: str, server: str = "server s 127.0.0.1:1") -> Conversion:
    """Convert a backend."""
    text = indent("\n".join([server, *lines]), "    ")
    return converted(f"frontend f\n    bind :443\n    default_backend x\nbackend x\n{text}\n")


def routes(*lines: str) -> list[tuple[list[str], str]]:
    """Give the ``match`` lines of each route, and where it leads."""
    return [
        (
            [alternative.text for alternative in route.alternatives],
            route.outcome.name if isinstance(route.outcome, Backend) else "close",
        )
        for route in rules_of(frontend(*lines)).routes
    ]


def matches(condition: str) -> list[str]:
    """Give the ``match`` lines that a condition becomes."""
    ((lines, _),) = routes(f"use_backend a if {condition}")
    return lines


class BindTests(SynchronousTestCase):
    """Where it listens."""

    def endpoints(self, bind: str) -> list[tuple[str, ...]]:
        return [listener.endpoints for listener in rules_of(frontend(bind=bind)).listeners]

    def test_addresses(self) -> None:
        """Each form of an address means the same in txmux."""
        for bind, endpoint in (
            (":443", "0.0.0.0:443"),
            ("*:443", "0.0.0.0:443"),
            ("192.0.2.1:443", "192.0.2.1:443"),
            ("ipv4@192.0.2.1:443", "192.0.2.1:443"),
            (":::443", "[::]:443"),
            ("[::]:443 v6only", "[::]:443"),
            (":::443 v4v6", ":443"),
            ("ipv6@:443 v4v6", ":443"),
            ("2001:db8::1:443", "[2001:db8::1]:443"),
            ("/run/x.sock mode 660", "unix:/run/x.sock"),
            ("unix@/run/x.sock", "unix:/run/x.sock"),
        ):
            self.assertEqual(self.endpoints(f"bind {bind}"), [(endpoint,)])

    def test_several(self) -> None:
        """Several addresses of a line, and several lines, are one listener."""
        self.assertEqual(
            self.endpoints("bind 127.0.0.1:1,127.0.0.1:2\n    bind 127.0.0.1:3"),
            [("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")],
        )

    def test_old_form(self) -> None:
        """An address may stand beside the name."""
        found = converted("listen x 127.0.0.1:1\n    server s 127.0.0.1:2\n")
        self.assertEqual(rules_of(found).listeners[0].endpoints, ("127.0.0.1:1",))

    def test_refused(self) -> None:
        """Ranges of ports and inherited sockets become comments."""
        for bind in ("127.0.0.1:1-9", "fd@3", "abns@x:1"):
            found = frontend(bind=f"bind 127.0.0.1:1\n    bind {bind}")
            self.assertEqual(rules_of(found).listeners[0].endpoints, ("127.0.0.1:1",))
            self.assertTrue(found.warnings[0].startswith("x.cfg:3: endpoint = "), found.warnings)

    def test_tls(self) -> None:
        """A place where TLS ends is left out."""
        found = frontend(bind="bind 127.0.0.1:1\n    bind :443 name ssl\n    bind :444 ssl crt /x")
        self.assertEqual(rules_of(found).listeners[0].endpoints, ("127.0.0.1:1", "0.0.0.0:443"))
        self.assertIn("x.cfg:4: bind :444 ssl crt /x: is left out", found.warnings[0])

    def test_accept_proxy(self) -> None:
        """Where PROXY headers are expected is a listener of its own, with the key that is to come."""
        found = frontend(
            bind="bind 127.0.0.1:1\n    bind 127.0.0.1:2 accept-proxy",
        )
        self.assertEqual(len(rules_of(found).listeners), 2)
        self.assertIn("accept_proxy_from = 0.0.0.0/0, ::/0: not supported yet", found.text)

    def test_parameters(self) -> None:
        """Limits are kept, and what has no counterpart is a warning."""
        found = frontend(bind="bind 127.0.0.1:1 maxconn 9 backlog 8 tfo interface eth0")
        listener = rules_of(found).listeners[0]
        self.assertEqual((listener.max_connections, listener.backlog), (9, 8))
        self.assertIn("no counterpart of tfo, interface", found.warnings[0])

    def test_nowhere(self) -> None:
        """A frontend without a listener is left out, and if it is the only one there is nothing."""
        self.assertRaises(ConvertError, frontend, bind="bind :443 ssl crt /x")
        found = converted("frontend f\n    bind :1 ssl\nlisten g\n    bind :2\n")
        self.assertEqual([one.name for one in rules_of(found).listeners], ["g"])


class AclTests(SynchronousTestCase):
    """What a client has to say."""

    def test_payload(self) -> None:
        """Bytes at a place, as hex digits or text."""
        for test, lines in (
            ("req.payload(0,3) -m bin 474554 504f53", ["payload hex=474554", "payload hex=504f53"]),
            ("req.payload(0,3) 474554", ["payload hex=474554"]),
            ("payload(4,2) -m bin ffFE", ["payload offset=4 hex=fffe"]),
            ("req.payload(0,4) -m str SSH-", ["payload hex=5353482d"]),
            ("req.payload(0,9) -m beg SSH-", ["payload hex=5353482d"]),
            ("req.payload(0,0) -m beg SSH-", ["payload hex=5353482d"]),
            ("req.payload(0,9) -m end ab", ["payload offset=7 hex=6162"]),
            ("req.payload(0,2),hex -m str 4745", ["payload hex=4745"]),
            ("req.payload(0,4) -m beg -i get", ["regex pattern=(?i:get) within=3"]),
            ("req.payload(0,4),lower -m beg get", ["regex pattern=(?i:get) within=3"]),
            ("req.payload(2,4) -m found", ["regex pattern=(?s:.{2})(?s:.{4}) within=6"]),
            ("req.payload(0,64) -m sub jabber", ["regex pattern=(?s:.*)(?:jabber) within=64"]),
            ("req.payload(0,64) -m reg ^a|b", ["regex pattern=(?s:.*)(?:^a|b) within=64"]),
            ("req.payload(0,0) -m reg -i ^a\\.", ["regex pattern=(?i:^a\\.) within=256"]),
            ("req.payload(4,9) -m reg ^a", ["regex pattern=(?s:.{4})a within=13"]),
        ):
            self.assertEqual(matches(f"{{ {test} }}"), lines, test)

    def test_tls(self) -> None:
        """What a ClientHello has in it."""
        for test, lines in (
            ("req_ssl_hello_type 1", ["tls"]),
            ("req.ssl_hello_type 1", ["tls"]),
            ("req_ssl_ver gt 3", ["tls version=1.0,1.1,1.2,1.3"]),
            ("req.ssl_ver ge 3", ["tls"]),
            ("req.ssl_ver 3.1", ["tls version=1.0"]),
            ("req.ssl_ver 3:3.1", ["tls version=ssl3,1.0"]),
            ("req.ssl_ver le 3.0", ["tls version=ssl3"]),
            ("req.ssl_ver lt 3.2", ["tls version=ssl3,1.0"]),
            ("req.ssl_ver 3.3:", ["tls version=1.2,1.3"]),
            ("req.ssl_sni a.example b.example", ["tls sni=a.example,b.example"]),
            ("req_ssl_sni -i a.example", ["tls sni=a.example"]),
            ("req.ssl_sni,lower -m str a.example", ["tls sni=a.example"]),
            ("req.ssl_sni -m end .example", ["tls sni=*.example"]),
            ("req.ssl_sni -m beg www.", ["tls sni=www.*"]),
            ("req.ssl_sni -m sub x", ["tls sni=*x*"]),
            ("req.ssl_sni -m dom x", ["tls sni=x,*.x,x.*,*.x.*"]),
            ("req.ssl_sni -m found", ["tls sni=*"]),
            ("req.ssl_sni -m reg ^a\\.b$", ["tls sni=~^a\\.b"]),
            ("req.ssl_sni -m reg -i ^a$|b", ["tls sni=~^a", "tls sni=~(?s:.*)(?:b)(?s:.*)"]),
            ("req.ssl_alpn h2 -m", ["tls alpn=h2,-m"]),
            ("req.ssl_alpn -i -- h2", ["tls alpn=~(?i:h2)"]),
        ):
            self.assertEqual(matches(f"{{ {test} }}"), lines, test)

    def test_others(self) -> None:
        """Lengths, HTTP, RDP and what HAProxy has names for."""
        for test, lines in (
            ("{ req.len gt 0 }", ["any"]),
            ("{ req_len ge 3 }", ["regex pattern=(?s:.{3}) within=3"]),
            ("{ req.proto_http }", ["http"]),
            ("HTTP", ["http"]),
            ("METH_GET", ["http method=GET,HEAD"]),
            ("REQ_CONTENT", ["any"]),
            ("RDP_COOKIE", ["rdp cookie=*"]),
            ("{ req.rdp_cookie_cnt gt 0 }", ["rdp cookie=*"]),
            ("{ hdr(host) -i x.example }", ["http host=x.example"]),
            ("{ req.hdr(Host) -m beg x }", ["http host=x*"]),
            ("{ path_beg /a /b }", ["http path=/a*,/b*"]),
        ):
            self.assertEqual(matches(test), lines, test)

    def test_no_counterpart(self) -> None:
        """What has no counterpart is a comment and a warning, and nobody is led there."""
        for test in (
            "nbsrv(x) lt 2",
            "req.ssl_sni -f /names",
            "req.ssl_sni,field(1,.) -m str x",
            "req.ssl_sni -m len 3",
            "req.ssl_sni *.example",
            "req.ssl_sni -m reg (?!a)b",
            "req.ssl_ver x",
            "req.len 0",
            "req.len lt 5",
            "req.payload(0,0) -m bin 16",
            "req.payload(x) -m bin 16",
            "req.payload(0,1) -m bin 1",
            "req.payload(0,1) -m dom x",
            "req.payload(0,1),base64 -m str x",
            "req.payload(0,1),hex -m sub 16",
            "req.payload(4,9) -m reg a|^b",
            "req.payload(0,9) -m reg a$",
            "src no-network",
            "src -f /networks",
            "hdr(cookie) x",
            "(",
        ):
            found = frontend(f"use_backend a if {{ {test} }}")
            self.assertEqual(rules_of(found).routes, (), test)
            self.assertTrue(found.warnings[0].startswith("x.cfg:3: use_backend a if {"), test)
            self.assertIn("# line 3: use_backend a if {", found.text)

    def test_never(self) -> None:
        """What can never be true leads nobody anywhere."""
        for test in (
            "FALSE",
            "{ always_false }",
            "{ req.ssl_hello_type 2 }",
            "{ req.ssl_ver 9 }",
            "{ req.payload(0,1) -m bin 1616 }",
            "{ req.payload(0,3) -m str ab }",
            "{ src 10.0.0.0/8 } { src 192.0.2.1 }",
        ):
            self.assertEqual(routes(f"use_backend a if {test}"), [], test)


class ConditionTests(SynchronousTestCase):
    """How tests are put together."""

    def test_named(self) -> None:
        """Several ACLs of one name are alternatives."""
        lines = ("acl x req.payload(0,1) -m bin 16", "acl x req.payload(0,1) -m bin 05")
        self.assertEqual(
            routes(*lines, "use_backend a if x"), [(["payload hex=16", "payload hex=05"], "a")]
        )

    def test_or(self) -> None:
        """``or`` gives several lines."""
        for word in ("or", "||"):
            self.assertEqual(matches(f"HTTP {word} {{ req_ssl_hello_type 1 }}"), ["http", "tls"])

    def test_and(self) -> None:
        """Options of one matcher are put together, and of equal or longer bytes the longer are left."""
        for test, lines in (
            (
                "{ req_ssl_hello_type 1 } { req_ssl_sni a } { req.ssl_alpn h2 } { req_ssl_ver 3.1 }",
                ["tls sni=a alpn=h2 version=1.0"],
            ),
            ("HTTP HTTP", ["http"]),
            ("TRUE HTTP", ["http"]),
            ("{ req.len gt 0 } HTTP", ["http"]),
            ("{ req.payload(0,1) 16 } { req.payload(0,2) 1603 }", ["payload hex=1603"]),
            ("{ req.payload(0,2) 1603 } { req.payload(0,1) 16 }", ["payload hex=1603"]),
        ):
            self.assertEqual(matches(test), lines)

    def test_contradiction(self) -> None:
        """Bytes that differ are never both there."""
        test = "{ req.payload(0,1) 16 } { req.payload(0,1) 17 }"
        self.assertEqual(routes(f"use_backend a if {test}"), [])

    def test_not(self) -> None:
        """``!`` and ``unless`` turn a test around."""
        self.assertEqual(matches("!HTTP"), ["not http"])
        self.assertEqual(matches("!{ req_ssl_sni a b }"), ["not tls sni=a,b"])
        self.assertEqual(matches("!! HTTP"), ["http"])
        found = frontend("use_backend a unless !{ src 10.0.0.1 }")
        self.assertIn("match = any\nfrom = 10.0.0.1/32\n", found.text)
        self.assertEqual(routes("use_backend a unless HTTP"), [(["not http"], "a")])

    def test_networks(self) -> None:
        """Addresses of clients become ``from`` and ``not_from``."""
        found = frontend(
            "acl lan src 10.1.2.3/8 192.168.1 127.1/8 2001:db8::/32",
            "use_backend a if HTTP lan",
            "use_backend b if HTTP !lan",
            "use_backend b if HTTP lan { src 10.5.0.0/255.255.0.0 }",
            "use_backend a if !HTTP !lan or HTTP",
            "use_backend a unless lan HTTP",
        )
        self.assertEqual(len(rules_of(found).routes), 7)
        sections = found.text.partition("[route a]")[2]
        networks = "10.0.0.0/8\n    127.0.0.0/8\n    192.168.0.1/32\n    2001:db8::/32"
        self.assertIn(f"match = http\nfrom = {networks}\n", sections)
        self.assertIn(f"match = http\nnot_from = {networks}\n", sections)
        self.assertIn("match = http\nfrom = 10.5.0.0/16\n", sections)
        self.assertIn(f"match = not http\nnot_from = {networks}\n", sections)

    def test_silent_clients(self) -> None:
        """That a silent client is led by ``silent`` only is told."""
        found = frontend("use_backend a if { src 10.0.0.0/8 }")
        self.assertIn("match = any\nfrom = 10.0.0.0/8\n", found.text)
        self.assertIn("a client that says nothing is led by silent", found.warnings[0])

    def test_no_counterpart(self) -> None:
        """Two matchers at once, and a client that says nothing, have no counterpart."""
        many = " or ".join(f"{{ req.payload(0,1) {n:02x} }}" for n in range(9))
        for test in (
            "HTTP { req_ssl_hello_type 1 }",
            "HTTP !{ path_beg /x }",
            "!{ req.len gt 0 }",
            "!{ req.payload(0,1) 16 17 }",
            "x",
            "",
            "HTTP or",
        ):
            found = frontend(f"use_backend a if {test}")
            self.assertEqual(rules_of(found).routes, (), test)
            self.assertIn("is left out: ", found.warnings[0])
        lines = [f"acl x {test[2:-2]}" for test in many.split(" or ")]
        self.assertIn(
            "too many",
            frontend(
                *lines, *(line.replace(" x ", " y ") for line in lines), "use_backend a if x y"
            ).warnings[0],
        )

    def test_broken_name(self) -> None:
        """An ACL without a counterpart is told where it is used."""
        found = frontend("acl x nbsrv lt 2", "acl x src a", "acl x src ::1", "use_backend a if x")
        self.assertIn("acl x: nbsrv has no counterpart", found.warnings[0])

    def test_no_condition(self) -> None:
        """Another word than ``if`` and ``unless`` is none."""
        self.assertIn("is no condition", frontend("use_backend a when HTTP").warnings[0])


class DecisionTests(SynchronousTestCase):
    """Who is led where."""

    def test_default(self) -> None:
        """The default backend has silent clients, too."""
        listener = rules_of(frontend("default_backend a")).listeners[0]
        for outcome in (listener.silent, listener.default):
            assert isinstance(outcome, Backend)
            self.assertEqual(outcome.name, "a")

    def test_unconditional(self) -> None:
        """A ``use_backend`` without a condition ends the list."""
        found = frontend("use_backend a if HTTP", "use_backend b", "default_backend a")
        self.assertIn("default = b\n", found.text)

    def test_unknown_backend(self) -> None:
        """A backend that is not there is told."""
        for line in ("default_backend x", "use_backend x if HTTP", "use_backend %[req.ssl_sni]"):
            self.assertIn("there is no backend", frontend(line).warnings[0])

    def test_delay(self) -> None:
        """The inspection delay is ``detect_timeout``; without any route nobody waits."""
        self.assertEqual(
            rules_of(frontend("tcp-request inspect-delay 3s")).listeners[0].detect_timeout, 3
        )
        self.assertEqual(
            rules_of(frontend("tcp-request inspect-delay 1500")).listeners[0].detect_timeout, 1.5
        )
        self.assertEqual(rules_of(frontend("default_backend a")).listeners[0].detect_timeout, 0.001)
        self.assertEqual(rules_of(frontend("use_backend a if HTTP")).listeners[0].detect_timeout, 5)

    def test_accepted(self) -> None:
        """To accept only ends the waiting, which routes do by themselves."""
        found = frontend("tcp-request content accept if HTTP", "use_backend a if HTTP")
        self.assertEqual((len(rules_of(found).routes), found.warnings), (1, ()))

    def test_rejected(self) -> None:
        """Who is rejected has a route that closes, before all others."""
        self.assertEqual(
            routes(
                "tcp-request content reject if !HTTP", "use_backend a if HTTP", "default_backend b"
            ),
            [(["not http"], "close"), (["http"], "a")],
        )

    def test_all_others_rejected(self) -> None:
        """If all others are rejected, who is accepted has routes, and the default is to close."""
        lines = (
            "tcp-request content accept if { req_ssl_hello_type 1 }",
            "tcp-request content accept if { req.payload(0,1) 16 }",
            "tcp-request content reject",
            "use_backend a if { req_ssl_sni x }",
            "default_backend b",
        )
        self.assertEqual(
            routes(*lines),
            [(["tls sni=x"], "a"), (["tls"], "b"), (["payload hex=16"], "b")],
        )
        listener = rules_of(frontend(*lines)).listeners[0]
        self.assertEqual((listener.silent, listener.default), (Refusal.CLOSE, Refusal.CLOSE))

    def test_accepted_before(self) -> None:
        """Who is accepted is not asked by what rejects later."""
        self.assertEqual(
            routes(
                "tcp-request content accept if HTTP",
                "tcp-request content reject if { req_ssl_hello_type 1 }",
                "tcp-request content accept",
                "default_backend b",
            ),
            [(["http"], "b"), (["tls"], "close")],
        )
        self.assertEqual(
            routes(
                "tcp-request content accept",
                "tcp-request content reject if HTTP",
                "default_backend b",
            ),
            [(["any"], "b")],
        )

    def test_lost_rejection(self) -> None:
        """That a client now comes in who was kept out is told."""
        for line in (
            "tcp-request content reject if { nbsrv(x) lt 2 }",
            "tcp-request content reject if { req.payload(0,9) -m reg a$ }",
            "tcp-request connection reject if { nbsrv(x) lt 2 }",
            "tcp-request connection reject if HTTP",
            "tcp-request connection reject",
            "tcp-request connection reject if !{ src 10.0.0.1 } or !{ src 10.0.0.2 }",
        ):
            self.assertIn("the clients that it keeps out come in", frontend(line).warnings[0], line)

    def networks(self, *lines: str) -> tuple[str, ...]:
        text = frontend(*lines).text
        return tuple(line for line in text.splitlines() if line.startswith(("allow", "deny")))

    def test_connection_rules(self) -> None:
        """Rules for addresses become ``allow`` and ``deny``."""
        deny = "tcp-request connection reject if { src 10.0.0.0/8 }"
        self.assertEqual(self.networks(deny), ("deny = 10.0.0.0/8",))
        only = "tcp-request connection reject if !{ src 10.0.0.0/8 }"
        self.assertEqual(self.networks(only), ("allow = 10.0.0.0/8",))
        both = "tcp-request connection accept if { src 10.0.0.0/8 }"
        self.assertEqual(self.networks(both, "tcp-request session reject"), ("allow = 10.0.0.0/8",))
        self.assertEqual(self.networks("tcp-request connection accept", deny), ())
        found = frontend(only, only.replace("10.", "11."))
        self.assertIn("allow has the networks of another rule", found.warnings[0])

    def test_expect_proxy(self) -> None:
        """Where a header is expected from some networks only, so says the key that is to come."""
        found = frontend("tcp-request connection expect-proxy layer4 if { src 10.0.0.0/8 }")
        self.assertIn("accept_proxy_from = 10.0.0.0/8: not supported yet", found.text)

    def test_under(self) -> None:
        """With several frontends, each route belongs to the listeners of its own."""
        found = converted(
            "frontend f\n    bind 127.0.0.1:1\n    bind 127.0.0.1:2 accept-proxy\n    use_backend a if HTTP\n"
            f"frontend g\n    bind 127.0.0.1:3\n    use_backend b if HTTP\n{_BACKENDS}"
        )
        self.assertEqual([route.under for route in rules_of(found).routes], [("f", "f-2"), ("g",)])


class BackendTests(SynchronousTestCase):
    """Where it connects."""

    def only(self, *lines: str, server: str = "server s 127.0.0.1:1") -> Backend:
        (found,) = rules_of(backend(*lines, server=server)).backends.values()
        return found

    def test_servers(self) -> None:
        """Each form of a server's address."""
        for given_as, text in (
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("ipv4@127.0.0.1:1", "127.0.0.1:1"),
            ("db.example:1", "db.example:1"),
            ("[::1]:1", "[::1]:1"),
            ("2001:db8::1:1", "[2001:db8::1]:1"),
            ("unix@/run/x.sock", "unix:/run/x.sock"),
            ("/run/x.sock", "unix:/run/x.sock"),
        ):
            found = self.only(server=f"server s {given_as}")
            self.assertEqual([server.text for server in found.servers], [text])

    def test_left_out(self) -> None:
        """A server that txmux cannot have is left out."""
        for server in (
            "127.0.0.1",
            "127.0.0.1:+1",
            "127.0.0.1:1 ssl verify none",
            "127.0.0.1:1 socks4 127.0.0.1:2",
            "127.0.0.1:1 disabled",
            "abns@x:1",
        ):
            found = backend(f"server t {server}")
            self.assertEqual(len(rules_of(found).backends["x"].servers), 1)
            self.assertIn(f"# line 6: server t {server}: is left out; ", found.text)

    def test_proxy_protocol(self) -> None:
        """Which PROXY header the servers get."""
        for parameter, version in (
            ("", "off"),
            ("send-proxy", "v1"),
            ("send-proxy-v2", "v2"),
            ("send-proxy-v2-ssl", "v2"),
            ("no-send-proxy", "off"),
        ):
            server = f"default-server {parameter}\n    server s 127.0.0.1:1"
            self.assertEqual(self.only(server=server).proxy_protocol, version)

    def test_mixed_headers(self) -> None:
        """Of servers that differ in it, those like the first are kept."""
        found = backend("server t 127.0.0.1:2 send-proxy", "server u 127.0.0.1:3")
        self.assertEqual(len(rules_of(found).backends["x"].servers), 2)
        self.assertIn("servers of a [backend] get the same PROXY header", found.text)

    def test_not_yet(self) -> None:
        """What txmux has a key for, but not yet, is a comment with that key."""
        for server, lines, comment in (
            ("check inter 2s rise 3 fall 4", (), "check = tcp interval=2s rise=3 fall=4"),
            ("check", ("option httpchk GET /h",), "check = http path=/h"),
            ("check", ("option httpchk",), "check = http"),
            ("check", ("option redis-check",), "check = redis"),
            ("check", ("option ssl-hello-chk",), "check = tcp"),
            ("weight 3", (), "server = 127.0.0.1:1 weight=3"),
            ("maxconn 3", (), "server = 127.0.0.1:1 max_connections=3"),
            ("backup", (), "server = 127.0.0.1:1 backup"),
            ("", ("source 10.0.0.1",), "source = 10.0.0.1"),
            ("", ("source 0.0.0.0 usesrc clientip",), "source = client"),
            ("source 10.0.0.1:0", (), "source = 10.0.0.1"),
            ("source 0.0.0.0 usesrc client", (), "source = client"),
            ("", ("balance source", "server t 127.0.0.1:2"), "balance = source-hash"),
            ("", ("server t 127.0.0.1:2",), "balance = round-robin"),
            ("", ("balance hash(x)", "server t 127.0.0.1:2"), "balance = hash"),
            ("", ("timeout queue 3s",), "queue_timeout = 3s"),
        ):
            found = backend(*lines, server=f"server s 127.0.0.1:1 {server}")
            self.assertIn(f": {comment}: ", found.text)
            self.assertIn("not supported yet", found.warnings[0])

    def test_words_after_the_server(self) -> None:
        """As soon as they are taken, they stand after the server."""
        with patch("txmux.rules.endpoints.server"):
            found = backend(server="server s 127.0.0.1:1 weight 3 maxconn 4 backup disabled")
        line = "server = 127.0.0.1:1 weight=3 max_connections=4 backup down"
        self.assertIn(line, found.text)

    def test_no_server(self) -> None:
        """A backend without servers is left out."""
        found = converted("frontend f\n    bind :1\n    default_backend x\nbackend x\n")
        self.assertIn("x.cfg:4: [backend x] is left out: it has no server", found.warnings)

    def test_no_counterpart(self) -> None:
        """Parameters without a counterpart are told by name."""
        found = backend(server="server s 127.0.0.1:1 cookie x slowstart 5s")
        self.assertIn("127.0.0.1:1: no counterpart of cookie, slowstart", found.warnings[0])

    def test_times(self) -> None:
        """Timeouts, also of the frontend; the shorter one of a pair counts, and that of tunnels before them."""
        found = converted(
            "defaults\n    timeout connect 4s\n    timeout client 1m\n    timeout client-fin 9s\n"
            "listen x\n    bind :1\n    server s 127.0.0.1:1\n    timeout server 50s\n    retries 7\n"
            "listen y\n    bind :2\n    server s 127.0.0.1:1\n    timeout server 50s\n    timeout tunnel 1h\n"
        )
        x, y = rules_of(found).backends.values()
        self.assertEqual(
            (x.connect_timeout, x.idle_timeout, x.half_close_timeout, x.retries), (4, 50, 9, 7)
        )
        self.assertEqual((y.idle_timeout, found.warnings), (3600, ()))

    def test_bad_times(self) -> None:
        """A time that cannot be is a comment."""
        found = backend("timeout connect 0", "timeout server forever")
        self.assertEqual(len(found.warnings), 2)

    def test_microseconds(self) -> None:
        """Fractions of a millisecond are one."""
        self.assertEqual(self.only("timeout connect 100us").connect_timeout, 0.001)


class FileTests(SynchronousTestCase):
    """Whole files."""

    def test_global(self) -> None:
        """The limit of connections is kept, the rest has no counterpart."""
        found = converted("global\n    maxconn 9\n    daemon\nlisten x\n    bind :1\n")
        self.assertEqual(rules_of(found).settings.max_connections, 9)
        self.assertEqual(
            found.warnings, ("x.cfg:3: daemon: has no counterpart; see 'Run as a service'",)
        )

    def test_listener_keys(self) -> None:
        """So are the limits of a frontend."""
        listener = rules_of(frontend("maxconn 7", "backlog 8")).listeners[0]
        self.assertEqual((listener.max_connections, listener.backlog), (7, 8))

    def test_backend_of_another_mode(self) -> None:
        """A backend that a frontend leads to is converted, whatever its mode; another one is left out."""
        found = converted(
            "frontend f\n    bind :1\n    default_backend x\n"
            "backend x\n    mode http\n    server s 127.0.0.1:1\nbackend y\n    mode http\n"
        )
        self.assertEqual(list(rules_of(found).backends), ["x"])
        self.assertEqual(found.warnings, ("x.cfg:7: backend y: is left out; mode http",))

    def test_other_modes(self) -> None:
        """What speaks HTTP, or is disabled, is left out."""
        found = converted(
            "listen x\n    bind :1\nlisten y\n    mode http\nlisten z\n    disabled\n"
        )
        self.assertEqual(
            found.warnings,
            (
                "x.cfg:3: listen y: is left out; mode http",
                "x.cfg:5: listen z: is left out; it is disabled",
            ),
        )
        error = self.assertRaises(
            ConvertError, converted, "defaults\n    mode http\nlisten x\n    bind :1"
        )
        self.assertIn("no frontend or listen in mode tcp", str(error))

    def test_defaults(self) -> None:
        """A proxy has the defaults above it, or those it names."""
        found = converted(
            "defaults one\n    maxconn 1\ndefaults two from one\n    backlog 2\n"
            "listen x from one\n    bind :1\nlisten y\n    bind :2\n"
        )
        x, y = rules_of(found).listeners
        self.assertEqual(
            (x.max_connections, x.backlog, y.max_connections, y.backlog), (1, 1024, 1, 2)
        )

    def test_rest(self) -> None:
        """Whatever else there is has no counterpart, and is told once."""
        found = converted(
            "defaults\n    log global\n    option splice-auto\nlisten x\n    bind :1\n    stick on src\nlisten y\n    bind :2\n"
            "peers p\n    peer a 127.0.0.1:1\n"
        )
        self.assertEqual(
            [warning.partition(": ")[0] for warning in found.warnings],
            ["x.cfg:2", "x.cfg:6", "x.cfg:9"],
        )

    def test_listener_left_out(self) -> None:
        """A route of a listener that is left out is left out, too, lest it serve the others."""
        found = converted(
            "frontend f\n    bind 127.0.0.1:1\n    use_backend a if HTTP\n"
            f"frontend g\n    bind fd@3\n    use_backend b if HTTP\n{_BACKENDS}"
        )
        self.assertEqual([route.name for route in rules_of(found).routes], ["a"])
        self.assertIn("# [route b]\n", found.text)
        self.assertTrue(any("it would serve more clients" in one for one in found.warnings))

    def test_words(self) -> None:
        """Words are quoted and escaped as HAProxy has it."""
        for test, line in (
            (r"a\ b", "payload hex=612062"),
            ('"a b"', "payload hex=612062"),
            ("'a b'", "payload hex=612062"),
            (r'"a\"b"', "payload hex=612262"),
            (r"a\x20b", "payload hex=612062"),
            (r"a\nb", "payload hex=610a62"),
            (r"a\#b # comment", "payload hex=612362"),
        ):
            found = frontend(f"acl x req.payload(0,3) -m str {test}", "use_backend a if x")
            self.assertEqual(rules_of(found).routes[0].alternatives[0].text, line)

    def test_no_section(self) -> None:
        """A line before any section is a clear error."""
        error = self.assertRaises(ConvertError, converted, "bind :1", "haproxy")
        self.assertIn("x.cfg:1: 'bind' stands before the first section", str(error))

    def test_measured_setup(self) -> None:
        """A file that tells three protocols apart by their first bytes."""
        found = converted(
            """
            global
                nbthread 1
            defaults
                mode tcp
                timeout connect 5s
                timeout client 60s
                timeout server 60s
            frontend port
                bind 127.0.0.1:8443
                option splice-auto
                tcp-request inspect-delay 5s
                acl ssh req.payload(0,3) -m bin 535348
                acl web req.payload(0,3) -m bin 474554 504f53 484541
                acl cache req.payload(0,1) -m bin 2a
                tcp-request content accept if ssh
                tcp-request content accept if web
                tcp-request content accept if cache
                tcp-request content accept if { req.len gt 0 }
                use_backend h if web
                use_backend r if cache
                default_backend i
            backend h
                server s 127.0.0.1:80
            backend r
                server s 127.0.0.1:6379
            backend i
                server s 127.0.0.1:5201
            """
        )
        rules = rules_of(found)
        self.assertEqual([route.name for route in rules.routes], ["h", "r"])
        self.assertEqual(len(found.warnings), 1)

    def test_shipped_examples(self) -> None:
        """Of the examples that come with HAProxy, those for TCP become rules, and the others a clear error."""
        require_program("haproxy")
        folder = Path("/usr/share/doc/haproxy/examples")
        files = [*folder.glob("*.cfg"), Path("/etc/haproxy/haproxy.cfg")]
        if not folder.exists():
            raise SkipTest("the package has no examples")
        made = set()
        for file in files:
            if not file.exists():
                continue
            try:
                converted(file.read_bytes(), name=file.name)
                made.add(file.name)
            except ConvertError as error:
                self.assertIn("no frontend or listen in mode tcp", str(error))
        self.assertEqual(made, {"socks4.cfg", "transparent_proxy.cfg"})

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever is in the file, nothing comes but the clear error."""
        attempt(f"listen x\n bind :1\n {text}", "haproxy")
        attempt(text, "haproxy")

    @given(
        st.lists(
            st.sampled_from(
                "\n,listen,frontend,backend,defaults,global,x,bind,:1,127.0.0.1:2,ssl,server,use_backend,default_backend,if,unless,or,!,{,},acl,HTTP,src,10.0.0.0/8,req.payload(0\\,2),-m,-i,reg,bin,1603,^a$,req_ssl_sni,req.ssl_ver,req.len,gt,0,tcp-request,connection,content,session,reject,accept,inspect-delay,expect-proxy,mode,tcp,timeout,client,check,source,usesrc,weight,send-proxy,option,httpchk,balance,retries,maxconn,from,disabled".replace(
                    "\\,", ";"
                ).split(",")
            )
        )
    )
    def test_any_words(self, words: list[str]) -> None:
        """The same for texts that are nearly right."""
        text = " ".join(words).replace(";", ",")
        for start in (
            "",
            "listen x\n bind :1\n ",
            "listen x\n bind :1\n server a 127.0.0.1:9\n tcp-request ",
        ):
            attempt(start + text, "haproxy")
