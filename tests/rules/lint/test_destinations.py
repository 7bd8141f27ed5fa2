"""Warnings about what an earlier route closes, and a later one leads to."""

from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.warnings import lint
from txmux.rules.optional import missing
from txmux.rules.reading.parser import parse

_LISTEN = "[listen public]\nendpoint = :443\nallow = 192.0.2.0/24\nmax_connections_per_source = 9\n"
_ADMIN = "[route admin]\nmatch = http host={}\n{}\n"
_REST = "[route rest]\nmatch = http\nbackend = by-name\n{}\n"
_BACKEND = (
    "[backend by-name]\nserver = {{host}}:80\nallow_names = {}\nallow_networks = 127.0.0.0/8\n{}\n"
)
_SOME = "from = 192.0.2.1\nbackend = 127.0.0.1:1"


def _said(*parts: str) -> list[str]:
    return [one.message for one in lint(parse("".join([_LISTEN, *parts]), "rules.ini"))]


class PassedRoutesTest(SynchronousTestCase):
    def test_what_an_earlier_route_closes(self) -> None:
        """A client comes there by another name of the address, or by another protocol."""
        for closed, how, allowed, more, is_passed in (
            ("127.0.0.2", "backend = reject", "127.*", "", True),
            ("127.0.0.2", _SOME, "*", "", True),
            ("[::ffff:127.0.0.2]", _SOME, "*", "", True),
            ("admin.test", _SOME, "*.test", "", True),
            ("*.admin.test", _SOME, "*.test, admin.test", "", True),
            ("127.0.0.2", "backend = 127.0.0.1:1", "127.*", "", False),
            ("127.0.0.2", _SOME, "127.*", "deny_networks = 127.0.0.2", False),
            ("127.0.0.2", _SOME, "127.*", "deny_networks = 127.0.0.3", True),
            ("10.0.0.2", _SOME, "*", "", False),
            ("127.0.0.2", _SOME, "127.0.0.3", "", False),
            ("admin.test", _SOME, "*.test", "deny_networks = 127.0.0.2", False),
            ("admin.test", _SOME, "*.test", "deny_names = admin.test", False),
            ("admin.test", f"{_SOME}\ndry_run = yes", "*.test", "", False),
        ):
            text = _ADMIN.format(closed, how), _REST.format(""), _BACKEND.format(allowed, more)
            found = "closes to some clients by host=" in str(_said(*text))
            self.assertEqual(found, is_passed, text)
        backend = _BACKEND.format("127.*", "")
        admin, rest = _ADMIN.format("127.0.0.2", _SOME), _REST.format("from = 192.0.2.1")
        for routes in (admin + rest, _REST.format("") + admin):
            self.assertNotIn("closes to some clients", str(_said(routes, backend)))
        said = str(_said("default = by-name\n", admin, backend))
        self.assertIn("[route admin] closes to some clients", said)

    def test_routes_inside_of_a_tunnel(self) -> None:
        if why := missing("tunnel"):
            raise SkipTest(why)
        admin = _ADMIN.format("127.0.0.2 method=CONNECT", f"tunnel = yes\n{_SOME}")
        rest = "[route rest]\nmatch = socks5\ntunnel = yes\n[route in]\nunder = rest\nmatch = any\nbackend = by-name\n"
        said = " ".join(_said(admin, rest, _BACKEND.format("127.*", "")))
        self.assertIn("'127.0.0.2', which [route admin] closes", said)
        self.assertIn("add 'deny_networks = 127.0.0.2'", said)

    def test_servers_that_believe_headers(self) -> None:
        web = "[route web]\nmatch = tls\nbackend = web\n[backend web]\nserver = {}\nproxy_protocol = v2\n"
        for server, allowed, more, is_found in (
            ("127.0.0.1:80", "127.*", "", True),
            ("[::ffff:127.0.0.1]:80", "*", "", True),
            ("127.0.0.1:81", "127.*", "", False),
            ("127.0.0.1:80", "127.0.0.2", "", False),
            ("127.0.0.1:80", "127.*", "deny_networks = 127.0.0.1", False),
            ("127.0.0.1:80", "127.*", "proxy_protocol = v1", False),
            ("10.0.0.1:80", "*", "", False),
        ):
            parts = web.format(server), _REST.format(""), _BACKEND.format(allowed, more)
            self.assertEqual("write a PROXY header to it" in str(_said(*parts)), is_found, parts)

    def test_server_that_reads_the_names_of_who_asked_for_tls_first(self) -> None:
        closed = "database=secret", "backend = reject"
        ours = "database=secret", f"from = 192.0.2.1\n{_WEB}"
        for (names, outcome), later, is_passed in (
            (closed, f"[route r]\nmatch = postgres\n{_WEB}", True),
            (closed, f"[route r]\nmatch = any\n{_WEB}", True),
            (closed, f"[route r]\nmatch = not tls\n{_WEB}", True),
            (closed, f"[route r]\nmatch = postgres sni=a.test\n{_WEB}", True),
            (closed, f"[route r]\nmatch = postgres user=*\n{_WEB}", False),
            (closed, f"[route r]\nmatch = http\n{_WEB}", False),
            (closed, "[route r]\nmatch = postgres\nbackend = reset\n", False),
            (("user=a", "backend = close"), f"[route r]\nmatch = postgres\n{_WEB}", True),
            (("sni=a.test", "backend = close"), f"[route r]\nmatch = postgres\n{_WEB}", False),
            (("user=a", _WEB), f"[route r]\nmatch = postgres\n{_WEB}", False),
            (ours, f"[route r]\nmatch = postgres\n{_WEB}", True),
            (ours, "[route r]\nmatch = postgres\nbackend = 127.0.0.1:81\n", False),
        ):
            guard = f"[route guard]\nmatch = postgres {names}\n{outcome}\n"
            self.assertEqual(len(self.found(guard, later)), is_passed, (guard, later))
        guard = "[route guard]\n{}match = postgres database=secret\nbackend = reject\n"
        ends = _END.format("tls", _WEB), guard.format("under = tls\n")
        for text in (("default = 127.0.0.1:80\n", guard.format("")), ends):
            (found,) = self.found(*text)
            self.assertIn("what [route guard] closes", found)

    def found(self, *parts: str) -> list[str]:
        return [one for one in _said(*parts) if "asks for TLS first" in one]

    def test_server_that_some_clients_reach_without_a_certificate(self) -> None:
        asked = "tls_client_ca = /etc/ca.pem\n"
        for public, secure, more, is_passed in (
            (_WEB, asked + _WEB, "", True),
            ("", asked + _WEB, _INNER.format("http"), True),
            ("", asked + _WEB, _INNER.format("http host=open.test"), False),
            (f"from = 192.0.2.1\n{_WEB}", asked + _WEB, "", False),
            (_WEB, f"{asked}backend = 127.0.0.1:81", "", False),
            (asked + _WEB, asked + _WEB, "", False),
            (_WEB, _WEB, "", False),
            (_WEB, f"{asked}tls_client = optional\n{_WEB}", "", False),
            (f"{asked}tls_client = optional\n{_WEB}", asked + _WEB, "", True),
        ):
            text = _END.format("secure", secure), _END.format("open", public), more
            found = [one for one in _said(*text) if "Host" in one]
            self.assertEqual(len(found), is_passed, text)
            for message in found:
                self.assertIn("127.0.0.1:80 also serves [route secure]", message)

    def test_server_that_a_route_inside_lets_nobody_reach_without_a_certificate(self) -> None:
        secure = "tls_client_ca = /etc/ca.pem\ntls_client = optional\nbackend = {}\n"
        inner = (
            "[route staff]\nunder = secure\nmatch = any\nclient_cert = {}\nbackend = 127.0.0.1:80\n"
        )
        for words, rest, public, is_passed in (
            ("any", "127.0.0.1:81", _WEB, True),
            ("san=alice", "127.0.0.1:81", _WEB, True),
            ("none", "127.0.0.1:81", _WEB, False),
            ("any", "127.0.0.1:80", "", False),
        ):
            text = _END.format("secure", secure.format(rest)), _END.format("open", public)
            found = [one for one in _said(*text, inner.format(words)) if "Host" in one]
            self.assertEqual(len(found), is_passed, (words, rest))
            for message in found:
                self.assertIn("127.0.0.1:80 also serves [route staff], which requires", message)
        # One that lets others in beside those of a route inside does so for the clients of another one, too.
        asked = _END.format("all", f"tls_client_ca = /etc/ca.pem\n{_WEB}")
        its = _END.format("secure", secure.format("127.0.0.1:80")), inner.format("any")
        (message,) = [one for one in _said(asked, *its) if "Host" in one]
        self.assertIn("127.0.0.1:80 also serves [route all], which requires", message)


_END = "[route {0}]\nmatch = tls sni={0}.test\nterminate_tls = /etc/{0}.pem\n{1}\n"
_WEB = "backend = 127.0.0.1:80"
_INNER = "[route inner]\nunder = open\nmatch = {}\nbackend = 127.0.0.1:80\n"
