"""Tests of what is made of a ``map``."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks
from tests.convert.nginx.pieces import mapped, routes, server
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

    def test_names_of_one_value_share_a_line(self) -> None:
        output = mapped(_NAME, "a.example a", "b.example b", "c.example a", "default c")
        self.assertEqual(
            routes(output),
            [
                (["tls sni=a.example,c.example"], "a"),
                (["tls sni=b.example"], "b"),
                (["default"], "c"),
            ],
        )

    def test_no_line_gets_too_long(self) -> None:
        ((lines, _), _) = routes(mapped(_NAME, *(f"{n}.example a" for n in range(20))))
        self.assertEqual([line.count(",") + 1 for line in lines], [8, 8, 4])

    def test_longest_wildcard_first(self) -> None:
        output = mapped(
            _NAME,
            "hostnames",
            ".example.com a",
            "*.x.example.com b",
            "*.y.example.com a",
            "*.z.x.example.com a",
            "www.* c",
        )
        self.assertEqual(
            routes(output),
            [
                (["tls sni=*.z.x.example.com,*.y.example.com"], "a"),
                (["tls sni=*.x.example.com"], "b"),
                (["tls sni=.example.com"], "a"),
                (["tls sni=www.*"], "c"),
                (["default"], "close"),
            ],
        )

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

    def test_capital_letters(self) -> None:
        """Of a name, nginx compares them with what the client wrote, and txmux with small ones."""
        for expression, expected in (("~^Api-", "Api-*"), ("~^A[0-9]", "~(?i:A[0-9].*)")):
            output = mapped(_NAME, f"{expression} a", "default b")
            self.assertEqual(routes(output)[0], ([f"tls sni={expected}"], "a"))
            self.assertIn("here, small letters fit, too", looks(output)[0])

    def test_name_of_an_upstream(self) -> None:
        """Without a port, only an upstream of the client's name can be meant."""
        output = server(f"ssl_preread on; proxy_pass {_NAME};")
        self.assertEqual(
            routes(output),
            [([f"tls sni={name}"], name) for name in "abcd"] + [(["default"], "close")],
        )
        self.assertEqual(looks(output), [])
        output = mapped(_NAME, '"" a', "x.example b", f"default {_NAME}")
        self.assertEqual(routes(output)[:2], [(["tls sni=x.example"], "b"), (["tls sni=a"], "a")])
        self.assertEqual(routes(output)[-1], (["default"], "a"))

    def test_lost_expressions(self) -> None:
        """What an expression looks ahead for, or has found, has no counterpart, and is told with its line."""
        output = mapped(
            _NAME, "~^(?!www) a", r"~^(?<who>\w+)\.example$ $who:443", "~(*x a", "default b"
        )
        self.assertEqual(
            sorted(text.partition(":")[0] for text in looks(output)), ["line 4", "line 5", "line 6"]
        )

    def test_clients_without_a_name(self) -> None:
        for entries, expected in (
            (('"" a', "default b"), [(["tls sni=*"], "b"), (["default"], "a")]),
            (("x.example a",), [(["tls sni=x.example"], "a"), (["default"], "close")]),
            (("~.* a", "default b"), [(["tls sni=*"], "a"), (["default"], "b")]),
            (("~. a", "default b"), [(["tls sni=~.*..*"], "a"), (["default"], "b")]),
        ):
            self.assertEqual(routes(mapped(_NAME, *entries)), expected)

    def test_wildcard_without_hostnames_is_lost(self) -> None:
        output = mapped(_NAME, "*.example.com a", "default b")
        self.assertIn("line 4: *.example.com: is left out", looks(output)[0])
        self.assertEqual(routes(output), [(["default"], "b")])

    def test_escaped_word_of_the_language(self) -> None:
        output = mapped(_NAME, r"\default a", r"\hostnames b")
        self.assertEqual(
            routes(output)[:2], [(["tls sni=default"], "a"), (["tls sni=hostnames"], "b")]
        )


class OtherFactTests(SynchronousTestCase):
    def test_versions(self) -> None:
        source = "$ssl_preread_protocol"
        for entries, expected in (
            (('"" a', "default b"), [(["tls"], "b"), (["default"], "a")]),
            (("TLSv1.3 a",), [(["tls version=1.3"], "a"), (["default"], "close")]),
            (('"" a', "TLSv1.2 c", "default b"),
             [(["tls version=1.2"], "c"), (["tls"], "b"), (["default"], "a")]),
            (
                (r"~^TLSv1\.[01] c", '"" a', "~^TLSv b"),
                [
                    (["tls version=ssl2,ssl3"], "close"), (["tls version=1.1"], "c"),
                    (["tls"], "b"), (["default"], "a"),
                ],
            ),
        ):  # fmt: skip
            self.assertEqual(routes(mapped(source, *entries)), expected)

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

    def test_example_of_the_manual(self) -> None:
        """That of ngx_stream_ssl_preread_module, whose dot is not escaped."""
        names = ("h2", "http/1.1", "xmpp-client")
        entries = [rf"~\b{name}\b {backend}" for name, backend in zip(names, "abc", strict=True)]
        output = mapped("$ssl_preread_alpn_protocols", *entries)
        taken = [
            ([f"tls alpn={name}"], backend) for name, backend in zip(names, "abc", strict=True)
        ]
        self.assertEqual((routes(output)[:3], looks(output)), (taken, []))

    def test_addresses(self) -> None:
        output = mapped("$remote_addr", "192.0.2.1 a", "2001:db8::1 a", "x b", "default c")
        self.assertIn("from = 192.0.2.1\n    2001:db8::1\n", output.text)
        self.assertEqual(len(looks(output)), 1)
        self.assertEqual(len(looks(mapped("$remote_addr", "~^10 a", "default c"))), 1)

    def test_nested_maps(self) -> None:
        names = f"map {_NAME} $name {{ a.example a; default b; }}"
        output = mapped("$ssl_preread_protocol", '"" c', "default $name", more=names)
        self.assertEqual(
            routes(output), [(["tls sni=a.example"], "a"), (["tls"], "b"), (["default"], "c")]
        )

    def test_variable_has_one_value_for_a_client(self) -> None:
        more = (
            "map $ssl_preread_server_name $name { ~^(x|y)$ a; ~^z b; w.example c; }"
            "map $ssl_preread_alpn_protocols $offered { acme-tls/1 a; default b; }"
        )
        output = mapped("$name", '"" $offered', "default $name", more=more)
        self.assertEqual(
            routes(output),
            [
                (["tls sni=w.example"], "c"), (["tls sni=~(x|y)"], "a"), (["tls sni=z*"], "b"),
                (["tls alpn=acme-tls/1"], "a"), (["default"], "b"),
            ],
        )  # fmt: skip
        self.assertEqual(looks(output), [])

    def test_map_that_needs_itself(self) -> None:
        output = mapped(_NAME, "a.example $up", "default b")
        self.assertIn("depends on itself", "".join(looks(output)))

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

    def test_ports_that_lead_elsewhere_are_listeners(self) -> None:
        output = server(
            "listen 8443; listen 9443; proxy_pass $up;",
            "map $server_port $up { 443 a; default b; }",
        )
        self.assertIn("[listen port-443]\nendpoint = 0.0.0.0:443\ndefault = a\n", output.text)
        self.assertIn("endpoint = 0.0.0.0:8443\n    0.0.0.0:9443\ndefault = b\n", output.text)
