from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from tests.support.examples import scaled
from tests.support.folders import make_folder
from txmux.rules.model.networks import NetworkSet
from txmux.rules.reading.values import network
from txmux.wire.globs import hosts
from txmux_convert.nginx.lookups import look_up
from txmux_convert.nginx.maps import admission, read_map
from txmux_convert.nginx.reader import Directive
from txmux_convert.nginx.values import Variable
from txmux_convert.writer import ConvertError

_STREAM = "stream { server { listen 443; proxy_pass 127.0.0.1:1; } }"
_TOKENS = st.sampled_from(
    [
        *("$x", "$ssl_preread_server_name", "~^a$", '""', *"{};\"'\\#\n*"),
        *("stream {", "server {", "upstream a {", "map $ssl_preread_server_name $x {", "geo $x {"),
        *("listen 443;", "listen 443 ssl;", "proxy_pass $x;", "proxy_pass a;", "ssl_preread on;"),
        *("server 127.0.0.1:1;", "default a;", "a.example a;", "include x;", "allow all;", "* a;"),
        *("deny 10.0.0.0/8;", "split_clients $remote_addr $x {", "50% a;", "10.0.0.0/8 a;"),
        *("hash $x;", "weight=9"),
    ]
)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.main = self.folder / "nginx.conf"

    def test_included_files_and_their_lines(self) -> None:
        (self.folder / "streams").mkdir()
        first = self.folder / "streams" / "a.conf"
        first.write_text("\nserver { listen 1; proxy_pass 127.0.0.1:9; nonsense on; }\n")
        (self.folder / "streams" / "b.conf").write_text("include other.part;\n")
        (self.folder / "other.part").write_text("server { listen 2; proxy_pass 127.0.0.1:9; }")
        text = "stream { include streams/*.conf; include none/*.conf; }"
        output = converted(text, name=str(self.main))
        self.assertEqual(len(rules_of(output).listeners), 2)
        expected = (
            f"{first}:2: LOOK: nonsense on: is left out: it has no counterpart",
            f"{self.main}:1: include none/*.conf: there is no such file here",
        )
        self.assertEqual(output.warnings, expected)
        self.assertIn(f"# LOOK: {first} line 2: nonsense on", output.text)

    def test_missing_or_circular_include(self) -> None:
        (self.folder / "x.conf").write_text("include x.conf;\n")
        for name in ("gone.conf", "x.conf", "x\0", "\0/x*"):
            (told,) = looks(converted(f"{_STREAM[:-1]} include {name}; }}", name=str(self.main)))
            self.assertIn("cannot be read", told)
        for text, pattern in (
            ("stream { include streams/*.conf; }", "streams/*.conf"),
            ("events {} include streams.d/*;", "streams.d/*"),
        ):
            error = self.assertRaises(ConvertError, converted, text, "nginx", str(self.main))
            told = f"it includes {self.folder}/{pattern}, and there is no such file here"
            self.assertIn(told, str(error))

    def test_broken_file_is_an_error_with_its_line(self) -> None:
        for text, line in (
            ("stream {\n server {\n listen 1;\n", 3), ("stream {\n server { listen 1 } }", 2), ("stream { }\n}\n", 2),
            ("stream {\n}\nevents", 3), ("stream {" * 80 + "}" * 80, 1), ("stream {\n preread_by_lua_block x }", 2),
        ):  # fmt: skip
            error = self.assertRaises(ConvertError, converted, text, "nginx")
            self.assertIn(f"x.cfg:{line}: ", str(error))

    @settings(max_examples=scaled(200))
    @given(st.lists(_TOKENS, max_size=30))
    def test_any_words(self, words: list[str]) -> None:
        for text in (" ".join(words), f"stream {{ {' '.join(words)} }}"):
            attempt(text, "nginx")

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        attempt(text, "nginx")


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
_NETWORKS = st.sampled_from(
    [
        *("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "0.0.0.0/0", "::/0"),
        *("2001:db8::/32", "all"),
    ]
)
_ADDRESSES = st.sampled_from(
    ["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1", "::1"]
)


def _nothing_lost(line: object, message: str) -> None:
    raise AssertionError(f"{line}: {message}")


class MapTests(SynchronousTestCase):
    @given(st.lists(_KEYS, max_size=8, unique_by=str.lower), _NAMES)
    def test_any_map(self, keys: list[str], name: str) -> None:
        """Whatever is in a map, a name gets the value that nginx gives it."""
        block = [Directive((key, str(n)), n) for n, key in enumerate(keys, 1)]
        directive = Directive(("map", _NAME, "$x"), 0, (Directive(("hostnames",), 0), *block))
        table = read_map(directive, _nothing_lost)
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
