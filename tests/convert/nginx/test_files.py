"""Tests of whole files, and of what they include."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from tests.support.examples import scaled
from tests.support.folders import make_folder
from txmux.rules.model import Check
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
        output = converted(
            "stream { include streams/*.conf; include none/*.conf; }", name=str(self.main)
        )
        self.assertEqual(len(rules_of(output).listeners), 2)
        self.assertEqual(
            output.warnings,
            (
                f"{first}:2: LOOK: nonsense on: is left out: it has no counterpart",
                f"{self.main}:1: include none/*.conf: there is no such file here",
            ),
        )
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
            self.assertIn(
                f"it includes {self.folder}/{pattern}, and there is no such file here", str(error)
            )

    def test_lua(self) -> None:
        """A program in Lua is left out whole, with its braces and semicolons; one that runs at the end decides nothing."""
        lua = "local x = { a = '}' } -- }\n if x.a then ngx.exit(ngx.ERROR); end"
        for phase in ("preread", "ssl_client_hello", "content"):
            output = converted(
                f"stream {{ server {{ listen 443;\n{phase}_by_lua_block {{\n{lua}\n}} proxy_pass 127.0.0.1:1; }} }}",
                "nginx",
            )
            message = f"line 2: {phase}_by_lua_block {{ … }}: is left out: it has no counterpart"
            (look,) = looks(output)
            self.assertTrue(look.startswith(message))
            self.assertEqual(phase == "preread", "match = http" in look)
            self.assertEqual(len(rules_of(output).backends), 1)
        output = converted(f"{_STREAM[:-3]} log_by_lua_block {{ {lua} }} }} }}", "nginx")
        self.assertEqual((len(output.warnings), looks(output)), (1, []))
        error = self.assertRaises(
            ConvertError, converted, "stream {\n preread_by_lua_block x }", "nginx"
        )
        self.assertIn("x.cfg:2: ", str(error))

    def test_block_tcp_of_an_older_module(self) -> None:
        output = converted(
            """
            tcp {
                check_shm_size 1M;
                proxy_read_timeout 90s;
                upstream cluster {
                    server 10.0.0.1:3306;
                    server 10.0.0.2:3306;
                    check interval=3000 rise=2 fall=5 timeout=1000;
                    busyness;
                }
                server { listen 1234; proxy_pass cluster; so_keepalive on; timeout 1h; proxy_send_timeout 2h; }
                server { listen 1235; proxy_pass 10.0.0.3:1; }
                upstream sticky { server 10.0.0.1:1; server 10.0.0.2:1; ip_hash; }
                server { listen 1236; proxy_pass sticky; timeout never; }
            }
            """
        )
        cluster, single, sticky = rules_of(output).backends.values()
        self.assertEqual((cluster.idle_timeout, single.idle_timeout), (90, 60))
        self.assertEqual((cluster.balance, sticky.balance), ("least-connections", "source-hash"))
        self.assertEqual((cluster.check, single.check), (Check("tcp", fall=5), None))
        (told,) = looks(output)
        self.assertIn("proxy_timeout never: is left out: 'never' is not a time", told)

    def test_other_blocks_are_reported_once_and_not_read(self) -> None:
        output = converted(
            f"pid x; events {{}} http {{ include gone; }} {_STREAM}", name="nginx.conf"
        )
        self.assertTrue(
            output.text.startswith("# pid, events, http: not about streams, and left out\n")
        )
        self.assertEqual(output.warnings, ())

    def test_process(self) -> None:
        for text, lines in (
            ("user www-data adm; worker_processes auto;",
             "user = www-data\ngroup = adm\nworkers = auto\n"),
            ("worker_processes 4;", "workers = 4\n"),
            ("user root; worker_processes 1;", ""),
        ):  # fmt: skip
            head = converted(f"{text} {_STREAM}", name="nginx.conf").text.partition("[listen")[0]
            self.assertEqual(head, f"[txmux]\n{lines}\n" if lines else "")

    def test_file_included_in_stream(self) -> None:
        output = converted("upstream a { server 127.0.0.1:9; } server { listen 1; proxy_pass a; }")
        self.assertEqual(len(rules_of(output).listeners), 1)

    def test_no_stream_is_an_error(self) -> None:
        for text in (
            "events {} http { server { listen 80; } }",
            "server { listen 80; location / { } }",
        ):
            self.assertIn("stream", str(self.assertRaises(ConvertError, converted, text)))

    def test_broken_file_is_an_error_with_its_line(self) -> None:
        for text, line in (
            ("stream {\n server {\n listen 1;\n", 3), ("stream {\n server { listen 1 } }", 2),
            ("stream { }\n}\n", 2), ("stream {\n}\nevents", 3), ("stream {" * 80 + "}" * 80, 1),
        ):  # fmt: skip
            error = self.assertRaises(ConvertError, converted, text, "nginx")
            self.assertIn(f"x.cfg:{line}: ", str(error))

    def test_quotes_backslashes_comments_and_braces(self) -> None:
        output = converted(
            r"""
            stream { # a comment; {
                map $ssl_preread_server_name $up {
                    'a.example'  "127.0.0.1:1";  # another one
                    "~^b\\.(x|y){1}\.example$" 127.0.0.1:2;
                }
                server { listen 443; ssl_preread on; proxy_pass ${up}; }
            }
            """
        )
        first, second = rules_of(output).routes
        self.assertEqual([a.text for a in first.alternatives], ["tls sni=a.example"])
        self.assertEqual([a.text for a in second.alternatives], [r"tls sni=~b\.(x|y){1}\.example"])

    @settings(max_examples=scaled(200))
    @given(st.lists(_TOKENS, max_size=30))
    def test_any_words(self, words: list[str]) -> None:
        for text in (" ".join(words), f"stream {{ {' '.join(words)} }}"):
            attempt(text, "nginx")

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        attempt(text, "nginx")
