from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from tests.support.examples import scaled
from tests.support.folders import make_folder
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

    def test_only_missing_files_are_an_error(self) -> None:
        for text, pattern in (
            ("stream { include streams/*.conf; }", "streams/*.conf"),
            ("events {} include streams.d/*;", "streams.d/*"),
        ):
            error = self.assertRaises(ConvertError, converted, text, "nginx", str(self.main))
            told = f"it includes {self.folder}/{pattern}, and there is no such file here"
            self.assertIn(told, str(error))

    def test_broken_file_is_an_error_with_its_line(self) -> None:
        for text, line in (
            ("stream {\n server {\n listen 1;\n", 3), ("stream {\n server { listen 1 } }", 2),
            ("stream { }\n}\n", 2), ("stream {\n}\nevents", 3), ("stream {" * 80 + "}" * 80, 1),
            ("stream {\n preread_by_lua_block x }", 2),
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
