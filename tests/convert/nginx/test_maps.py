from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks
from tests.convert.nginx.pieces import mapped, routes
from txmux.wire.globs import hosts
from txmux_convert.nginx.lookups import look_up
from txmux_convert.nginx.maps import read_map
from txmux_convert.nginx.reader import Directive
from txmux_convert.nginx.values import Variable

_NAME = "$ssl_preread_server_name"
_LABELS = st.sampled_from(["a", "b", "www", "example"])
_NAMES = st.lists(_LABELS, min_size=1, max_size=4).map(".".join)
_KEYS = st.one_of(
    _NAMES,
    _NAMES.map("*.{}".format),
    _NAMES.map(".{}".format),
    _NAMES.map("{}.*".format),
    st.sampled_from(
        [r"~^www\.", r"~\.example$", "~a|b", r"~^(a|b)\.", "~*^A", "~^$", "~.*", "~^a.*b$", ""]
    ),
)


def _nothing_lost(line: object, message: str) -> None:
    raise AssertionError(f"{line}: {message}")


class NameTests(SynchronousTestCase):
    @given(st.lists(_KEYS, max_size=8, unique_by=str.lower), _NAMES)
    def test_any_map(self, keys: list[str], name: str) -> None:
        """Whatever is in a map, a name gets the value that nginx gives it."""
        block = [Directive((key, str(n)), n) for n, key in enumerate(keys, 1)]
        table = read_map(
            Directive(("map", _NAME, "$x"), 0, (Directive(("hostnames",), 0), *block)),
            _nothing_lost,
        )
        output = look_up(table, (Variable("name"),), {"name": "sni"}, _nothing_lost)
        value = next(
            (
                case.result
                for case in output.cases
                for term in case.condition
                if hosts(dict(term.options)["sni"]).matches(name)
            ),
            output.otherwise,
        )
        self.assertEqual(value.text, table.find(name).text)
        self.assertEqual(output.otherwise.text, table.find("").text)

    def test_plain_and_other_expressions(self) -> None:
        for expression, expected in (
            (r"~^www\.example\.com$", "www.example.com"), (r"~\.example\.com$", "*.example.com"),
            (r"~^.+\.example\.com$", "*.example.com"), (r"~^(.*)\.example\.com$", "*.example.com"),
            (r"~^api-", "api-*"), (r"~example", "*example*"), (r"~^none$", "~none"),
            (r"~^(a|b)\.example$", r"~(a|b)\.example"), (r"~^a$|b", "~a|.*b.*"),
            (r"~(^|\.)example\.com$", r"~.*(^|\.)example\.com"),
            (r"~^(?<name>\w+)\.example$", r"~(\w+)\.example"), (r"~*^WWW[0-9]$", "~(?i:WWW[0-9])"),
            (r"~*^\D+\.a$", r"~\D+\.a"), ("~*^WWW", "WWW*"),
        ):  # fmt: skip
            output = mapped(_NAME, f"{expression} a", "default b")
            self.assertEqual(routes(output)[0], ([f"tls sni={expected}"], "a"))
            self.assertEqual(looks(output), [])


class OtherFactTests(SynchronousTestCase):
    def test_protocols_are_offered_ones(self) -> None:
        source = "$ssl_preread_alpn_protocols"
        for entry, expected, told in (
            (r"~\bh2\b", "h2", 0), (r'"~(^|,)h2(,|$)"', "h2", 0),
            (r'"~\b(h2|http/1\.1)\b"', "h2,http/1.1", 0), (r"~\bhttp/1.1\b", "http/1.1", 0), ("~xmpp", "*xmpp*", 0),
            ("acme-tls/1", "acme-tls/1", 0), ("h2", "h2", 1), ('"h2,http/1.1"', "h2", 1),
            ("~^h2", "h2*", 1),
        ):  # fmt: skip
            output = mapped(source, f"{entry} a", "default b")
            self.assertEqual(routes(output)[0], ([f"tls alpn={expected}"], "a"))
            self.assertEqual(len(looks(output)), told, entry)
        self.assertEqual(len(looks(mapped(source, "~^h2.*foo a", "default b"))), 1)

    def test_parts_of_a_text_by_their_sign(self) -> None:
        for source, entry, expected in (
            ('"$ssl_preread_protocol:$ssl_preread_server_name"', "TLSv1.3:x.example",
             "version=1.3 sni=x.example"),
            ('"x-$ssl_preread_server_name-y"', "x-a.example-y", "sni=a.example"),
            ('"$ssl_preread_server_name|$server_port"', r'"~\.example\|443$"', "sni=*.example"),
            ('"$ssl_preread_server_name:$server_port"', r"~^a\.example:4", "sni=a.example"),
            ('"$ssl_preread_server_name,$ssl_preread_alpn_protocols"', r'"~^a\.example,.*\bh2\b"',
             "sni=a.example alpn=h2"),
        ):  # fmt: skip
            output = mapped(source, f"{entry} a", "default b")
            self.assertEqual(routes(output)[0], ([f"tls {expected}"], "a"), output.text)
            self.assertEqual(looks(output), [])

    def test_ambiguous_expressions_are_left_out(self) -> None:
        for source, entry in (
            ('"$ssl_preread_server_name$ssl_preread_alpn_protocols"', "~x"),
            ('"$ssl_preread_server_name:$ssl_preread_alpn_protocols"', "~x"),
            ('"$ssl_preread_server_name:$ssl_preread_alpn_protocols"', "a.example:"),
            ('"$ssl_preread_protocol:$ssl_preread_server_name"', "~1.*x"),
            ('"$ssl_preread_server_name:$remote_addr"', "~x"),
            ("$upstream_addr", "~x"),
        ):
            output = mapped(source, f"{entry} a", "default b")
            self.assertEqual(len(looks(output)), 1, output.text)
            self.assertNotIn("[route a]", output.text)
