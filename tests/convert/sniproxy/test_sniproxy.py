from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, rules_of
from txmux_convert.formats import Conversion
from txmux_convert.writer import ConvertError

_PIECES = (
    *("listener 443 {", "listen 1.2.3.4 80 {\n", "}", "\n", "table {", "table t {", "proto http\n"),
    *("fallback 1.2.3.4:5\n", "source client\n", "a.example *:1 2\n", ".* *\n", "\\\\.b\\.c [::1]"),
    *('"', "#", ";", "resolver {", "nameserver ::1\n", "user x\n", "^(a|$ 1.1.1.1\n", "("),
)


def _sniproxy(text: str) -> Conversion:
    return converted(text, "sniproxy")


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
