from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from txmux.rules.model import Backend
from txmux_convert.formats import Conversion
from txmux_convert.writer import ConvertError

_PIECES = (
    *("listener 443 {", "listen 1.2.3.4 80 {\n", "}", "\n", "table {", "table t {", "proto http\n"),
    *("fallback 1.2.3.4:5\n", "source client\n", "a.example *:1 2\n", ".* *\n", "\\\\.b\\.c [::1]"),
    *('"', "#", ";", "resolver {", "nameserver ::1\n", "user x\n", "^(a|$ 1.1.1.1\n", "("),
)


def _sniproxy(text: str) -> Conversion:
    return converted(text, "sniproxy")


def _backend(entry: str, more: str = "") -> Backend:
    output = _sniproxy(f"listener 1.2.3.4:443 {{\n{more}\n}}\ntable {{\n{entry}\n}}\n")
    (backend,) = rules_of(output).backends.values()
    return backend


class SniproxyTests(SynchronousTestCase):
    def test_addresses_to_listen_on(self) -> None:
        for text, endpoint in (
            ("80", ":80"), ("[::]:80", ":80"), ("[::]:80 { ipv6_v6only yes;", "[::]:80"),
            ("0.0.0.0 80", "0.0.0.0:80"), ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"), ("192.0.2.1 { proto http;", "192.0.2.1:80"),
            ("::1 { proto tls;", "[::1]:443"), ("unix:/run/s.sock", "unix:/run/s.sock"),
        ):  # fmt: skip
            block = "" if "{" in text else "{"
            output = _sniproxy(f"listener {text} {block}\n}}\ntable {{\na 192.0.2.7:9\n}}\n")
            self.assertEqual(rules_of(output).listeners[0].endpoints, (endpoint,), text)

    def test_addresses_of_servers(self) -> None:
        for text, place in (
            ("192.0.2.1", "192.0.2.1:443"), ("192.0.2.1:80", "192.0.2.1:80"),
            ("192.0.2.1 80", "192.0.2.1:80"), ("2001:db8::1", "[2001:db8::1]:443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"), ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("*", "{sni}:443"), ("*:8443", "{sni}:8443"),
        ):  # fmt: skip
            backend = _backend(f"a {text} proxy_protocol")
            self.assertEqual((backend.servers[0].text, backend.proxy_protocol), (place, "v1"))
        self.assertEqual(_backend("a web.example").balance, "first")

    def test_process_and_logs(self) -> None:
        output = _sniproxy(
            """\
            user daemon; group adm
            pidfile "/run/x"
            error_log { syslog daemon; priority notice }
            access_log {
                filename /var/log/x
            }
            resolver { nameserver 192.0.2.53; nameserver ::1 }
            l 443 {
                bad_requests log
                reuseport off
            }
            table { # nothing
                a 192.0.2.1
            }
            """
        )
        for line in ("user = daemon\n", "group = adm\n", "resolvers = 192.0.2.53\n    ::1\n"):
            self.assertIn(line, output.text)
        self.assertEqual(looks(output), [])
        for name in ("pidfile", "error_log", "access_log", "bad_requests"):
            self.assertEqual(sum(f"{name}" in warning for warning in output.warnings), 1, name)

    def test_what_is_to_be_looked_at(self) -> None:
        for top, inside, entry, said in (
            ("resolver { mode ipv6_first }", "", "", "asks for IPv4 and IPv6"),
            ("resolver { search example.net }", "", "", "write whole names"),
            ("", "table x", "", "there is no table 'x'"),
            ("", "timeout 5", "", "sniproxy has no such directive"),
            ("chroot /x", "", "", "sniproxy has no such directive"),
            ("", "", "x", "it has no address"),
            ("", "", "(?<x 192.0.2.1", "is not a regular expression here"),
            ("", "", "a(?=b) 192.0.2.1", "is left out"),
            ("", "", ".* *", "clients choose where they go, as in sniproxy"),
        ):
            output = _sniproxy(
                f"{top}\nlisten 443 {{\n{inside}\n}}\ntable {{\n{entry}\nb 1.2.3.4\n}}\n"
            )
            self.assertIn(said, looks(output)[0])

    def test_errors(self) -> None:
        for text, said in (
            ("table {\n}\n", "there is no listener in it"),
            ("listener 443 {\n}\n}\n", "x.cfg:3: '}' is not expected there"),
            ("listener 443\n{\n}\n", "x.cfg:2: '{' is not expected there"),
            ('listener 443 {\nproto "tls\n}\n', "x.cfg:2: a quote or a backslash is left open"),
            ("a { " * 9, "'{' is not expected there"),
        ):
            self.assertIn(said, str(self.assertRaises(ConvertError, _sniproxy, text)))

    @given(st.lists(st.sampled_from(_PIECES)).map(" ".join))
    def test_anything_becomes_rules_or_an_error(self, text: str) -> None:
        attempt(text, "sniproxy")
